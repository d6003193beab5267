"""Summarise the records of an evaluation: means by category and tier, selectivity, localisation, speed."""

from collections.abc import Callable, Iterable, Sequence
from math import fsum, nan
from statistics import median
from typing import NamedTuple

from f2d.data.pool import in_order
from f2d.evaluation.case import Case
from f2d.evaluation.record import Record
from f2d.metrics import selectivity
from f2d.metrics.localisation import Localisation, Located, localisation
from f2d.metrics.selectivity import Ratio

Tiers = Sequence[tuple[str, Sequence[str]]]


def of_all(cases: Sequence[Case], records: Sequence[Record | None]) -> list[Record]:
    """Return the records of all cases; a case without one gets that of a failure."""
    return [
        record or Record(case.name, case.category, error="was not evaluated; run f2d eval again")
        for case, record in zip(cases, records, strict=True)
    ]


class Row(NamedTuple):
    """Means over images. kind: "category", "tier" or "all". categories: those it averages. images: number of images.

    values and input are means by measure, of the restorations and of the degraded images. undefined: measure -> number
    of images whose restoration has no value (NaN) and is excluded from the mean; measures without any are absent.
    """

    name: str
    kind: str
    categories: tuple[str, ...]
    images: int
    values: dict[str, float]
    input: dict[str, float]
    undefined: dict[str, int]


class Failure(NamedTuple):
    """A case that failed, with the reason."""

    name: str
    reason: str


class Speed(NamedTuple):
    """seconds: median per image. megapixels_per_second: all pixels divided by all seconds. peak_memory: in bytes."""

    images: int
    seconds: float
    megapixels_per_second: float
    peak_memory: int


class Summary(NamedTuple):
    """The results of `summarize`. rows: categories in published order, then tiers, then "all".

    localisation: by factor, empty without maps or ground-truth masks. speed: None if nothing was timed.
    """

    rows: tuple[Row, ...]
    failed: tuple[Failure, ...]
    selectivity: dict[str, Ratio]
    localisation: dict[str, Localisation]
    speed: Speed | None

    @property
    def all(self) -> Row:
        """The last row."""
        return self.rows[-1]


def summarize(records: Sequence[Record], tiers: Tiers = ()) -> Summary:
    """Average images within each category, and categories within each tier and "all", as CDD-11's publications do.

    tiers are (name, categories); a tier without any of these categories is omitted. A category in which no image has a
    value is NaN, and so are its averages, since an average over fewer categories would be a different one. Sums are
    exact (`math.fsum`), so results do not depend on the order of the records. Raises ValueError for no records.
    """
    if not records:
        raise ValueError("summarize: there are no records")
    order = in_order({record.category for record in records})
    ordered = sorted(records, key=lambda record: (order.index(record.category), record.name))
    good = [record for record in ordered if record.error is None]
    keys = list(dict.fromkeys(key for record in good for key in (*record.values, *record.input)))
    rows = [_category(name, [record for record in good if record.category == name], keys) for name in order]
    averages = [("tier", name, [row for row in rows if row.name in wanted]) for name, wanted in tiers]
    averages.append(("all", "all", rows))
    return Summary(
        (*rows, *(_average(kind, name, parts, keys) for kind, name, parts in averages if parts)),
        tuple(Failure(record.name, record.error) for record in ordered if record.error is not None),
        selectivity.ratios(record.selectivity for record in good),
        _localisation(good),
        _speed([record for record in good if record.seconds > 0]),
    )


def _category(name: str, records: list[Record], keys: list[str]) -> Row:
    values, undefined = _means(records, keys, lambda record: record.values)
    degraded, _ = _means(records, keys, lambda record: record.input)
    return Row(name, "category", (name,), len(records), values, degraded, undefined)


def _means(
    records: list[Record], keys: list[str], of: Callable[[Record], dict[str, float]]
) -> tuple[dict[str, float], dict[str, int]]:
    found = {key: [of(record).get(key, nan) for record in records] for key in keys}
    defined = {key: [value for value in values if value == value] for key, values in found.items()}
    missing = {key: len(records) - len(values) for key, values in defined.items() if len(values) < len(records)}
    return {key: _mean(values) for key, values in defined.items()}, missing


def _average(kind: str, name: str, rows: Sequence[Row], keys: list[str]) -> Row:
    undefined = {key: sum(row.undefined.get(key, 0) for row in rows) for key in keys}
    return Row(
        name,
        kind,
        tuple(row.name for row in rows),
        sum(row.images for row in rows),
        {key: _mean([row.values[key] for row in rows]) for key in keys},
        {key: _mean([row.input[key] for row in rows]) for key in keys},
        {key: count for key, count in undefined.items() if count},
    )


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return fsum(values) / len(values) if values else nan


def _localisation(records: list[Record]) -> dict[str, Localisation]:
    """Summarise the localisation by factor, each over the images in which it is present."""
    found: dict[str, list[tuple[int, Located]]] = {}
    for record in records:
        for factor, one in record.localisation.items():
            found.setdefault(factor, []).append((record.width * record.height, one))
    return {factor: localisation(pictures) for factor, pictures in found.items()}


def _speed(records: list[Record]) -> Speed | None:
    if not records:
        return None
    pixels = sum(record.width * record.height for record in records)
    return Speed(
        len(records),
        median(record.seconds for record in records),
        pixels / 1e6 / fsum(record.seconds for record in records),
        max(record.peak_memory for record in records),
    )
