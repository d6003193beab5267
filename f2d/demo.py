"""Degrade free photographs with fixed seeds, restore, measure and draw them."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from f2d.degradation import degrade
from f2d.engine.restorer import Restorer
from f2d.images import open_image, to_tensor
from f2d.images.sheet import Panel, colour_map, sheet
from f2d.metrics import psnr


class Case(NamedTuple):
    """One of `PHOTOGRAPHS`, a category, and the random seed of its degradation."""

    photo: str
    category: str
    seed: int


PHOTOGRAPHS = ("chelsea", "coffee", "astronaut", "rocket")  # CC0 and public domain: see photographs/LICENSE
CASES = (
    Case("chelsea", "low_haze_rain", 7),
    Case("coffee", "low_haze_snow", 7),
    Case("astronaut", "low_haze_rain", 3),
    Case("rocket", "haze_snow", 7),
    Case("chelsea", "haze_rain", 5),
    Case("coffee", "low_haze", 2),
)


class Result(NamedTuple):
    """One case with the PSNR in dB of its degraded and restored image, the model's seconds, and the figure."""

    case: Case
    before: float
    after: float
    seconds: float
    figure: Image.Image


def sample_photograph(name: str) -> Path:
    """Return the path of one of `PHOTOGRAPHS`, which come with the package; raise ValueError for another name."""
    if name not in PHOTOGRAPHS:
        raise ValueError(f"sample photograph must be one of {', '.join(PHOTOGRAPHS)}, got {name!r}")
    return Path(__file__).parent / "photographs" / f"{name}.jpg"


def run(restorer: Restorer, cases: tuple[Case, ...] = CASES) -> Iterator[Result]:
    """Degrade, restore and draw each case in turn."""
    for case in cases:
        clean = open_image(sample_photograph(case.photo))
        degraded = degrade(clean, case.category, seed=case.seed).image
        restored = restorer(degraded)
        pictures = (degraded, restored.image, clean)
        before, after = (_psnr(picture, pictures[2]) for picture in pictures[:2])
        yield Result(case, before, after, restored.seconds, _figure(case, restorer, pictures, before, after))


def _psnr(picture: Image.Image, reference: Image.Image) -> float:
    return float(psnr(to_tensor(picture)[None], to_tensor(reference)[None]))


def _figure(
    case: Case, restorer: Restorer, pictures: tuple[Image.Image, ...], before: float, after: float
) -> Image.Image:
    labels = (f"degraded, {before:.2f} dB", f"restored, {after:.2f} dB", "clean")
    seen = restorer.explain(pictures[0])
    maps = [
        Panel(colour_map(values.numpy()), f"{name} map: mean {values.mean():.2f}, gate {gate:.2f}")
        for name, values, gate in zip(seen.factors, seen.maps, seen.gates)
    ]
    title, subtitle = case.category.replace("_", " + "), f"{case.photo}, seed {case.seed}"
    rows = [[Panel(*pair) for pair in zip(pictures, labels)]]
    if maps:
        subtitle += "; below, the experts' maps, black 0 to pale yellow 1"
        rows.append(maps)
    return sheet(title, subtitle, rows)
