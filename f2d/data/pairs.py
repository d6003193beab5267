"""Find pairs of degraded and clean files: two folders with the names used by benchmarks, or a list of paths."""

import csv
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from f2d.data.categories import canonical
from f2d.data.pictures import Pictures, find_images, size_of, some
from f2d.data.pool import Pool, in_order
from f2d.images import IMAGE_SUFFIXES

DEGRADED_NAMES = (
    *("input", "lq", "LQ", "degraded", "hazy", "haze", "rainy", "rain", "low", "snow", "synthetic", "blur", "noisy"),
    "source",
)
CLEAN_NAMES = ("gt", "GT", "target", "clean", "clear", "high", "sharp", "norain")
_TWINS = ((re.compile("^rain-"), "norain-"), (re.compile("(?<![a-zA-Z])NOISY(?![a-zA-Z])"), "GT"))
_CLEAN_TWIN = re.compile("^norain-|(?<![a-zA-Z])GT(?![a-zA-Z])")
_TEST_SET = re.compile("test|val|eval", re.IGNORECASE)


class Pair(NamedTuple):
    """Two files of one scene, and their category."""

    degraded: Path
    clean: Path
    category: str


class PairPool(Pool):
    """Pairs of files, each with its category; pairs with the same clean file are one scene."""

    def __init__(self, pairs: list[Pair], pictures: Pictures):
        self.pairs, self.pictures = pairs, pictures
        self.categories = in_order({pair.category for pair in pairs})

    def __len__(self) -> int:
        return len(self.pairs)

    def read(self, entry: int) -> tuple[Tensor | None, Tensor]:
        pair = self.pairs[entry]
        degraded, clean = self.pictures(pair.degraded), self.pictures(pair.clean)
        _check_sizes(pair, degraded.shape[:0:-1], clean.shape[:0:-1])
        return degraded, clean

    def size(self, entry: int) -> tuple[int, int]:
        pair = self.pairs[entry]
        degraded, clean = size_of(pair.degraded), size_of(pair.clean)
        _check_sizes(pair, degraded, clean)
        return clean

    def name(self, entry: int) -> str:
        return str(self.pairs[entry].degraded)

    def scene(self, entry: int) -> str:
        return str(self.pairs[entry].clean)

    def category(self, entry: int) -> str | None:
        return self.pairs[entry].category


class Matches(NamedTuple):
    """pairs; alone: pictures without a partner, by the folder they lie in, which are none where it holds no picture;
    twice: clean pictures of one name, none of which is anyone's partner."""

    pairs: list[Pair]
    alone: dict[Path, list[Path]]
    twice: list[tuple[Path, ...]]


def find_pairs(
    folder: Path, category: str, degraded: str | None = None, clean: str | None = None, pattern: str | None = None
) -> list[Pair]:
    """`match_pairs` of a complete folder to train on: ValueError names a test set among the folders inside, and the
    first few pictures without a partner of either side."""
    homes = {one.parent for one, _ in pair_folders(folder, degraded, clean) if one.parent != folder}
    tests = sorted(home.name for home in homes if is_test_set(home))
    if tests:
        raise ValueError(f"{folder} contains a test set, {some(tests)}, but must be the folder of the training images")
    matches = match_pairs(folder, category, degraded, clean, pattern)
    if matches.twice:
        raise ValueError(f"{' and '.join(map(str, matches.twice[0]))} are two clean images of the same name")
    for home, paths in matches.alone.items():
        if not paths:
            raise ValueError(f"{home} contains no images")
    if matches.alone:
        sides = [f"{home}: {some(path.name for path in paths)}" for home, paths in matches.alone.items()]
        raise ValueError(f"images without a partner in {', and in '.join(sides)}")
    return matches.pairs


def match_pairs(
    folder: Path, category: str, degraded: str | None = None, clean: str | None = None, pattern: str | None = None
) -> Matches:
    """Match every degraded image with its clean one, in two folders inside `folder`, sorted.

    degraded, clean: the folders' names, else the first that is there of the names above; where there is none, they are
    looked for in each folder inside (GoPro's sequences). Names match below either folder: equal but for the suffix, or
    rain-N with norain-N (Rain100L) and NOISY with GT (SIDD), also where both are in one folder, or the clean one is
    what stands before an underscore in the degraded one, the longest if several are (im_0001_s80_a04 -> im_0001,
    1_1_0.90179 -> 1). pattern: ``DEGRADED -> CLEAN`` with one * each, in place of these rules, such as
    ``*_hazy -> *_GT``.

    Raises ValueError for missing folders.
    """
    homes = pair_folders(folder, degraded, clean)
    if not homes:
        raise ValueError(
            f"{folder} has no pair of folders, such as {degraded or ', '.join(DEGRADED_NAMES)} beside "
            f"{clean or ', '.join(CLEAN_NAMES)}, or rain-N beside norain-N"
        )
    rename = _by_pattern(pattern) if pattern else _by_rules
    found = Matches([], {}, [])
    for one, other in homes:
        if one == other:
            inputs, targets = _beside_each_other(find_images(one))
        else:
            inputs, targets = find_images(one), find_images(other)
        if not inputs:
            found.alone[one] = []
            continue
        pairs, alone, twice = _matched(inputs, targets, one, other, rename)
        found.pairs.extend(Pair(a, b, category) for a, b in pairs)
        found.alone.update(alone)
        found.twice.extend(twice)
    return found


def is_test_set(folder: Path) -> bool:
    """Whether the folder is named as a test set, such as eval15."""
    return _TEST_SET.match(folder.name) is not None


