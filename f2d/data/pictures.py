"""Read images as bytes, decoded once while there is room; find them in folders."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from f2d.images import IMAGE_SUFFIXES, read

BUDGET = 2**30


class Pictures:
    """``pictures(path)`` -> [3,H,W] uint8, kept decoded until `budget` bytes are full, per process.

    Decoding a PNG for every crop costs 15 ms. Images read after the budget is full are decoded each time: samples are
    drawn at random, so no eviction rule would help. A pickled cache is empty.
    """

    def __init__(self, budget: int = BUDGET):
        self.budget = self._room = budget
        self._kept: dict[Path, Tensor] = {}

    def __call__(self, path: Path) -> Tensor:
        kept = self._kept.get(path)
        if kept is None:
            kept = as_bytes(read(path).as_depth(8).opaque)
            size = kept.untyped_storage().nbytes()
            if size <= self._room:
                self._kept[path] = kept
                self._room -= size
        return kept

    def __getstate__(self) -> dict:
        return {"budget": self.budget, "_room": self.budget, "_kept": {}}


def as_bytes(levels: np.ndarray) -> Tensor:
    """[H,W,1 or 3] uint8 -> [3,H,W], which shares its memory."""
    return torch.from_numpy(levels).permute(2, 0, 1).expand(3, -1, -1)


def find_images(folder: Path) -> list[Path]:
    """Return all image files below `folder`, sorted; hidden files and folders are skipped.

    Links to folders are followed, and each folder is entered once, by its real path if it has one here.
    """
    found, entered = list[Path](), set[Path]()
    folders, links = [folder], list[Path]()
    while folders or links:
        here = folders.pop() if folders else links.pop(0)
        if here.resolve() in entered:
            continue
        entered.add(here.resolve())
        with suppress(PermissionError, FileNotFoundError, NotADirectoryError), os.scandir(here) as entries:
            for entry in (entry for entry in entries if not is_hidden(entry.name)):
                path = here / entry.name
                if path.is_dir():
                    (links if entry.is_symlink() else folders).append(path)
                elif path.suffix.lower() in IMAGE_SUFFIXES:
                    found.append(path)
        links.sort()
    return sorted(found)


def scene_of(clean: Path) -> str:
    """Return what identifies a clean image in every source, by whatever links it was reached: its real path."""
    return os.path.realpath(clean)


def is_hidden(name: str) -> bool:
    """Return whether a file or folder of this name is not data: hidden, or what macOS adds to archives."""
    return name.startswith(".") or name == "__MACOSX"


def some(names: Iterable[object]) -> str:
    """Return the first four of many names, and the number of the others."""
    listed = list(map(str, names))
    more = f" and {len(listed) - 4} more" if len(listed) > 4 else ""
    return ", ".join(listed[:4]) + more
