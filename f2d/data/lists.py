"""Lists of pairs: text files with the paths of a degraded and a clean image in each line."""

import csv
from collections.abc import Iterable
from pathlib import Path

from f2d.data.categories import canonical
from f2d.data.pairs import Pair


def read_list(path: Path, category: str | None = None, missing: list[str] | None = None) -> list[Pair]:
    """Read the pairs of a text file: ``degraded clean [category]`` in each line, with paths relative to the file.

    Columns are separated by commas in a .csv file (whose first line may name them, in any order), else by tabs or, if a
    line has none, by spaces. Empty lines and lines that start with # are skipped. Raises ValueError, which names the
    line, for a wrong number of columns, a missing file (or adds a line to `missing`, if given), and a category that is
    given neither in the file nor as an argument.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a list of pairs, because it is not text") from None
    pairs, is_csv = list[Pair](), path.suffix.lower() == ".csv"
    names, wanted = ["degraded", "clean", "category"], "degraded, clean and optionally a category"
    for i, (number, columns) in enumerate(_rows(text, is_csv)):
        where = f"{path}, line {number}"
        if is_csv and i == 0 and {"degraded", "clean"} <= {column.lower() for column in columns}:
            names, wanted = [column.lower() for column in columns], ", ".join(columns)
            if len(names) > 2 and "category" not in names:  # it may be there, under another name
                raise ValueError(f"{where}: must name one of the columns category, got {wanted}")
            continue
        row = dict(zip(names, columns))
        if len(columns) > len(names) or not {"degraded", "clean"} <= row.keys():
            raise ValueError(f"{where}: must have the columns {wanted}, got {len(columns)} columns")
        name = row.get("category") or category
        if name is None:
            raise ValueError(f"{where}: has no category, neither in a third column nor for the whole list")
        pair = Pair(path.parent / row["degraded"], path.parent / row["clean"], canonical(name))
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


def _rows(text: str, is_csv: bool) -> Iterable[tuple[int, list[str]]]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        if is_csv:
            columns = [column.strip() for column in next(csv.reader([line], skipinitialspace=True))]
        else:
            columns = [column.strip() for column in line.split("\t")] if "\t" in line else line.split()
        yield number, columns
