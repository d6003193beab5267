"""Base classes of all architectures: configurations saved as config.json, and networks built from them."""

import os
from dataclasses import asdict, dataclass, fields
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


@dataclass(frozen=True)
class SavedConfig:
    """A frozen dataclass of everything that shapes a network.

    ARCHITECTURE: the entry "architecture" in its files, which distinguishes them from others; None if absent.
    PRESETS: configurations by name.
    """

    ARCHITECTURE: ClassVar[str | None] = None
    PRESETS: ClassVar[dict[str, Any]] = {}

    def to_dict(self) -> dict:
        """Convert to plain types for JSON."""
        values = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        return values if self.ARCHITECTURE is None else {"architecture": self.ARCHITECTURE, **values}

    @classmethod
    def from_dict(cls, values: dict) -> Self:
        """Invert `to_dict`; raise ValueError for another architecture, unknown keys, and invalid fields."""
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
        """Load the configuration of a checkpoint, as `checkpoints.find` finds it; errors name the file."""
        folder = checkpoints.find(source, **download)
        values = checkpoints.read_config(folder)
        try:
            return cls.from_dict(values)
        except ValueError as error:
            raise ValueError(f"{folder / checkpoints.CONFIG}: {error}") from None

    @classmethod
    def preset(cls, name: str) -> Self:
        """Return a configuration by name; raise ValueError, which lists the names, for an unknown one."""
        if name not in cls.PRESETS:
            raise ValueError(f"preset must be one of {', '.join(cls.PRESETS)}, got {name!r}")
        return cls.PRESETS[name]


class SavedNetwork(nn.Module, PyTorchModelHubMixin):
    """A network built from its `config` alone, an instance of CONFIG.

    The mixin provides `push_to_hub` and the Hub's metadata. Files are read and written by `f2d.checkpoints`, since the
    mixin's own loading also reads pickles, and its saving leaves a folder without config.json while it writes the
    weights. TITLE and PAPER describe the architecture in model cards.
    """

    CONFIG: ClassVar[type[SavedConfig]]
    TITLE: ClassVar[str]
    PAPER: ClassVar[str]
    config: SavedConfig

    @classmethod
    def checked(cls, config: Any) -> Any:
        """Return `config`, CONFIG's defaults for None; raise TypeError, which says what to call, for anything else."""
        if config is not None and not isinstance(config, cls.CONFIG):
            raise TypeError(
                f"{cls.__name__}: config must be a {cls.CONFIG.__name__}, got {type(config).__name__} "
                f"(from_preset builds a network by name, from_pretrained loads a trained one)"
            )
        return cls.CONFIG() if config is None else config

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights."""
        return next(self.parameters()).dtype

    @classmethod
    def from_preset(cls, name: str) -> Self:
        """Build a freshly initialised network of a preset; raise ValueError, which lists the presets, if unknown."""
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
        """Write `model.safetensors`, `config.json` and, unless it exists, `README.md` to a folder, created if missing.

        model_card_kwargs are the arguments of `f2d.checkpoints.card.card`. With push_to_hub, the files are also
        uploaded to repo_id (by default the folder's name) with the keywords of `push_to_hub`, and the commit's address
        is returned. config only exists for callers of the mixin; passing one raises ValueError.
        """
        if config is not None:
            raise ValueError(
                f"{type(self).__name__}: config must be omitted, because the network's own configuration is saved"
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
        """Upload the files of `save_pretrained` to ``owner/name``, created if missing; return the commit's address.

        options: private, token, commit_message, branch, create_pr, ... of `huggingface_hub.ModelHubMixin.push_to_hub`.
        """
        told = {**(model_card_kwargs or {}), "name": repo_id}
        return super().push_to_hub(repo_id, model_card_kwargs=told, **options)

    def generate_model_card(self, **told: Any) -> ModelCard:
        """Return the text of README.md; the arguments are those of `f2d.checkpoints.card.card`."""
        return model_card.card(self, **told)

    @classmethod
    def from_pretrained(  # type: ignore[override]  # presets and folders are no ids of the Hub
        cls, source: str | os.PathLike, **download: Any
    ) -> Self:
        """Load a trained network, in eval mode, from a folder of `save_pretrained`, shipped weights, or the Hub.

        source: a folder, a preset's name, or ``owner/name`` or ``owner/name@revision`` on the Hub, looked up in this
        order. download: revision, token, cache_dir, local_files_only, force_download, as in `f2d.checkpoints.find`.

        Raises FileNotFoundError, which lists the presets and says why the Hub returned nothing; raises ValueError for a
        damaged file, and for weights that are not finite or do not fit their configuration.
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
