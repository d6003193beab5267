"""The folders of CDD-11: one for each category and `clear`, with the same file names."""

from pathlib import Path

from f2d.data.categories import CLEAR, canonical, is_category
from f2d.data.pairs import Matches, Pair, unique_by
from f2d.data.pictures import find_images, some


def category_folders(folder: Path) -> list[Path]:
    """Return the folders in `folder` named after a category, in any order of its factors; none without `clear`."""
    if not (folder / CLEAR).is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and is_category(path.name))


def find_scenes(folder: Path) -> list[Pair]:
    """Match complete folders; raise ValueError for one without images, and for images that `clear` lacks."""
    matches = match_scenes(folder).checked()
    for home, paths in matches.alone.items():
        raise ValueError(
            f"{folder / CLEAR} has no images with the same names as {home.name}: {some(path.name for path in paths)} "
            "(if these folders are a pair under other names, set layout: pairs)"
        )
    return matches.pairs


def match_scenes(folder: Path) -> Matches:
    """Match every image of every category with the one of the same name in `clear`; suffixes may differ.

    Raises ValueError if the folders are missing.
    """
    folders = category_folders(folder)
    if not folders:
        raise ValueError(f"{folder} has no {CLEAR} beside folders such as low, haze or low_haze_rain")
    images = find_images(folder / CLEAR)
    clear, twice = unique_by([_place(path, folder / CLEAR) for path in images], images)
    found = Matches([], {}, twice)
    for home in folders:
        paths = find_images(home)
        alone = [path for path in paths if _place(path, home) not in clear]
        if alone or not paths:
            found.alone[home] = alone
        category = canonical(home.name)
        found.pairs.extend(
            Pair(path, clear[_place(path, home)], category) for path in paths if _place(path, home) in clear
        )
    return found


def _place(path: Path, home: Path) -> Path:
    return path.relative_to(home).with_suffix("")
