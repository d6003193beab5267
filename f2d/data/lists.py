"""Lists of pairs: text files with the paths of a degraded and a clean image in each line."""

import csv
from collections.abc import Iterable
from pathlib import Path

from f2d.data.categories import canonical
from f2d.data.pairs import Pair


def read_list(path: Path, category: str | None = None, missing: list[str] | None = None) -> list[Pair]:
    """Read the pairs of a text file: ``degraded clean [category]`` in each line, with paths relative to the file.

    Columns are separated by commas in a .csv file (whose first line may name them: degraded,clean[,category]), else by
    tabs or, if a line has none, by spaces. Empty lines and lines that start with # are skipped. Raises ValueError,
    which names the line, for a wrong number of columns, a missing file (or adds a line to `missing`, if given), and a
    category that is given neither in the file nor as an argument.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a list of pairs, because it is not text") from None
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
        raise ValueError(f"{path} contains no pairs (lines of the form: degraded clean [category])")
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
