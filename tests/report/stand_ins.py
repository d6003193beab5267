"""The parts of `f2d.evaluation` that a page reads, where the checkout does not have them yet."""

import sys
from collections.abc import Sequence
from importlib.util import find_spec
from statistics import fmean, median
from types import ModuleType
from typing import NamedTuple

from f2d.evaluation.case import Case
from f2d.evaluation.record import Record


class DataSet(NamedTuple):
    title: str
    cases: tuple[Case, ...]
    problems: tuple[str, ...] = ()
    tiers: tuple[tuple[str, tuple[str, ...]], ...] = ()
    published: tuple[str, ...] = ()


class PublishedRow(NamedTuple):
    method: str
    parameters: str | None
    values: dict[str, float | None]


class PublishedTable(NamedTuple):
    title: str
    source: str
    convention: str
    comparable: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[PublishedRow, ...]


class Ratio(NamedTuple):
    ratio: float
    median: float


class Row(NamedTuple):
    name: str
    kind: str
    images: int
    values: dict[str, float]
    input: dict[str, float]


class Summary(NamedTuple):
    rows: list[Row]
    selectivity: dict[str, Ratio]


def summarize(records: Sequence[Record], tiers: Sequence[tuple[str, Sequence[str]]]) -> Summary:
    records = [record for record in records if record.error is None]
    categories = list(dict.fromkeys(record.category for record in records))
    places = [(name, "category", (name,)) for name in categories]
    places += [(name, "tier", members) for name, members in tiers] + [("all", "all", categories)]
    rows = []
    for name, kind, members in places:
        those = [record for record in records if record.category in members]
        if those:
            rows.append(Row(name, kind, len(those), *(_means(those, of) for of in ("values", "input"))))
    names = dict.fromkeys(name for record in records for name in record.selectivity)
    pairs = {name: [record.selectivity[name] for record in records if name in record.selectivity] for name in names}
    ratios = {
        name: Ratio(sum(a for a, _ in those) / sum(b for _, b in those), median(a / b for a, b in those))
        for name, those in pairs.items()
    }
    return Summary(rows, ratios)


def _means(records: Sequence[Record], of: str) -> dict[str, float]:
    keys = dict.fromkeys(key for record in records for key in getattr(record, of))
    return {key: fmean(getattr(record, of)[key] for record in records if key in getattr(record, of)) for key in keys}


def install() -> None:
    """Put stand-ins where modules are missing."""
    here = {
        "datasets": {"DataSet": DataSet, "open_data": None},
        "published": {"PublishedRow": PublishedRow, "PublishedTable": PublishedTable, "tables": lambda names: []},
        "summary": {"Row": Row, "Summary": Summary, "summarize": summarize},
    }
    for name, members in here.items():
        known = f"f2d.evaluation.{name}" in sys.modules
        if not known and find_spec(f"f2d.evaluation.{name}") is None:
            module = ModuleType(f"f2d.evaluation.{name}")
            vars(module).update(members)
            sys.modules[module.__name__] = module
