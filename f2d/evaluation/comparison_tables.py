"""Cells of a comparison's summary tables: an overview of all measures, and the numbers about experts."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from f2d.evaluation.comparison import Comparison
from f2d.evaluation.experts import CORRELATION, SELECTIVITY, ExpertLine
from f2d.evaluation.markdown import heading, number

EXPERT_COLUMNS = ("", "pictures", "method", "value", "95 % interval")
_DIGITS = {SELECTIVITY: 2, CORRELATION: 3}
_TITLES = {
    SELECTIVITY: "Selectivity of the experts",
    CORRELATION: "Correlation of the experts' maps with the ground-truth masks",
}


class ExpertTable(NamedTuple):
    """The numbers of one kind about experts: a group of rows for each number, with cells for `EXPERT_COLUMNS`."""

    title: str
    groups: list[list[list[str]]]


def overview(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Return header and rows: each method's mean over all categories, with the interval of its difference in brackets.

    The first method, from which the differences are taken, has no brackets.
    """
    rows = []
    for i, method in enumerate(comparison.methods):
        cells = [method]
        for about in comparison.measures:
            line = comparison.lines[about.key][-1]
            cell = number(line.means[i], about.digits)
            if i:
                low, high = (number(value, about.digits, "+") for value in line.intervals[i - 1][1:3])
                cell += f" ({low} to {high})" if low != "–" else ""
            cells.append(cell)
        rows.append(cells)
    return ["", *map(heading, comparison.measures)], rows


def expert_tables(comparison: Comparison) -> Iterator[ExpertTable]:
    """Yield a table of the selectivity ratios and one of the map correlations, if any method has them."""
    for measure, title in _TITLES.items():
        lines = [line for line in comparison.experts if line.measure == measure]
        if lines:
            yield ExpertTable(title, [list(_cells(comparison.methods, line)) for line in lines])


def expert_notes(comparison: Comparison) -> Iterator[str]:
    """Yield what a reader of the expert tables must know; nothing without such tables."""
    if comparison.experts:
        yield (
            "The numbers about experts have a 95 % confidence interval for each method, from the same bootstrap; "
            "pictures have equal weight. Selectivity is mean numerator over mean denominator of the set."
        )
    for method, reasons in comparison.without.items():
        yield from (f"{method} {reason}." for reason in reasons)


def _cells(methods: Sequence[str], line: ExpertLine) -> Iterator[list[str]]:
    digits = _DIGITS[line.measure]
    for i, (method, estimate) in enumerate(zip(methods, line.estimates)):
        place = [line.row, str(line.images)] if i == 0 else ["", ""]
        value, low, high = (number(x, digits) for x in estimate or (None, None, None))
        interval = "" if estimate is None else "none" if low == "–" else f"{low} to {high}"
        yield [*place, method, value, interval]
