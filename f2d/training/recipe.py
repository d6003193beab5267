"""A training recipe: every number a run depends on, read from YAML, overridable, saved beside the result."""

import re
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

import yaml

from f2d.degradation import CATEGORIES
from f2d.nets import PRESETS
from f2d.typed_fields import check_types, require

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
OWNER = "recipe"
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true")  # Lightning's names


@dataclass(frozen=True)
class LossWeights:
    """Factors of the loss terms in `f2d.training.losses`; `pixel` weighs the transport target itself."""

    pixel: float = 1.0
    reconstruction: float = 0.1
    frequency: float = 0.05
    classification: float = 0.01
    presence: float = 0.1
    maps: float = 0.05
    balance: float = 0.01
    gate_prior: float = 0.02

    def __post_init__(self) -> None:
        check_types(self, f"{OWNER}: losses")
        for term in fields(self):
            weight = getattr(self, term.name)
            require(weight >= 0, f"{OWNER}: losses", term.name, weight, "a weight >= 0")


@dataclass(frozen=True)
class Recipe:
    """model: preset name. one_call_fraction: share of the samples trained at t = 0, the state that a one-call
    restoration sees; the others draw t uniformly from 0..T. categories: name -> relative frequency (missing: 1).
    initial: a folder or preset whose weights the run starts from. Lengths in pixels, learning rates per step, times in
    steps.

    Raises ValueError for values that cannot work, naming the field, before anything is loaded.
    """

    model: str = "f2d-lite"
    initial: str | None = None
    crop: int = 128
    batch_size: int = 8
    steps: int = 20_000
    learning_rate: float = 1e-3
    final_learning_rate: float = 1e-6
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 1e-4
    warmup_steps: int = 200
    gradient_clip: float = 1.0
    ema_decay: float = 0.999
    one_call_fraction: float = 0.5
    categories: dict[str, float] = field(default_factory=dict)
    losses: LossWeights = field(default_factory=LossWeights)
    precision: str = "bf16-mixed"
    seed: int = 0
    workers: int = 1
    validate_every: int = 1000
    validation_images: int = 22

    def __post_init__(self) -> None:
        check_types(self, OWNER)

        def check(name: str, condition: bool, wanted: str) -> None:
            require(condition, OWNER, name, getattr(self, name), wanted)

        check("model", self.model in PRESETS, f"a preset: {', '.join(PRESETS)}")
        for name in ("crop", "batch_size", "steps", "validate_every", "validation_images"):
            check(name, getattr(self, name) >= 1, "at least 1")
        for name in ("final_learning_rate", "weight_decay", "warmup_steps", "gradient_clip", "workers"):
            check(name, getattr(self, name) >= 0, "at least 0")
        check("learning_rate", self.learning_rate > 0, "a rate above 0")
        check("betas", all(0 <= beta < 1 for beta in self.betas), "two numbers in [0, 1)")
        check("ema_decay", 0 <= self.ema_decay < 1, "a number in [0, 1)")
        check("one_call_fraction", 0 <= self.one_call_fraction <= 1, "a number in [0, 1]")
        check("precision", self.precision in PRECISIONS, f"one of {', '.join(PRECISIONS)}")
        check("seed", 0 <= self.seed < 2**32, "a number in [0, 2^32)")
        unknown = sorted(set(self.categories) - set(CATEGORIES))
        if unknown:
            raise ValueError(f"{OWNER}: categories has unknown {', '.join(unknown)}; there are {', '.join(CATEGORIES)}")
        frequencies = [self.categories.get(name, 1.0) for name in CATEGORIES]
        check("categories", min(frequencies) >= 0 and max(frequencies) > 0, "frequencies >= 0, not all of them 0")

    @classmethod
    def load(cls, name_or_path: str, **overrides: object) -> "Recipe":
        """Read f2d/configs/NAME.yaml or a YAML file, then apply `overrides` (None leaves a field as it is).

        Of `categories`, only those that are given are overridden.
        """
        path = Path(name_or_path)
        if path.suffix not in (".yaml", ".yml"):
            path = CONFIGS / f"{name_or_path}.yaml"
        if not path.is_file():
            known = ", ".join(sorted(p.stem for p in CONFIGS.glob("*.yaml")))
            raise ValueError(f"recipe: no file {path.name}; recipes that ship with f2d: {known}")
        try:
            values = yaml.load(path.read_text(encoding="utf-8"), _Loader)
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"recipe {path.name} is not YAML: {error}") from None
        given = _known(cls, {} if values is None else values, f"recipe {path.name}")
        if "losses" in given:
            given["losses"] = LossWeights(**_known(LossWeights, given["losses"], f"recipe {path.name}: losses"))
        recipe = cls(**given)
        overrides = {name: value for name, value in overrides.items() if value is not None}
        if "categories" in overrides:
            overrides["categories"] = recipe.categories | overrides["categories"]
        return replace(recipe, **overrides)

    def to_yaml(self) -> str:
        values = asdict(self)
        values["betas"] = list(self.betas)
        return yaml.safe_dump(values, sort_keys=False)


class _Loader(yaml.SafeLoader):
    """YAML 1.2's numbers: PyYAML reads 1e-3, without a point, as text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+"), list("-+.0123456789")
)


def _known(cls: type, values: object, where: str) -> dict:
    """`values` as a dict of fields of `cls`; ValueError for what is no mapping, and for names it does not have."""
    if not isinstance(values, dict):
        raise ValueError(f"{where} is a {type(values).__name__}; give a mapping of names to values")
    known = sorted(f.name for f in fields(cls))
    unknown = sorted(map(str, set(values) - set(known)))
    if unknown:
        raise ValueError(f"{where}: unknown {', '.join(unknown)}; known are {', '.join(known)}")
    return dict(values)
