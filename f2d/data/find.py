"""Recognise the layout of a folder and open its pool."""

from pathlib import Path

from f2d.data.categories import CLEAR, canonical
from f2d.data.cdd11 import category_folders, find_scenes
from f2d.data.clean import CleanPool
from f2d.data.lists import read_list
from f2d.data.lmdb import LmdbPool, is_lmdb
from f2d.data.pairs import PairPool, find_pairs, pair_folders
from f2d.data.pictures import Pictures, find_images
from f2d.data.pool import Pool
from f2d.images import IMAGE_SUFFIXES

LAYOUTS = ("auto", "clean", "pairs", "cdd11", "list", "lmdb")
LISTS = (".txt", ".csv")


def open_pool(
    path: str | Path,
    layout: str = "auto",
    *,
    category: str | None = None,
    degraded: str | None = None,
    clean: str | None = None,
    pattern: str | None = None,
    pictures: Pictures | None = None,
) -> Pool:
    """Open the pool of entries at `path`.

    layout: "clean", photographs in a folder and its subfolders; "pairs", see `f2d.data.pairs.find_pairs`, which gets
    degraded, clean and pattern; "cdd11", a folder for each category and `clear`; "list", a .txt or .csv file of pairs;
    "lmdb", the authors' LMDB; "auto", the first of lmdb, cdd11, pairs and clean that fits a folder, or list for a file.
    category: the category of all pairs of a folder or list (required there), or of an LMDB, whose own names it
    replaces. pictures: a cache that several pools share.

    Raises ValueError, which names the expected files, for a missing path or files in another layout.
    """
    path, pictures = Path(path), pictures or Pictures()
    category = None if category is None else canonical(category)
    if layout not in LAYOUTS:
        raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}, got {layout!r}")
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder")
    if layout == "auto":
        layout = recognise(path, category=category, degraded=degraded, clean=clean, pattern=pattern)
    elif layout == "clean" and path.is_dir() and (category_folders(path) or pair_folders(path)):
        raise ValueError(
            f"{path} contains degraded images beside clean ones, so give the folder with the clean ones, or "
            "-s sources.0.layout=auto to train on the pairs"
        )
    if path.is_dir() == (layout == "list"):
        raise ValueError(f"{path} is a {'folder' if path.is_dir() else 'file'}, which layout {layout} does not read")
    if layout == "list":
        return PairPool(read_list(path, category), pictures)
    if layout == "lmdb":
        return LmdbPool(path, category)
    if layout == "cdd11":
        return PairPool(find_scenes(path), pictures)
    if layout == "clean":
        return CleanPool(path, pictures)
    if category is None:
        raise ValueError(
            f"{path} is a folder of pairs without a category, so set one, for example -s sources.0.category=haze"
        )
    return PairPool(find_pairs(path, category, degraded, clean, pattern), pictures)


def recognise(
    path: Path,
    *,
    category: str | None = None,
    degraded: str | None = None,
    clean: str | None = None,
    pattern: str | None = None,
) -> str:
    """Return the layout of `path`; options of pairs imply pairs, and a given category excludes CDD-11's folders."""
    if path.is_file():
        if path.suffix.lower() not in LISTS:
            raise ValueError(f"{path}: must be a folder or a list of pairs ({', '.join(LISTS)})")
        return "list"
    if is_lmdb(path):
        return "lmdb"
    said = any(word is not None for word in (degraded, clean, pattern))
    if not said and category is None and category_folders(path):
        return "cdd11"
    if said or pair_folders(path):
        return "pairs"
    if (path / CLEAR).is_dir() and len([folder for folder in path.iterdir() if folder.is_dir()]) > 1:
        raise ValueError(
            f"{path} has {CLEAR} beside folders whose names are not categories. Set layout: pairs with the names of "
            "the folders and a category, or layout: clean if all are clean photographs."
        )
    if not find_images(path):
        raise ValueError(
            f"{path} contains no data (looked for data.mdb (LMDB), clear beside folders such as low_haze (CDD-11), "
            f"folders such as input and gt (pairs), and {', '.join(sorted(IMAGE_SUFFIXES))} files (clean photographs))"
        )
    return "clean"
