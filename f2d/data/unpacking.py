"""Unpack an LMDB to folders of PNG files in the layout of CDD-11."""

import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from f2d.data.categories import CLEAR, KNOWN_FACTORS, factors_of
from f2d.data.lmdb import LmdbPool
from f2d.images import Photo, write
from f2d.replacing import remove_leftovers

LQ, GT = "input", "gt"


class Files(NamedTuple):
    """The output files of an entry; degraded is None for a clean entry."""

    degraded: Path | None
    clean: Path


def unpack(
    path: str | Path, folder: str | Path, *, overwrite: bool = False, each: Callable[[int, int], None] | None = None
) -> tuple[int, int]:
    """Write every entry as FOLDER/CATEGORY/NAME.png and its ground truth as FOLDER/clear/NAME.png, 8 bits, lossless.

    NAME is the scene's first key without the category. If two scenes have the same name, each category becomes a pair
    of folders instead: FOLDER/CATEGORY/input and FOLDER/CATEGORY/gt. Existing files are kept, so that an
    interrupted run resumes, unless `overwrite` is set. `each` is called with (done, all) after every entry.

    Returns (files written, files kept). Raises ValueError as `LmdbPool` does, and for a category that is not a
    valid folder name; OSError if a file cannot be written.
    """
    pool = LmdbPool(Path(path), exact=True)
    places = _places(pool, Path(folder))
    outputs = {file for files in places for file in files if file is not None}
    kept = set() if overwrite else {file for file in outputs if file.is_file()}
    for parent in {file.parent for file in outputs}:
        parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(outputs)
    done = set(kept)
    for entry, files in enumerate(places):
        if any(file is not None and file not in done for file in files):
            for file, picture in zip(files, pool.read(entry), strict=True):
                if file is not None and picture is not None and file not in done:
                    write(Photo(picture.permute(1, 2, 0).contiguous().numpy()), file)
                    done.add(file)
        if each is not None:
            each(entry + 1, len(places))
    return len(outputs) - len(kept), len(kept)


def _places(pool: LmdbPool, folder: Path) -> list[Files]:
    names = _names(pool)
    scenes = defaultdict(set)
    for record, name in zip(pool.records, names, strict=True):
        scenes[name].add(record.scene)
    shared = all(len(found) == 1 for found in scenes.values())
    places = []
    for record, name in zip(pool.records, names, strict=True):
        if not re.fullmatch(r"\w[\w-]*", record.category):  # it becomes a folder's name
            raise ValueError(f"{pool.path}: category {record.category!r} cannot be the name of a folder")
        home = folder / record.category
        clean = folder / CLEAR / f"{name}.png" if shared or record.category == CLEAR else home / GT / f"{name}.png"
        degraded = home / f"{name}.png" if shared else home / LQ / f"{name}.png"
        places.append(Files(None if record.category == CLEAR else degraded, clean))
    return places


def _names(pool: LmdbPool) -> list[str]:
    """Return a name for every entry: that of its scene, or its own if a category contains the scene twice."""
    first: dict[str, str] = {}
    taken = set()
    names = []
    for record in pool.records:
        own = _short(record.key)
        name = first.setdefault(record.scene, own)
        if (record.category, name) in taken:
            name = own if (record.category, own) not in taken else _plain(record.key)
        if (record.category, name) in taken:
            raise ValueError(f"{pool.path} has two entries of {record.category} that would both be {name}.png")
        taken.add((record.category, name))
        names.append(name)
    return names


def _short(key: bytes) -> str:
    """``low_haze/00001.png`` -> 00001: the key without its suffix and the words for factors."""
    words = re.split(r"[_/\\-]+", re.sub(r"\.(png|jpe?g|bmp|tiff?)$", "", _plain(key)))
    rest = [word for word in words if word not in ("", CLEAR) and not set(factors_of(word)) & KNOWN_FACTORS]
    return "_".join(rest) or _plain(key)


def _plain(key: bytes) -> str:
    """The key as a file name: letters, digits, dots inside, _ and -."""
    return re.sub(r"[^\w.-]+", "_", key.decode("utf-8", "replace")).strip("._") or "entry"
