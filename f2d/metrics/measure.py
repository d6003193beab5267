"""What a measure of restorations is, whatever it computes."""

from typing import NamedTuple, Protocol

from torch import Tensor


class About(NamedTuple):
    """What tables say of a measure. key: its name in files, spelled out ("psnr rgb 8bit"); title: of a column; better:
    "higher" or "lower"; unit: "dB", "" for none; digits: printed after the point."""

    key: str
    title: str
    better: str
    unit: str = ""
    digits: int = 3


class Measure(Protocol):
    """A number for every picture. needs_truth: whether it compares with the clean picture."""

    about: About
    needs_truth: bool

    def __call__(self, restored: Tensor, truth: Tensor | None) -> float:
        """restored, truth: float32 [3, H, W] in [0, 1] (restored may leave it), on the CPU; NaN where not defined."""
        ...