def pair_folders(folder: Path, degraded: str | None = None, clean: str | None = None) -> list[tuple[Path, Path]]:
    """(degraded, clean) folders of `folder` itself, else of each folder in it; none where it is laid out otherwise."""
    found = _two_folders(folder, degraded, clean)
    if found is not None:
        return [found]
    inside = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return [pair for pair in (_two_folders(path, degraded, clean) for path in inside) if pair is not None]


def _two_folders(folder: Path, degraded: str | None, clean: str | None) -> tuple[Path, Path] | None:
    one, other = _subfolder(folder, degraded, DEGRADED_NAMES), _subfolder(folder, clean, CLEAN_NAMES)
    if one and other:
        return one, other
    if degraded is clean is None and all(_beside_each_other(_images_in(folder))):
        return folder, folder
    return None


def _images_in(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES]


def _beside_each_other(paths: list[Path]) -> tuple[list[Path], list[Path]]:
    """(degraded, clean) ones of the pictures in one folder that are told apart by their names."""
    degraded = [path for path in paths if _twins(path.stem)]
    return degraded, [path for path in paths if _CLEAN_TWIN.search(path.stem) and not _twins(path.stem)]


def _twins(stem: str) -> list[str]:
    """The name of the clean picture beside a degraded one; none where `stem` is not named as degraded."""
    return [expression.sub(clean, stem) for expression, clean in _TWINS if expression.search(stem)]


def _subfolder(folder: Path, name: str | None, usual: tuple[str, ...]) -> Path | None:
    names = usual if name is None else (name,)
    return next((folder / name for name in names if (folder / name).is_dir()), None)


def _by_rules(stem: str) -> list[str]:
    """Return the names that the clean image may have, best first."""
    cuts = [match.start() for match in re.finditer("_", stem)]
    return [stem, *_twins(stem), *(stem[:cut] for cut in reversed(cuts))]


def _by_pattern(pattern: str) -> Callable[[str], list[str]]:
    one, arrow, other = (part.strip() for part in pattern.partition("->"))
    if not arrow or one.count("*") != 1 or other.count("*") != 1:
        raise ValueError(f"pattern must be DEGRADED -> CLEAN with one * each, such as *_hazy -> *_GT, got {pattern!r}")
    expression = re.compile(re.escape(one).replace(r"\*", "(.*)"))

    def rename(stem: str) -> list[str]:
        match = expression.fullmatch(stem)
        return [other.replace("*", match[1])] if match else []

    return rename


def _matched(
    inputs: list[Path], targets: list[Path], one: Path, other: Path, rename: Callable[[str], list[str]]
) -> tuple[list[tuple[Path, Path]], dict[Path, list[Path]], list[tuple[Path, ...]]]:
    """Pairs, the pictures without a partner by folder, and the clean ones of one name."""
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
    # of one folder that holds both sides, all stand under its name
    sides = [(one, alone + unused)] if one == other else [(one, alone), (other, unused)]
    return pairs, {home: paths for home, paths in sides if paths}, twice


def unique_by(places: list[Path], paths: list[Path]) -> tuple[dict[Path, Path], list[tuple[Path, ...]]]:
    """(path by place, those that share their place with others and are left out)."""
    found: dict[Path, list[Path]] = {}
    for place, path in zip(places, paths):
        found.setdefault(place, []).append(path)
    alone = {place: same[0] for place, same in found.items() if len(same) == 1}
    return alone, [tuple(same) for same in found.values() if len(same) > 1]


def read_list(path: Path, category: str | None = None, missing: list[str] | None = None) -> list[Pair]:
    """Pairs of a text file: ``degraded clean`` in each line, paths relative to the file, and a category if there is a
    third column.

    Columns are divided by commas in a .csv (its first line may name them: degraded,clean[,category]), else by tabs or,
    where there are none, by blanks. Empty lines and those that start with # are left out. ValueError names the line:
    for other numbers of columns, a file that is not there (or a line about it in `missing`, if that is given), a
    category that is neither given here nor there.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a list of pairs, as it is not text") from None
    pairs = []
    for number, columns in _rows(text, path.suffix.lower()):
        where = f"{path}, line {number}"
        if len(columns) not in (2, 3):
            raise ValueError(
                f"{where}: must have the columns degraded, clean and optionally a category, got {len(columns)} columns"
            )
        name = columns[2] if len(columns) == 3 and columns[2] else category
        if name is None:
            raise ValueError(f"{where}: has no category, neither in a third column nor for the whole list")
        pair = Pair(path.parent / columns[0], path.parent / columns[1], canonical(name))
        absent = [f"{where}: {file} is not a file" for file in pair[:2] if not file.is_file()]
        if absent:
            if missing is None:
                raise ValueError(absent[0])
            missing.extend(absent)
        else:
            pairs.append(pair)
    if not (pairs or missing):
        raise ValueError(f"{path} contains no pairs, that is, lines of: degraded clean [category]")
    return pairs


def _rows(text: str, suffix: str) -> Iterable[tuple[int, list[str]]]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        if suffix == ".csv":
            columns = [column.strip() for column in next(csv.reader([line], skipinitialspace=True))]
            if number == 1 and columns[:2] == ["degraded", "clean"]:
                continue
        else:
            columns = [column.strip() for column in line.split("\t")] if "\t" in line else line.split()
        yield number, columns


def _check_sizes(pair: Pair, degraded: tuple[int, ...], clean: tuple[int, ...]) -> None:
    if tuple(degraded) != tuple(clean):
        (a, b), (c, d) = degraded, clean
        raise ValueError(f"{pair.degraded} and {pair.clean} must have the same size, got {a}x{b} and {c}x{d}")
