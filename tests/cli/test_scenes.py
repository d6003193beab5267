"""`f2d compare` on datasets with several degraded images of one clean photograph, such as Rain1400 and SOTS indoor."""

import csv

import numpy as np
import pytest

from f2d.evaluation.datasets import open_data
from tests.data.conftest import picture, save


def compared(f2d, folder, copies: int) -> list[float]:
    """(mean, difference, low, high) of the first measure over five photographs, each degraded in so many equal ways."""
    for i in range(5):
        clean, noise = picture(i), np.random.default_rng(i).normal(0, 1, picture(i).shape)
        save(clean, folder / "rain" / "gt" / f"{i}.png")
        for k in range(copies):
            save(clean // 2, folder / "rain" / "input" / f"{i}_{k}.png")
            for method, levels in (("one", 8), ("two", 8 + i * i)):
                save((clean + levels * noise).clip(0, 255).astype(np.uint8), folder / method / f"{i}_{k}.png")
    for method in ("one", "two"):
        command = ("eval", folder / method, "--data", f"pairs={folder / 'rain'}", "-o", folder / f"of {method}")
        done = f2d(*command, "--measures", "mae")
        assert done.exit_code == 0, done.output
    done = f2d("compare", folder / "of one", folder / "of two", "-o", folder / "out")
    assert done.exit_code == 0 and "smallest category with an interval has 5 scenes" in " ".join(done.output.split())
    with open(folder / "out" / "compare.csv", newline="") as file:
        row = list(csv.DictReader(file))[1]
    return [float(row[name]) for name in ("mean", "difference", "low", "high")]


def test_five_photographs_are_five_however_many_images_are_made_from_each(f2d, tmp_path):
    """With three images from each, the interval was 0.58 times as wide."""
    once, often = compared(f2d, tmp_path / "once", 1), compared(f2d, tmp_path / "often", 3)
    assert once[2] < once[1] < once[3] and often == pytest.approx(once)


def test_copies_of_a_photograph_in_several_categories_are_one_scene(tmp_path):
    """Rain100L and Rain100H have the same photographs, each with files of its own."""
    for category in ("haze", "rain"):
        for i in range(3):
            save(picture(i), tmp_path / category / "gt" / f"{i}.png")
            save(picture(i) // 2, tmp_path / category / "input" / f"{i}.png")
    cases = open_data(f"pairs={tmp_path}").cases
    assert len(cases) == 6 and len({case.scene() for case in cases}) == 3
