"""What all architectures share: configurations that travel as config.json, and networks that are made of one."""

import os
from dataclasses import asdict, fields
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import Self

from f2d import checkpoints
from f2d.typed_fields import require


class SavedConfig:
    """A frozen dataclass of everything that shapes a network.

    ARCHITECTURE: the entry of that name in its files, which tells them from others'; None where there is none.
    PRESETS: configurations by name.
    """

    ARCHITECTURE: ClassVar[str | None] = None
    PRESETS: ClassVar[dict[str, Any]] = {}

    def to_dict(self) -> dict:
        """Plain types, ready for JSON."""
        values = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        return values if self.ARCHITECTURE is None else {"architecture": self.ARCHITECTURE, **values}

    @classmethod
    def from_dict(cls, values: dict) -> Self:
        """The inverse of `to_dict`; ValueError for another architecture, unknown keys, and fields that do not fit."""
        owner = cls.__name__
        if not isinstance(values, dict):
            raise ValueError(f"{owner}: a configuration is a mapping of its fields, not a {type(values).__name__}")
        values = dict(values)
        if cls.ARCHITECTURE is not None:
            given = values.pop("architecture", None)
            require(given == cls.ARCHITECTURE, owner, "architecture", given, repr(cls.ARCHITECTURE))
        known = {field.name for field in fields(cls)}
        unknown = sorted(map(str, set(values) - known))
        if unknown:
            raise ValueError(f"{owner} has no {', '.join(unknown)}; it has {', '.join(sorted(known))}")
        return cls(**values)

    @classmethod
    def from_pretrained(cls, source: str | os.PathLike) -> Self:
        """The configuration of a checkpoint folder or shipped preset, without its weights; errors name the file."""
        values = checkpoints.read_config(source)
        try:
            return cls.from_dict(values)
        except ValueError as error:
            raise ValueError(f"{checkpoints.find(source) / checkpoints.CONFIG}: {error}") from None

    @classmethod
    def preset(cls, name: str) -> Self:
        """A configuration by name; ValueError lists the names there are."""
        if name not in cls.PRESETS:
            raise ValueError(f"no preset {name!r}; there are {', '.join(cls.PRESETS)}")
        return cls.PRESETS[name]


class SavedNetwork(nn.Module):
    """A network made from its `config` alone, of the class CONFIG."""

    CONFIG: ClassVar[type[SavedConfig]]
    config: SavedConfig

    @classmethod
    def from_preset(cls, name: str) -> Self:
        """A freshly initialised network of a preset size; ValueError lists the presets there are."""
        return cls(cls.CONFIG.preset(name))

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """Write `model.safetensors` and `config.json` into a folder (made if need be)."""
        checkpoints.write(folder, self.config.to_dict(), self.state_dict())

    @classmethod
    def from_pretrained(cls, source: str | os.PathLike) -> Self:
        """A trained network, in eval mode, from a folder of `save_pretrained` or from the weights shipped for a preset.

        FileNotFoundError lists the presets there are; ValueError says what is damaged, and where weights are not finite
        or do not fit their configuration.
        """
        config = cls.CONFIG.from_pretrained(source)
        return cls._with_weights(config, checkpoints.read_weights(source), source)

    @classmethod
    def _with_weights(cls, config: SavedConfig, state: dict[str, Tensor], source: object) -> Self:
        with torch.device("meta"):
            net = cls(config)
        net.load_state_dict(checkpoints.fitted(state, net.state_dict(), source), assign=True)
        return net.eval()
