"""The interface of all measures of restorations."""

from pathlib import Path
from typing import NamedTuple, Protocol

from torch import Tensor


class About(NamedTuple):
    """The description of a measure in tables.

    key: its name in files, spelled out ("psnr rgb 8bit"). title: heading of the column. better: "higher", "lower", or
    "" if neither is. unit: "dB", or "" for none. digits: number of decimals.
    """

    key: str
    title: str
    better: str
    unit: str = ""
    digits: int = 3


class Measure(Protocol):
    """A number for every picture. needs_truth: whether it compares with the clean picture."""

    needs_truth: bool

    @property
    def about(self) -> About:
        """Its key, title and unit."""
        ...

    def __call__(self, restored: Tensor, truth: Tensor | None) -> float:
        """restored, truth: float32 [3, H, W] in [0, 1] (restored may leave it), on the CPU; NaN where not defined."""
        ...


def check_pair(key: str, restored: Tensor, truth: Tensor | None) -> Tensor:
    """The truth; ValueError, in the name of the measure `key`, unless both are [3, H, W] of one shape."""
    if truth is None or restored.ndim != 3 or restored.shape[0] != 3 or restored.shape != truth.shape:
        given = f"{tuple(restored.shape)} and {None if truth is None else tuple(truth.shape)}"
        raise ValueError(f"{key}: the restored image and the ground truth must have one shape [3, H, W], got {given}")
    return truth


class SetMeasure(Protocol):
    """A measure of a whole set of images, such as a distance between distributions."""

    about: About

    def __call__(self, restored: list[Path], truth: list[Path]) -> float:
        """restored, truth: files of pictures, not necessarily pairs; NaN where not defined."""
        ...
