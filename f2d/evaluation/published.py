"""Published results of other methods, each with its source and convention."""

import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import NamedTuple


class PublishedRow(NamedTuple):
    """The results of one method. values: by column, None if the source has none. printed: with the source's digits.
    parameters: for example "5.98M", or None if the source does not state them.
    """

    method: str
    parameters: str | None
    values: dict[str, float | None]
    printed: dict[str, str | None]


class PublishedTable(NamedTuple):
    """Rows of one source in one convention. convention: a description, which starts with "unknown" if the source does
    not state it. comparable: names of our conventions (`Settings.conventions`) that compute the same.
    """

    title: str
    source: str
    convention: str
    comparable: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[PublishedRow, ...]


def tables(names: Sequence[str]) -> list[PublishedTable]:
    """Return the tables of datasets by name, in the order of `names`; a name without published results has none.

    A dataset that belongs to the three or five tasks gets its columns of their tables, with a title that says so.
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
