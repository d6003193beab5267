"""The folder in which a reader of the documentation sits: pictures, datasets and models as its pages name them."""

import importlib.util
import shutil
from pathlib import Path

import pytest
from PIL import Image

import f2d
from f2d.degradation import CATEGORIES
from f2d.demo import sample_photograph

from .blocks import ROOT

SIZE = (112, 80)  # small, so that every page is read in seconds


@pytest.fixture(scope="session")
def clean() -> list[Image.Image]:
    names = ("coffee", "chelsea", "astronaut")
    return [Image.open(sample_photograph(name)).crop((0, 0, 448, 300)).resize(SIZE) for name in names]


@pytest.fixture(scope="session")
def furnished(tmp_path_factory, clean) -> Path:
    """What the pages start from; they say where it comes from, or that it is the reader's own."""
    home = tmp_path_factory.mktemp("reader")
    for name, category in (("rainy.jpg", "rain"), ("foggy.png", "haze"), ("night.jpg", "low"), ("poster.tif", "snow")):
        f2d.degrade(clean[0], category, seed=1).image.save(home / name)
    clean[0].save(home / "clean.jpg")
    for folder in ("photos", "photos/holiday", "pairs/input", "pairs/target", "CDD-11_test/clear", "CBSD68"):
        (home / folder).mkdir(parents=True)
    for i, picture in enumerate(clean * 2):
        picture = picture.rotate(180 * (i // len(clean)))
        picture.save(home / ("photos/holiday" if i % 2 else "photos") / f"{i}.png")
        picture.save(home / "pairs/target" / f"{i}.png")
        f2d.degrade(picture, "rain", seed=i).image.save(home / "pairs/input" / f"{i}.png")
    clean[2].save(home / "CBSD68/1.png")
    small = clean[1].resize((32, 24))
    small.save(home / "CDD-11_test/clear/1.png")
    for category in CATEGORIES:
        hard = f2d.degrade(small, category, seed=3).image
        for folder in ("CDD-11_test", "their_outputs"):
            (home / folder / category).mkdir(parents=True)
            hard.save(home / folder / category / "1.png")
    if importlib.util.find_spec("av"):
        from tests.video.support import make_clip

        make_clip(home / "drive.mp4", audio=["eng"])
    f2d.F2DNet.from_pretrained("f2d-lite").save_pretrained(home / "runs/mine/best")
    return home


@pytest.fixture
def place(furnished, tmp_path, monkeypatch) -> Path:
    """A fresh copy of that folder, where one sits."""
    home = tmp_path / "home"
    shutil.copytree(furnished, home)
    monkeypatch.chdir(home)
    return home


@pytest.fixture
def checkout(place) -> Path:
    """What of the sources the page about adding an op builds on, to be written into."""
    shutil.copytree(ROOT / "f2d_kernels", place / "f2d_kernels", ignore=shutil.ignore_patterns("__pycache__"))
    (place / "tests").mkdir()
    for name in ("__init__.py", "conftest.py"):
        shutil.copy(ROOT / "tests" / name, place / "tests")
    shutil.copytree(ROOT / "tests/kernels", place / "tests/kernels", ignore=shutil.ignore_patterns("__pycache__"))
    return place
