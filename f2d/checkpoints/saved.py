"""What all architectures share: configurations that travel as config.json, and networks that are made of one."""

import os
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, ClassVar

import torch
from huggingface_hub import ModelCard, PyTorchModelHubMixin
from torch import Tensor, nn
from typing_extensions import Self

from f2d import checkpoints
from f2d.checkpoints import card as model_card
from f2d.replacing import replacing
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
            raise ValueError(f"{owner}: a configuration must be a mapping of its fields, got {type(values).__name__}")
        values = dict(values)
        if cls.ARCHITECTURE is not None:
            given = values.pop("architecture", None)
            require(given == cls.ARCHITECTURE, owner, "architecture", given, repr(cls.ARCHITECTURE))
        known = {field.name for field in fields(cls)}
        unknown = sorted(map(str, set(values) - known))
        if unknown:
            raise ValueError(f"{owner} has no {', '.join(unknown)}, only {', '.join(sorted(known))}")
        return cls(**values)

    @classmethod
    def from_pretrained(cls, source: str | os.PathLike, **download: Any) -> Self:
        """The configuration of a checkpoint, as `checkpoints.find` finds it; errors name the file."""
        folder = checkpoints.find(source, **download)
        values = checkpoints.read_config(folder)
        try:
            return cls.from_dict(values)
        except ValueError as error:
            raise ValueError(f"{folder / checkpoints.CONFIG}: {error}") from None

    @classmethod
    def preset(cls, name: str) -> Self:
        """A configuration by name; ValueError lists the names there are."""
        if name not in cls.PRESETS:
            raise ValueError(f"preset must be one of {', '.join(cls.PRESETS)}, got {name!r}")
        return cls.PRESETS[name]


class SavedNetwork(nn.Module, PyTorchModelHubMixin):
    """A network made from its `config` alone, of the class CONFIG.

    Of the mixin come `push_to_hub` and what the Hub knows a network by. Files are ours, read and written by
    `f2d.checkpoints` wherever they come from: the mixin's own way to load reads pickles too, and its way to save leaves
    a folder without config.json while it writes the weights. TITLE, PAPER: of the architecture, for model cards.
    """

    CONFIG: ClassVar[type[SavedConfig]]
    TITLE: ClassVar[str]
    PAPER: ClassVar[str]
    config: SavedConfig

    @classmethod
    def from_preset(cls, name: str) -> Self:
        """A freshly initialised network of a preset size; ValueError lists the presets there are."""
        return cls(cls.CONFIG.preset(name))

    def save_pretrained(  # type: ignore[override]  # the mixin takes a configuration of any kind
        self,
        save_directory: str | os.PathLike,
        *,
        config: None = None,
        repo_id: str | None = None,
        push_to_hub: bool = False,
        model_card_kwargs: dict[str, Any] | None = None,
        **push: Any,
    ) -> str | None:
        """Write `model.safetensors`, `config.json` and, where none is, `README.md` into a folder (made if need be).

        model_card_kwargs: what the card is to say (see `f2d.checkpoints.card.card`). push_to_hub: also upload them, to
        repo_id or the folder's name, with the keywords of `push_to_hub`, and return the commit's address. config: for
        the mixin's callers; a network has its own, and ValueError says so.
        """
        if config is not None:
            raise ValueError(
                f"{type(self).__name__}: config must be omitted, as the network's own configuration is saved"
            )
        folder = Path(save_directory)
        told = {"name": repo_id or "", **(model_card_kwargs or {})}
        card = None if (folder / model_card.README).exists() else self.generate_model_card(**told)
        checkpoints.write(folder, self.config.to_dict(), self.state_dict())
        if card is not None:
            with replacing(folder / model_card.README) as part:
                part.write_text(str(card), encoding="utf-8")
        return self.push_to_hub(repo_id or folder.name, model_card_kwargs=told, **push) if push_to_hub else None

    def push_to_hub(self, repo_id: str, *, model_card_kwargs: dict[str, Any] | None = None, **options: Any) -> str:
        """Upload what `save_pretrained` writes to a repository ``owner/name``, made if need be; the commit's address.

        options: private, token, commit_message, branch, create_pr, ... of `huggingface_hub.ModelHubMixin.push_to_hub`.
        """
        told = {**(model_card_kwargs or {}), "name": repo_id}
        return super().push_to_hub(repo_id, model_card_kwargs=told, **options)

    def generate_model_card(self, **told: Any) -> ModelCard:
        """What README.md will be; told: as in `f2d.checkpoints.card.card`."""
        return model_card.card(self, **told)

    @classmethod
    def from_pretrained(  # type: ignore[override]  # presets and folders are no ids of the Hub
        cls, source: str | os.PathLike, **download: Any
    ) -> Self:
        """A trained network, in eval mode, from a folder of `save_pretrained`, a preset's shipped weights, or the Hub.

        source: a folder, a preset's name, or ``owner/name`` or ``owner/name@revision`` on the Hub, looked for in this
        order. download: revision, token, cache_dir, local_files_only, force_download, as in `f2d.checkpoints.find`.

        FileNotFoundError lists the presets there are, and says why nothing comes from the Hub; ValueError says what is
        damaged, and where weights are not finite or do not fit their configuration.
        """
        folder = checkpoints.find(source, **download)
        config = cls.CONFIG.from_pretrained(folder)
        return cls._with_weights(config, checkpoints.read_weights(folder), source)

    @classmethod
    def _with_weights(cls, config: SavedConfig, state: dict[str, Tensor], source: object) -> Self:
        with torch.device("meta"):
            net = cls(config)
        net.load_state_dict(checkpoints.fitted(state, net.state_dict(), source), assign=True)
        return net.eval()
