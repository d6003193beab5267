"""A training recipe: every number a run depends on, read from YAML, overridable, saved beside the result."""

from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

import yaml

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


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


@dataclass(frozen=True)
class Recipe:
    """model: preset name. one_call_fraction: share of the samples trained at t = 0, the state that a one-call
    restoration sees; the others draw t uniformly from 0..T. categories: name -> relative frequency (missing: 1).
    initial: a folder or preset whose weights the run starts from. Lengths in pixels, learning rates per step, times in
    steps.

    Raises ValueError for values that cannot work, before anything is loaded.
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
        for name in ("crop", "batch_size", "steps", "validate_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"recipe: {name} must be at least 1, got {getattr(self, name)}")
        if not 0.0 <= self.one_call_fraction <= 1.0:
            raise ValueError(f"recipe: one_call_fraction must lie in [0, 1], got {self.one_call_fraction}")

    @classmethod
    def load(cls, name_or_path: str, **overrides: object) -> "Recipe":
        """Read f2d/configs/NAME.yaml or a YAML file, then apply `overrides` (None leaves a field as it is)."""
        path = Path(name_or_path)
        if path.suffix not in (".yaml", ".yml"):
            path = CONFIGS / f"{name_or_path}.yaml"
        if not path.is_file():
            known = ", ".join(sorted(p.stem for p in CONFIGS.glob("*.yaml")))
            raise ValueError(f"recipe: no file {path.name}; recipes that ship with f2d: {known}")
        values = yaml.safe_load(path.read_text()) or {}
        known_fields = {f.name for f in fields(cls)}
        unknown = sorted(set(values) - known_fields)
        if unknown:
            raise ValueError(
                f"recipe {path.name}: unknown {', '.join(unknown)}; known are {', '.join(sorted(known_fields))}"
            )
        if "losses" in values:
            values["losses"] = LossWeights(**values["losses"])
        if "betas" in values:
            values["betas"] = tuple(values["betas"])
        return replace(cls(**values), **{k: v for k, v in overrides.items() if v is not None})

    def to_yaml(self) -> str:
        values = asdict(self)
        values["betas"] = list(self.betas)
        return yaml.safe_dump(values, sort_keys=False)
