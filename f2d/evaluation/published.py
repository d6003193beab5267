"""Published results of other methods, each with its source and convention, to compare with."""

import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import NamedTuple


class PublishedRow(NamedTuple):
    """values: by column, None where the source has none; printed: the same with the digits of the source. parameters:
    such as "5.98M", None where they are not given."""

    method: str
    parameters: str | None
    values: dict[str, float | None]
    printed: dict[str, str | None]


class PublishedTable(NamedTuple):
    """Rows of one source in one convention. convention: in words, starting with "unknown" where it is not known;
    comparable: names of the conventions of ours (`Settings.conventions`) that compute the same."""

    title: str
    source: str
    convention: str
    comparable: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[PublishedRow, ...]


def tables(names: Sequence[str]) -> list[PublishedTable]:
    """Those for presets of data sets, in the order of `names`; none for a name that nothing was published for.

    A set that is a part of the three or five tasks gets its columns of theirs, and a title that says so.
    """
    return [table for name in names for entry in _file()["tables"] for table in _of(entry, name)]


@cache
def _file() -> dict:
    text = files("f2d.evaluation").joinpath("published.json").read_text(encoding="utf-8")
    return json.loads(text, parse_float=str)  # 25.40 stays 25.40


def _of(entry: dict, name: str) -> list[PublishedTable]:
    if name == entry["data"]:
        return [_table(entry, entry["title"], entry["columns"])]
    if name in entry.get("alone", {}):
        column = entry["alone"][name]
        return [_table(entry, f"{column}, of models trained for several tasks at once. {entry['title']}", [column])]
    return []


def _table(entry: dict, title: str, columns: list[str]) -> PublishedTable:
    convention = _file()["conventions"][entry["convention"]]
    rows = []
    for method, parameters, values in entry["rows"]:
        all_printed = dict(zip(entry["columns"], values, strict=True))
        printed = {column: all_printed[column] for column in columns}
        numbers = {column: None if text is None else float(text) for column, text in printed.items()}
        rows.append(PublishedRow(method, parameters, numbers, printed))
    return PublishedTable(
        title,
        _file()["sources"][entry["source"]],
        convention["text"],
        tuple(convention["names"]),
        tuple(columns),
        tuple(rows),
    )
