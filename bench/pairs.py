"""Folders of real pairs: a degraded folder and a gt folder beside each other, under the benchmarks' various names."""

import re
from pathlib import Path
from typing import NamedTuple

from f2d.images import IMAGE_SUFFIXES

DEGRADED_NAMES = ("input", "hazy", "low", "rain", "snow", "lq", "LQ")
CLEAN_NAMES = ("gt", "GT", "clear", "target")


class Pair(NamedTuple):
    """Two files of one scene."""

    degraded: Path
    clean: Path


def find_pairs(folder: Path) -> list[Pair]:
    """Every degraded image below `folder` with its ground truth, sorted.

    Names match where the stems are equal, or the clean one is what stands before an underscore in the degraded one
    (im_0001_s80_a04 -> im_0001, 1_1_0.90179 -> 1); the longest such name wins. ValueError for a missing subfolder,
    an image without ground truth, or none at all.
    """
    inputs = _images(_subfolder(folder, DEGRADED_NAMES))
    clean = {path.stem: path for path in _images(_subfolder(folder, CLEAN_NAMES))}
    pairs = []
    for path in inputs:
        stems = [path.stem, *(path.stem[: match.start()] for match in reversed(list(re.finditer("_", path.stem))))]
        known = [stem for stem in stems if stem in clean]
        if not known:
            raise ValueError(f"{path} has no ground truth; there are {', '.join(sorted(clean)[:8])}")
        pairs.append(Pair(path, clean[known[0]]))
    if not pairs:
        raise ValueError(f"no images in {folder}")
    return pairs


def _subfolder(folder: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        if (folder / name).is_dir():
            return folder / name
    raise ValueError(f"{folder} has none of the folders {', '.join(names)}")


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
