"""Open datasets on disk for evaluation: find their cases and problems."""

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

from f2d.data.categories import CLEAR, factors_of, is_category
from f2d.data.cdd11 import match_scenes
from f2d.data.find import recognise
from f2d.data.lists import read_list
from f2d.data.naming import own_name, split_rank
from f2d.data.pairs import Home, Matches, match_pairs, pair_folders
from f2d.data.pictures import find_images
from f2d.degradation import CATEGORIES
from f2d.evaluation.case import Case
from f2d.evaluation.presets import PRESETS, Part
from f2d.evaluation.record import in_unicode
from f2d.images import IMAGE_SUFFIXES

ROOT = "F2D_DATA"  # environment variable: a folder that contains datasets under their own names


@dataclass(frozen=True)
class DataSet:
    """An opened dataset. spec: ``preset=folder``, with which it can be opened again. cases: in the order of the
    tables. problems: one line for each image that cannot be evaluated. tiers: (name, categories) of averages.
    published: names of its tables of published results. convention: the convention of these results.
    """

    spec: str
    title: str
    cases: tuple[Case, ...]
    problems: tuple[str, ...]
    tiers: tuple[tuple[str, tuple[str, ...]], ...]
    published: tuple[str, ...]
    convention: str

    @property
    def categories(self) -> tuple[str, ...]:
        """The rows of the tables."""
        return tuple(dict.fromkeys(case.category for case in self.cases))


def open_data(text: str, limit: int | None = None) -> DataSet:
    """Open ``PRESET=FOLDER``, a FOLDER or list whose layout is recognised, or a PRESET in the folder named by F2D_DATA.

    limit is the largest number of cases per category, taken from its start. Raises ValueError if the dataset does not
    exist, contains no image that can be evaluated, or is ambiguous.
    """
    name, path = _located(text)
    preset = PRESETS[name]
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder")
    path = path.resolve()
    problems: list[str] = []
    cases = _distinct(list(chain.from_iterable(_cases(part, path, problems) for part in preset.parts)))
    if not cases:
        said = f": {problems[0]}" if problems else ""
        raise ValueError(f"{path} contains nothing to evaluate as {name}{said}")
    if limit is not None:
        seen: Counter[str] = Counter()
        cases = [case for case in cases if seen[case.category] < limit and not seen.update([case.category])]
    spec = f"{name}={path}"
    return DataSet(spec, preset.title, tuple(cases), tuple(problems), preset.tiers, (name,), preset.convention)


def _located(text: str) -> tuple[str, Path]:
    """Return (preset, folder)."""
    name, equals, folder = text.partition("=")
    if equals and name in PRESETS:
        return name, Path(folder)
    path = Path(text)
    if text in PRESETS:
        return text, path if path.exists() else _in_root(text)
    if path.exists():
        return _recognised(path), path
    if equals:
        raise ValueError(f"dataset must be one of {', '.join(PRESETS)}, got {name!r}")
    raise ValueError(f"{text}: must be a folder or a dataset by name ({', '.join(PRESETS)})")


def _recognised(path: Path) -> str:
    layout = recognise(path)
    if layout in ("pairs", "list"):
        return layout
    if layout == "cdd11":
        return "cdd-11"
    if layout == "lmdb":
        raise ValueError(f"{path} is an LMDB, which must be converted to folders by f2d convert")
    raise ValueError(
        f"{path} contains only photographs: use composites={path} to degrade them if they are clean, or "
        f"unpaired={path} to restore them without ground truth"
    )


def _in_root(name: str) -> Path:
    root = os.environ.get(ROOT)
    if not root:
        raise ValueError(f"{name} needs a folder: use {name}=FOLDER, or set {ROOT} to the folder that contains it")
    wanted = {_plain(name), _plain(PRESETS[name].title)}
    found = sorted(path for path in Path(root).iterdir() if path.is_dir() and _plain(path.name) in wanted)
    if not found and all(part.folders != ("",) for part in PRESETS[name].parts):
        return Path(root)  # the datasets of a task have folders of their own there
    if not found:
        raise ValueError(f"{root} ({ROOT}) has no folder named {name} or {PRESETS[name].title}")
    return found[0]


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _cases(part: Part, root: Path, problems: list[str]) -> Iterator[Case]:
    if part.layout == "list":
        for pair in read_list(root, "pairs", problems):
            inside = pair.degraded.is_relative_to(root.parent)
            place = _place(pair.degraded, root.parent) if inside else pair.degraded.stem
            yield Case(f"{pair.category}/{place}", pair.category, pair.degraded, pair.clean, 0, ())
        return
    home = next((root / name for name in part.folders if (root / name).is_dir()), None)
    if home is None:
        names = ", ".join(filter(None, part.folders))
        problems.append(f"{root}: {part.row or ', '.join(part.made) or 'a folder'} is missing (looked for {names})")
    elif part.layout == "cdd11":
        yield from _scenes(home, problems)
    elif part.layout == "pairs":
        yield from _pairs(part, home, problems)
    elif part.layout == "clean":
        yield from _made(part, home, problems)
    else:
        row = part.row or home.resolve().name
        for path in _some_images(home, problems):
            yield Case(f"{row}/{_place(path, home)}", row, path, None, 0, part.factors)


