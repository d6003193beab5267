"""The interface of all measures of restorations."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

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
    """A measure of one image."""

    @property
    def about(self) -> About:
        """The key, title and unit."""
        ...

    @property
    def needs_ground_truth(self) -> bool:
        """Whether it compares with the clean image."""
        ...

    def __call__(self, restored: Tensor, ground_truth: Tensor | None) -> float:
        """restored, ground_truth: float32 [3, H, W] in [0, 1] (restored may exceed it) on the CPU. NaN if undefined."""
        ...


def check_pair(key: str, restored: Tensor, ground_truth: Tensor | None) -> Tensor:
    """Return the ground truth; ValueError, naming the measure `key`, unless both are [3, H, W] of one shape."""
    if ground_truth is None or restored.ndim != 3 or restored.shape[0] != 3 or restored.shape != ground_truth.shape:
        given = f"{tuple(restored.shape)} and {None if ground_truth is None else tuple(ground_truth.shape)}"
        raise ValueError(f"{key}: restored image and ground truth must have the same shape [3, H, W], got {given}")
    return ground_truth


@dataclass(frozen=True)
class FunctionMeasure:
    """``function(restored, ground_truth)``, or ``function(restored)`` without a ground truth, as a `Measure`.

    smallest: shortest side in pixels for which it is defined.
    """

    about: About
    function: Callable[..., Any]
    needs_ground_truth: bool = True
    smallest: int = 1

    def __call__(self, restored: Tensor, ground_truth: Tensor | None = None) -> float:
        """restored, ground_truth: [3, H, W]. NaN if a side is below `smallest`.

        Raises ValueError if the shapes differ.
        """
        images = [restored]
        if self.needs_ground_truth:
            images.append(check_pair(self.about.key, restored, ground_truth))
        return float(self.function(*images)) if min(restored.shape[1:]) >= self.smallest else float("nan")


class SetMeasure(Protocol):
    """A measure of a whole set of images, such as a distance between distributions."""

    about: About

    def __call__(self, restored: list[Path], ground_truth: list[Path]) -> float:
        """restored, ground_truth: image files, not necessarily pairs. NaN if undefined."""
        ...
