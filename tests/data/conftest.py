"""Small pictures on disk, in every layout."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from f2d.degradation import CATEGORIES


def picture(seed: int, height: int = 40, width: int = 48) -> np.ndarray:
    """[H,W,3] uint8: smooth, and different for every seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def save(array: np.ndarray, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


@pytest.fixture(scope="session")
def photographs(tmp_path_factory) -> Path:
    """Twelve clean photographs, some in a folder below."""
    folder = tmp_path_factory.mktemp("photographs")
    for i in range(12):
        save(picture(i), folder / ("deep" if i % 2 else "") / f"{i:02}.png")
    return folder


@pytest.fixture(scope="session")
def cdd11(tmp_path_factory) -> Path:
    """CDD-11 with ten scenes; the degraded picture is the clean one's negative, minus the category's number."""
    folder = tmp_path_factory.mktemp("CDD-11")
    for scene in range(10):
        clean = picture(100 + scene)
        save(clean, folder / "clear" / f"{scene:05}.png")
        for number, category in enumerate(CATEGORIES):
            save(negative(clean, number), folder / category / f"{scene:05}.png")
    return folder


def negative(clean: np.ndarray, number: int = 0) -> np.ndarray:
    return 255 - np.maximum(clean, number)


@pytest.fixture
def make_lmdb(tmp_path):
    """make_lmdb({key: value}, protocol=4) -> the folder of an LMDB; bytes are stored as they are, others pickled."""
    lmdb = pytest.importorskip("lmdb", reason="needs the [train] extra")

    def make(entries: dict[str, object], protocol: int = 4, name: str = "train.lmdb") -> Path:
        folder = tmp_path / name
        with lmdb.open(str(folder), map_size=2**26) as environment, environment.begin(write=True) as transaction:
            for key, value in entries.items():
                data = value if isinstance(value, bytes) else pickle.dumps(value, protocol)
                transaction.put(key.encode(), data)
        return folder

    return make


def record(seed: int, category: str | None = "low_haze", height: int = 40, width: int = 48) -> dict:
    clean = picture(seed, height, width)
    return {"LQ": negative(clean), "GT": clean, "deg_name": category}
