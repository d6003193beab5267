"""Example photographs: those of `f2d demo`, degraded as by `f2d degrade`."""

from pathlib import Path

from f2d.degradation import degrade
from f2d.demo import CASES, sample_photograph
from f2d.images import open_image, write
from f2d.images.reading import from_picture

CHOSEN = (CASES[2], CASES[3], CASES[5], CASES[0])  # each photograph once, the hardest last


def make_examples(folder: Path) -> list[Path]:
    """Write the examples into `folder`, as JPEG."""
    found = []
    for case in CHOSEN:
        path = folder / f"{case.photo}_{case.category}.jpg"
        clean = open_image(sample_photograph(case.photo))
        write(from_picture(degrade(clean, case.category, seed=case.seed).image), path)
        found.append(path)
    return found