def _pairs(part: Part, root: Path, problems: list[str]) -> Iterator[Case]:
    homes = pair_folders(root)
    if not homes:
        match_pairs(root, part.row)  # raises an error that names the layouts
    ranks = [split_rank(home.folder.relative_to(root).parts) for home in homes]
    homes = [home for home, rank in zip(homes, ranks) if rank == min(ranks)]  # of splits, only the test set
    rows = [part.row or _row(home, root) for home in homes]
    often = Counter(rows)
    for home, own in zip(homes, rows):
        row = own
        if often[own] > 1 and not part.row:  # rain/night and haze/night are two categories
            row = " ".join(home.folder.relative_to(root).parts)
        factors = part.factors or (factors_of(own) if is_category(own) else ())
        matches = match_pairs(home.folder, row, pattern=part.pattern)
        _report(matches, problems)
        sequence = home.folder.relative_to(root) if part.row else Path()
        for pair in matches.pairs:
            name = f"{row}/{(sequence / _place(pair.degraded, home.degraded)).as_posix()}"
            yield Case(name, row, pair.degraded, pair.clean, 0, factors)


def _row(home: Home, root: Path) -> str:
    real = root.resolve()
    return own_name((real.parent.name, real.name, *home.folder.relative_to(root).parts))


def _scenes(home: Path, problems: list[str]) -> Iterator[Case]:
    matches = match_scenes(home)
    _report(matches, problems)
    there = Counter(pair.category for pair in matches.pairs)
    missing = [category for category in CATEGORIES if not there[category]]
    if missing:
        problems.append(f"{home}: {', '.join(missing)} missing, so averages are over the other categories only")
    scenes = len(find_images(home / CLEAR))
    problems += [f"{home}: {category} has {n} of the {scenes} scenes" for category, n in there.items() if n < scenes]
    for pair in matches.pairs:
        place = Path(*pair.degraded.relative_to(home).parts[1:])
        name = f"{pair.category}/{_place(place, Path())}"
        yield Case(name, pair.category, pair.degraded, pair.clean, 0, factors_of(pair.category))


def _report(matches: Matches, problems: list[str]) -> None:
    for folder, paths in matches.alone.items():
        problems += [f"{path}: no image to compare it with" for path in paths] or [f"{folder}: contains no images"]
    problems += [f"{' and '.join(map(str, paths))}: clean images of the same name" for paths in matches.twice]


def _made(part: Part, home: Path, problems: list[str]) -> Iterator[Case]:
    """Yield the cases of synthesised categories; image i of the sorted folder in category c has seed 1000 c + i."""
    paths = _some_images(home, problems)
    for c, category in enumerate(part.made):
        for i, path in enumerate(paths):
            name = f"{category}/{_place(path, home)}"
            yield Case(name, category, None, path, 1000 * c + i, factors_of(category))


def _some_images(home: Path, problems: list[str]) -> list[Path]:
    paths = find_images(home)
    if not paths:
        problems.append(f"{home}: contains no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return paths


def _place(path: Path, home: Path) -> str:
    return path.relative_to(home).with_suffix("").as_posix()


def _distinct(cases: list[Case]) -> list[Case]:
    """Make the cases' names unique and valid in files: equal names get the file's suffix, then a number."""
    # a list may name ../photos/1.png: files of such a name would lie outside the evaluation, even over the photograph
    cases = [
        case._replace(name="/".join(part for part in case.name.split("/") if part not in ("", ".."))) for case in cases
    ]
    often = Counter(case.name for case in cases)
    taken = {name for name, times in often.items() if times == 1}
    found = []
    for case in cases:
        name = case.name
        if often[name] > 1:
            file = case.degraded or case.clean
            plain = name + (file.suffix if file is not None else "")
            name = next(n for n in chain([plain], (f"{plain} {i}" for i in count(2))) if n not in taken)
            taken.add(name)
        found.append(case._replace(name=in_unicode(name), category=in_unicode(case.category)))
    return found
