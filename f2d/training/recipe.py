"""A training recipe: every setting that a run depends on, read from YAML, overridable, and saved with the result."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from f2d.data import Augment, Source
from f2d.data.categories import canonical
from f2d.nets.models import PRESETS, config_of
from f2d.training.losses import PIXEL
from f2d.training.yaml12 import Dumper, Loader
from f2d.typed_fields import checked, require

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
OWNER = "recipe"
# Lightning's names; the weights stay float32: a step of 1e-3 of AdamW or of the average is below bfloat16's rounding
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
CHOICES: dict[str, Iterable[str]] = {
    "model": PRESETS,
    "precision": PRECISIONS,
    "optimizer": ("adamw", "muon"),
    "strategy": ("auto", "ddp", "fsdp"),
    "synthesis": ("workers", "device"),
}
_COUNTS = ("accumulate", "steps", "decay_steps", "save_every", "validate_every", "validation_images")
_OTHERS = ("final_learning_rate", "weight_decay", "warmup_steps", "gradient_clip", "workers", "most_bad_steps")
LIMITS = {
    **dict.fromkeys((*_COUNTS, "validation_steps"), (1, None)),
    **dict.fromkeys(_OTHERS, (0, None)),
    "validation_crop": (8, None),
}


@dataclass(frozen=True)
class LossWeights:
    """Weights of the loss terms in `f2d.training.losses`; `pixel` weights the transport target itself.

    kind is the distance in the terms pixel and reconstruction: "charbonnier", "l1", "l2" or "log_l2". map_target is
    "spatial" (presence and location, see `losses.map_target`), "mask" (the synthesis's ground-truth maps) or "constant"
    (the papers' label); localisation always uses the ground-truth maps. balance_over is "present" (factors in the
    batch) or "all" (as in the published code). ResFlow only has the term `pixel`.

    categories (name -> weight, otherwise 1) and hardness, an exponent, weight the samples in pixel and reconstruction:
    w_b = weight · error ** hardness. By default all samples have the same weight. To draw a category more often
    instead, use the `categories` of a source.
    """

    kind: str = "charbonnier"
    map_target: str = "spatial"
    balance_over: str = "present"
    categories: dict[str, float] = field(default_factory=dict)
    hardness: float = 0.0
    pixel: float = 1.0
    reconstruction: float = 0.1
    frequency: float = 0.05
    classification: float = 0.01
    presence: float = 0.1
    maps: float = 0.05
    localisation: float = 0.0
    balance: float = 0.01
    gate_prior: float = 0.02
    enhancement: float = 0.1
    enhancer_gate: float = 0.01

    def __post_init__(self) -> None:
        choices = {"map_target": ("mask", "spatial", "constant"), "balance_over": ("present", "all")}
        check = checked(self, f"{OWNER}: losses", choices={"kind": PIXEL, **choices})
        fits = all(weight >= 0 for weight in self.categories.values())
        check("categories", fits, "a mapping of categories, each to a weight >= 0")
        check("hardness", 0 <= self.hardness <= 4, "an exponent in [0, 4]")
        object.__setattr__(self, "categories", {canonical(name): w for name, w in self.categories.items()})
        weights = {name: w for name, w in vars(self).items() if isinstance(w, float) and name != "hardness"}
        for name, weight in weights.items():
            check(name, weight >= 0, "a weight >= 0")
        check("pixel", any(weights.values()), "above 0 if all other weights are 0, because nothing would be learned")


@dataclass(frozen=True)
class Stage:
    """From step `start` on, train on crops of crop x crop pixels in batches of batch_size."""

    start: int
    crop: int
    batch_size: int

    def __post_init__(self) -> None:
        checked(self, f"{OWNER}: stages", {"start": (0, None), "crop": (8, None), "batch_size": (1, None)})


@dataclass(frozen=True)
class Recipe:
    """A training run: of `model`, a preset whose fields `network` can replace, or from the weights of `initial`.

    Lengths are in pixels, times in steps, and learning rates per step. Raises ValueError for an invalid value, with the
    name of the field, before anything is loaded.

    Attributes:
        initial: a preset, a checkpoint folder or owner/name on the Hugging Face Hub, where training starts from.
        sources: the data, relative to the given folder (see `f2d.data.Source`).
        stages: crop sizes over time, the first from step 0. A batch_size counts all machines together.
        accumulate: number of parts in which each batch is processed.
        optimizer: "adamw", or "muon" (`f2d.training.muon.Muon`: matrices by Muon, the rest by AdamW; not with fsdp).
        learning_rate: the peak rate, reached linearly over warmup_steps.
        final_learning_rate: the rate at the end, reached by a cosine over the last decay_steps (null: over all steps
            after the warm-up).
        one_call_fraction: share of the samples at the degraded end of the path, the only state that a one-call
            restoration sees.
        varied_fraction: share of the composites drawn from wider ranges than the published ones
            (`f2d.degradation.varied_parameters`).
        synthesis: where images are degraded: in the "workers", or on the "device" inside the step.
        most_bad_steps: steps with a loss or gradients that are not finite are skipped; more than this number end the
            run.
        save_every: steps between saved states.
        validate_every: steps between validations, which use `validation_images` held-out crops of validation_crop
            pixels (null: the largest crop of the stages).
    """

    model: str = "f2d-lite"
    network: dict[str, Any] = field(default_factory=dict)
    initial: str | None = None
    sources: tuple[Source, ...] = (Source("."),)
    augment: Augment = field(default_factory=Augment)
    stages: tuple[Stage, ...] = (Stage(0, 128, 8),)
    accumulate: int = 1
    steps: int = 20_000
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    final_learning_rate: float = 0.0
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 1e-4
    warmup_steps: int = 200
    decay_steps: int | None = None
    gradient_clip: float = 1.0
    ema_decay: float = 0.999
    one_call_fraction: float = 0.5
    varied_fraction: float = 0.0
    losses: LossWeights = field(default_factory=LossWeights)
    precision: str = "bf16-mixed"
    strategy: str = "auto"
    synthesis: str = "workers"
    seed: int = 0
    workers: int = 1
    most_bad_steps: int = 20
    save_every: int = 500
    validate_every: int = 1000
    validation_images: int = 44
    validation_crop: int | None = None
    validation_steps: int = 1

    def __post_init__(self) -> None:
        check = checked(self, OWNER, LIMITS, CHOICES)
        if self.initial is None:
            config_of(self.model, self.network)  # raises errors that name the invalid field
        check(
            "network", self.initial is None or not self.network, "empty beside `initial`, which determines the network"
        )
        check("learning_rate", self.learning_rate > 0, "a rate above 0")
        falls = self.final_learning_rate <= self.learning_rate
        check("final_learning_rate", falls, f"at most learning_rate, {self.learning_rate:g}, from which it falls")
        check("betas", all(0 <= beta < 1 for beta in self.betas), "two numbers in [0, 1)")
        check("ema_decay", 0 <= self.ema_decay < 1, "a number in [0, 1)")
        check("one_call_fraction", 0 <= self.one_call_fraction <= 1, "a number in [0, 1]")
        check("varied_fraction", 0 <= self.varied_fraction <= 1, "a number in [0, 1]")
        check("strategy", self.optimizer == "adamw" or self.strategy != "fsdp", "auto or ddp with optimizer muon")
        check("seed", 0 <= self.seed < 2**32, "a number in [0, 2^32)")
        check("sources", len(self.sources) > 0, "a list of at least one source")
        starts = [stage.start for stage in self.stages]
        rising = all(a < b for a, b in pairwise(starts))
        check("stages", bool(starts) and starts[0] == 0 and rising, "a list whose starts rise from 0")
        sizes = [stage.batch_size for stage in self.stages]
        fits = all(size % self.accumulate == 0 for size in sizes)
        check("accumulate", fits, f"a divisor of every batch size ({', '.join(map(str, sizes))})")

    @classmethod
    def load(cls, name_or_path: str, overrides: dict[str, Any] | None = None) -> "Recipe":
        """Read f2d/configs/NAME.yaml or a YAML file, and apply `overrides`.

        If the file names another recipe under `extends`, its values replace those of that recipe: mappings entry by
        entry, lists as a whole. overrides map dotted names to values, for example {"steps": 500, "losses.maps": 0.1,
        "stages.0.crop": 96, "network.expert_width": 64}.
        """
        values, where = _read(name_or_path)
        recipe = _built(cls, values, where)  # before any override, so that a mistake is blamed on the right one
        if not overrides:
            return recipe
        values = recipe.to_dict()
        for name, value in overrides.items():
            _override(values, name, value)
        recipe = _built(cls, values, OWNER)
        if "model" in overrides and recipe.initial is not None:  # one that a file names is the default
            raise ValueError(
                f"{OWNER}: model={recipe.model} has no effect beside the weights of {recipe.initial}, whose network is "
                f"trained, so start from weights of {recipe.model} or without any"
            )
        return recipe

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain types for YAML."""
        return json.loads(json.dumps(asdict(self)))

    def to_yaml(self) -> str:
        return yaml.dump(self.to_dict(), Dumper=Dumper, sort_keys=False)


def parse(text: str) -> Any:
    """Parse a YAML text; raise yaml.YAMLError if it is invalid."""
    return yaml.load(text, Loader)


def _read(name_or_path: str, home: Path = Path(), extending: tuple[Path, ...] = ()) -> tuple[Any, str]:
    """Return (values, their name in errors) of a recipe file, over those of the recipe that it `extends`.

    That recipe is a shipped one or a file in the same folder.
    """
    path = home / name_or_path
    if path.suffix not in (".yaml", ".yml"):
        path = CONFIGS / f"{name_or_path}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in CONFIGS.glob("*.yaml")))
        raise ValueError(f"recipe: there is no file {path.name}, nor a shipped recipe of this name ({known})")
    where = f"recipe {path.name}"
    if path.resolve() in extending:
        raise ValueError(f"{where}: extends itself")
    try:
        values = parse(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{where} is not YAML: {error}") from None
    if isinstance(values, dict) and "extends" in values:
        extending = (*extending, path.resolve())
        base, _ = _read(str(values.pop("extends")), path.parent, extending)
        if not isinstance(base, dict):
            raise ValueError(f"{where}: extends a file that is not a mapping of names to values")
        merged = {
            name: {**base[name], **value} if isinstance(value, dict) and isinstance(base.get(name), dict) else value
            for name, value in values.items()
        }
        values = {**base, **merged}
    return {} if values is None else values, where


_PARTS = {"losses": LossWeights, "augment": Augment}
_LISTS = {"sources": Source, "stages": Stage}


def _built(cls: type, values: object, where: str) -> Any:
    """Build a dataclass and its parts from plain values; raise ValueError, which names the field, if one is invalid."""
    given = _known(cls, values, where)
    if cls is Recipe:
        for name, part in _PARTS.items():
            if name in given:
                given[name] = _built(part, given[name], f"{where}: {name}")
        for name, part in _LISTS.items():
            if name in given:
                require(isinstance(given[name], list), where, name, given[name], "a list")
                given[name] = tuple(_built(part, item, f"{where}: {name}") for item in given[name])
    try:
        return cls(**given)
    except TypeError as error:  # a field without a default is missing
        raise ValueError(f"{where}: {str(error).split('() ')[-1]}") from None


def _known(cls: type, values: object, where: str) -> dict:
    """Return `values` as a dict of fields of `cls`; raise ValueError for other types and unknown names."""
    if not isinstance(values, dict):
        raise ValueError(f"{where} must be a mapping of names to values, got {type(values).__name__}")
    known = sorted(f.name for f in fields(cls))
    unknown = sorted(map(str, set(values) - set(known)))
    if unknown:
        raise ValueError(f"{where}: unknown {', '.join(unknown)} (known: {', '.join(known)})")
    return dict(values)


def _override(values: dict[str, Any], name: str, value: Any) -> None:
    """Set the entry that a dotted name leads to; missing entries of mappings are added, and checked as fields later."""
    *path, last = name.split(".")
    place: Any = values
    for part in path:
        inside = place[int(part)] if isinstance(place, list) and part.isdecimal() and int(part) < len(place) else None
        place = place.get(part) if isinstance(place, dict) else inside
        if not isinstance(place, (dict, list)):
            raise ValueError(f"{OWNER}: no field {name}, only {', '.join(values)}, and their fields after a dot")
    if isinstance(place, list):
        if not (last.isdecimal() and int(last) < len(place)):
            raise ValueError(f"{OWNER}: no field {name}: the list has {len(place)} entries, counted from 0")
        place[int(last)] = value
    else:
        place[last] = value
