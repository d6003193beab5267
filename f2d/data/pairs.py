"""Find pairs of degraded and clean files in folders, under the names used by benchmarks."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from f2d.data.categories import CLEAR, is_category
from f2d.data.naming import CLEAN_FOLDERS, DEGRADED_FOLDERS, beside, clean_names, is_named_clean, is_test_set
from f2d.data.pictures import Pictures, find_images, is_hidden, scene_of, some
from f2d.data.pool import Entry, Pool, in_order
from f2d.images import IMAGE_SUFFIXES, upright_size

SORTED = "sorted"  # in place of a pattern
_RESIDE_INDOOR = (620, 460), (640, 480)  # sizes of its hazy images and of its ground truth


class Pair(NamedTuple):
    """Two files of one scene, and their category."""

    degraded: Path
    clean: Path
    category: str


class Home(NamedTuple):
    """The folders of the degraded and the clean images in `folder`; both, or only the clean one, may be `folder`."""

    folder: Path
    degraded: Path
    clean: Path


class PairPool(Pool):
    """Pairs of files, each with its category; pairs with the same clean file are one scene."""

    def __init__(self, pairs: list[Pair], pictures: Pictures):
        super().__init__(Entry(str(pair.degraded), scene_of(pair.clean), pair.category) for pair in pairs)
        self.pairs, self.pictures = pairs, pictures
        self.categories = in_order({pair.category for pair in pairs})

    def read(self, entry: int) -> tuple[Tensor | None, Tensor]:
        pair = self.pairs[entry]
        degraded = self.pictures(pair.degraded)
        return degraded, fitted(self.pictures(pair.clean), degraded, pair.clean, pair.degraded)

    def size(self, entry: int) -> tuple[int, int]:
        pair = self.pairs[entry]
        sizes = upright_size(pair.degraded), upright_size(pair.clean)
        if sizes != _RESIDE_INDOOR and sizes[0] != sizes[1]:
            raise _two_sizes(pair.degraded, pair.clean, *sizes)
        return sizes[0]


class Matches(NamedTuple):
    """The result of matching two folders. alone: images without a partner, by folder; a folder without any images has
    an empty list. twice: clean images of the same name, which are not used.
    """

    pairs: list[Pair]
    alone: dict[Path, list[Path]]
    twice: list[tuple[Path, ...]]

    def checked(self) -> "Matches":
        """Return the matches; raise ValueError for clean images of the same name, and for a folder without images."""
        if self.twice:
            raise ValueError(f"{' and '.join(map(str, self.twice[0]))} are two clean images of the same name")
        for home, paths in self.alone.items():
            if not paths:
                raise ValueError(f"{home} contains no images")
        return self


def fitted(clean: Tensor, degraded: Tensor, clean_path: Path, degraded_path: Path) -> Tensor:
    """Return clean [3, H, W] at the size of degraded: the ground truth of RESIDE's indoor sets (SOTS, ITS) is cropped
    by the border of ten pixels that its hazy images lack. Raises ValueError for other images of different sizes."""
    sizes = (degraded.shape[2], degraded.shape[1]), (clean.shape[2], clean.shape[1])
    if sizes == _RESIDE_INDOOR:
        return clean[:, 10:-10, 10:-10]
    if sizes[0] != sizes[1]:
        raise _two_sizes(degraded_path, clean_path, *sizes)
    return clean


def _two_sizes(degraded: Path, clean: Path, one: tuple[int, int], other: tuple[int, int]) -> ValueError:
    (a, b), (c, d) = one, other
    return ValueError(f"{degraded} and {clean} must have the same size, got {a}x{b} and {c}x{d}")


def find_pairs(
    folder: Path, category: str, degraded: str | None = None, clean: str | None = None, pattern: str | None = None
) -> list[Pair]:
    """Match a complete folder of training pairs by `match_pairs`; raise ValueError, which names them, for a test set
    among its subfolders and for images without a partner on either side."""
    homes = [home.folder.relative_to(folder) for home in pair_folders(folder, degraded, clean)]
    tests = sorted(str(home) for home in homes if is_test_set(home.parts))
    if tests:
        raise ValueError(f"{folder} contains a test set, {some(tests)}, but must be the folder of the training images")
    matches = match_pairs(folder, category, degraded, clean, pattern).checked()
    if matches.alone:
        sides = [f"{home}: {some(path.name for path in paths)}" for home, paths in matches.alone.items()]
        raise ValueError(f"images without a partner in {', and in '.join(sides)}")
    return matches.pairs


def match_pairs(
    folder: Path, category: str, degraded: str | None = None, clean: str | None = None, pattern: str | None = None
) -> Matches:
    """Match every degraded image with its clean one, in two folders inside `folder`, sorted.

    degraded, clean: the folders' names; by default the first existing ones of `f2d.data.naming`, which are also looked
    for in the subfolders (GoPro's sequences). Two names match if they are equal except for the suffix; by a rule of
    `f2d.data.naming`, such as rain-N with norain-N (Rain100L) and NOISY with GT (SIDD), also within one folder; or if
    the clean name is the part of the degraded one before an underscore, the longest that exists (im_0001_s80_a04 ->
    im_0001, 1_1_0.90179 -> 1). pattern replaces these rules: ``DEGRADED -> CLEAN`` with one * each, such as ``*_hazy ->
    *_GT``, or ``sorted`` for names that do not match (DPDD), which pairs the files of both folders in order, numbers by
    their value.

    Raises ValueError for missing folders, for several folders of degraded images unless `degraded` names one, and for
    different numbers of files to be paired by sorted order.
    """
    homes = pair_folders(folder, degraded, clean)
    if not homes:
        raise ValueError(
            f"{folder} has no pair of folders, such as {degraded or ', '.join(DEGRADED_FOLDERS)} beside "
            f"{clean or ', '.join(CLEAN_FOLDERS)}, or rain-N beside norain-N"
        )
    in_order = pattern == SORTED
    rename = _by_pattern(pattern) if pattern and not in_order else clean_names
    found = Matches([], {}, [])
    for home in homes:
        inputs, targets = _sides(home)
        if not inputs:
            found.alone[home.degraded] = []
            continue
        pairs, alone, twice = _matched(inputs, targets, home, rename)
        if in_order and (alone or twice or len(pairs) != len(targets)):
            pairs, alone, twice = _in_order(inputs, targets, home), {}, []
        found.pairs.extend(Pair(a, b, category) for a, b in pairs)
        found.alone.update(alone)
        found.twice.extend(twice)
    return found


def pair_folders(
    folder: Path,
    degraded: str | None = None,
    clean: str | None = None,
    depth: int = 7,  # Snow100K's test set lies six folders deep
    seen: set[Path] | None = None,
) -> list[Home]:
    """Return the pair of folders in `folder`, or those in its subfolders; empty for other layouts."""
    real, seen = folder.resolve(), set() if seen is None else seen
    if real in seen:  # by a link
        return []
    seen.add(real)
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except PermissionError:
        if len(seen) == 1:
            raise
        return []
    folders = [folder / entry.name for entry in entries if entry.is_dir() and not is_hidden(entry.name)]
    home = _home(folder, folders, [entry.name for entry in entries], degraded, clean)
    if home is not None:
        return [home]
    return [home for path in folders if depth for home in pair_folders(path, degraded, clean, depth - 1, seen)]


def _home(folder: Path, inside: list[Path], names: list[str], degraded: str | None, clean: str | None) -> Home | None:
    one, other = _subfolder(inside, degraded, DEGRADED_FOLDERS), _subfolder(inside, clean, CLEAN_FOLDERS)
    if one and other:
        several = [path.name for path in inside if path == one or is_category(path.name.casefold())]
        if degraded is None and len(several) > 1:
            raise ValueError(
                f"{folder} has several folders of degraded images beside {other.name} ({', '.join(several)}): set "
                f"sources.0.degraded to one of them to train on it, or give {folder} itself, without a category, in "
                f"CDD-11's layout ({CLEAR} beside a folder for each category)"
            )
        return Home(folder, one, other)
    if degraded is None and clean is None:
        stems = {Path(name).stem for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES}
        if any(twin in stems for stem in stems for twin in beside(stem)):
            return Home(folder, folder, folder)
        # Rain100L as distributed by PReNet's authors: rainy/rain-N beside norain-N
        if one and any(is_named_clean(stem) for stem in stems):
            return Home(folder, one, folder)
    return None


def _subfolder(inside: list[Path], name: str | None, usual: tuple[str, ...]) -> Path | None:
    """Return the first of the names among the folders, ignoring case if necessary; A/B is a folder B inside A."""
    for wanted in usual if name is None else (name,):
        first, _, rest = wanted.partition("/")
        same = [path for path in inside if path.name.casefold() == first.casefold()]
        for path in sorted(same, key=lambda path: path.name != first):
            if not rest or (path / rest).is_dir():
                return path / rest
    return None


def _sides(home: Home) -> tuple[list[Path], list[Path]]:
    """Return (degraded, clean) images; within one folder their names distinguish them."""
    if home.degraded != home.clean and home.clean != home.folder:
        return find_images(home.degraded), find_images(home.clean)
    here = [path for path in find_images(home.folder) if path.parent == home.folder]
    clean = [path for path in here if is_named_clean(path.stem)]
    if home.degraded != home.clean:
        return find_images(home.degraded), clean
    return [path for path in here if beside(path.stem)], clean


def _by_pattern(pattern: str) -> Callable[[str], list[str]]:
    one, arrow, other = (part.strip() for part in pattern.partition("->"))
    if not arrow or one.count("*") != 1 or other.count("*") != 1:
        raise ValueError(
            f"pattern must be {SORTED}, or DEGRADED -> CLEAN with one * each, such as *_hazy -> *_GT, got {pattern!r}"
        )
    expression = re.compile(re.escape(one).replace(r"\*", "(.*)"))

    def rename(stem: str) -> list[str]:
        match = expression.fullmatch(stem)
        return [other.replace("*", match[1])] if match else []

    return rename


def _in_order(inputs: list[Path], targets: list[Path], home: Home) -> list[tuple[Path, Path]]:
    if len(inputs) != len(targets):
        raise ValueError(
            f"{home.degraded} has {len(inputs)} images and {home.clean} has {len(targets)}, but their names do not "
            "match, and pairs by sorted order need as many of either"
        )
    return list(zip(*(sorted(paths, key=_natural) for paths in (inputs, targets))))


def _natural(path: Path) -> list[list[str | int]]:
    """Order numbers by their value: 2 comes before 10, as 002 before 010 in the other folder."""
    return [[int(s) if i % 2 else s for i, s in enumerate(re.split(r"(\d+)", name))] for name in path.parts]


def _matched(
    inputs: list[Path], targets: list[Path], home: Home, rename: Callable[[str], list[str]]
) -> tuple[list[tuple[Path, Path]], dict[Path, list[Path]], list[tuple[Path, ...]]]:
    """Return the pairs, the images without a partner by folder, and the clean images of the same name."""
    one, other = home.degraded, home.clean
    by_place, twice = unique_by([path.relative_to(other).with_suffix("") for path in targets], targets)
    pairs, alone = [], []
    for path in inputs:
        parent = path.parent.relative_to(one)
        found = [by_place[parent / stem] for stem in rename(path.stem) if parent / stem in by_place]
        if found:
            pairs.append((path, found[0]))
        else:
            alone.append(path)
    used = {clean for _, clean in pairs}.union(*twice)
    unused = [path for path in targets if path not in used]
    # if one folder contains both sides, all of them are listed under its name
    sides = [(one, alone + unused)] if one == other else [(one, alone), (other, unused)]
    return pairs, {home: paths for home, paths in sides if paths}, twice


def unique_by(places: list[Path], paths: list[Path]) -> tuple[dict[Path, Path], list[tuple[Path, ...]]]:
    """Return (path by place, groups of paths that share a place and are not used)."""
    found: dict[Path, list[Path]] = {}
    for place, path in zip(places, paths):
        found.setdefault(place, []).append(path)
    alone = {place: same[0] for place, same in found.items() if len(same) == 1}
    return alone, [tuple(same) for same in found.values() if len(same) > 1]
