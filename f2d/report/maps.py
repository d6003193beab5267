"""Maps below an image: errors, experts and the spread of samples, each group with its colour scale."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

from f2d.report.details import SEEDS, Details
from f2d.report.pictures import Inline, inferno, scale_of, shrunk

ERROR_SCALES = (8, 16, 32, 64, 128, 255)
SPREAD_SCALES = (1, 2, 4, 8, 16, 32, 64)


class Error(NamedTuple):
    """``mean_c |restored - clean|`` in grey levels. values: [h, w], downscaled. mean, most: over all pixels."""

    values: np.ndarray
    mean: float
    most: float


class Scales(NamedTuple):
    """Grey levels that the brightest colour stands for, on the whole page."""

    error: int
    spread: int


class Panel(NamedTuple):
    """A map, drawn or encoded, with its name and its numbers."""

    picture: Image.Image | Inline
    name: str
    numbers: str


class Group(NamedTuple):
    """Maps with one colour scale, from 0 to `most`."""

    title: str
    most: str
    panels: tuple[Panel, ...]
    note: str = ""


def error_of(restored: Tensor, clean: Tensor) -> Error:
    """Compute the error of a restored image, both [3, H, W] in [0, 1]."""
    levels = (restored - clean).abs().mean(0).mul(255)
    return Error(shrunk(levels.numpy()), float(levels.mean()), float(levels.max()))


def scales_of(errors: Sequence[Error], details: Sequence[Details]) -> Scales:
    """Choose scales that cover 99 % of all values."""
    spreads = [spread.values for one in details for spread in one.spread]
    return Scales(
        scale_of([error.values for error in errors], ERROR_SCALES),
        scale_of(spreads, SPREAD_SCALES),
    )


def error_group(errors: Sequence[tuple[str, Error]], scales: Scales) -> Group:
    """Group the error maps of all methods by name."""
    panels = []
    for name, error in errors:
        numbers = f"mean {error.mean:.2f}, max {error.most:.0f} grey levels"
        panels.append(Panel(inferno(error.values / np.float32(scales.error)), name, numbers))
    note = "Mean over the three channels."
    return Group("Error, |restored − ground truth|", f"{scales.error} grey levels", tuple(panels), note)


def model_groups(details: Details, scales: Scales, size: tuple[int, int], prefix: str) -> list[Group]:
    """Group the expert maps and the spread of a model for an image of `size` (width, height). prefix: for titles."""
    groups = [_experts(details, prefix)] if details.factors else []
    return [*groups, _spread(details, scales.spread, size, prefix)]


def _experts(details: Details, prefix: str) -> Group:
    panels = []
    for k, factor in enumerate(details.factors):
        told = {"gate": details.gates[k], "presence": details.presence[k], "mean": details.means[k]}
        numbers = " · ".join(f"{name}\N{NO-BREAK SPACE}{value:.2f}" for name, value in told.items())
        panels.append(Panel(inferno(details.maps[k]), factor, numbers))
    return Group(f"{prefix}Experts: where each factor acts, mₖ", "1", tuple(panels))


def _spread(details: Details, scale: int, size: tuple[int, int], prefix: str) -> Group:
    panels = []
    for spread in details.spread:
        picture = inferno(spread.values / np.float32(scale))
        name = f"{spread.steps} step{'s' * (spread.steps > 1)}"
        panels.append(Panel(picture, name, f"mean {spread.mean:.2f} grey levels"))
    where = "" if details.sampled == size else f" of the centre, {details.sampled[0]} × {details.sampled[1]} pixels"
    once = " One step gives the conditional mean, which has no spread by construction." if details.factors else ""
    note = f"Standard deviation over {SEEDS} seeds{where}.{once}"
    return Group(f"{prefix}Spread of samples", f"{scale} grey levels", tuple(panels), note)
