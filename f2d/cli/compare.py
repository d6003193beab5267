"""`f2d compare`: evaluations of several methods side by side, with confidence intervals of their differences."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import chain
from math import isinf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from f2d.cli.console import one_line_errors, out, shown
from f2d.cli.files import check_no_file
from f2d.cli.options import Evaluations, Seed
from f2d.replacing import write_texts

if TYPE_CHECKING:
    from f2d.evaluation.bootstrap import Interval
    from f2d.evaluation.comparison import Comparison, Line
    from f2d.metrics.measure import About

_FEW = 10  # scenes; with ten normal differences a "95 %" interval covers 90 % (`f2d.evaluation.bootstrap.paired`)
_SHOWN = 5  # excluded pictures listed on the terminal; the files list all of them
_COLUMNS = ("", "pictures", "method", "mean", "difference", "95 % interval", "")


@one_line_errors
def compare(
    evaluations: Evaluations,
    target: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder for compare.json, compare.md and compare.csv.", show_default=False),
    ] = None,
    measure: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY", help='Compare only this measure, for example "psnr rgb 8bit"; may be repeated.'),
    ] = None,
    resamples: Annotated[int, typer.Option(min=100, help="Number of bootstrap resamples.")] = 10_000,
    seed: Seed = 0,
) -> None:
    """Compare two or more evaluations of the same data: means, and differences from the first with 95 % intervals.

    By default, all rows of the first measure and the averages of the others are printed. With --measure, all rows of
    the named measures are printed. Only images that every evaluation contains are compared; the others are listed.
    The confidence intervals come from a paired bootstrap in which all categories have equal weight. For the selectivity
    of the experts and the correlation of their maps with ground-truth masks, each method has an interval of its own.
    """
    if target is not None:
        check_no_file(target)
    from f2d.evaluation.comparison import compare as compare_folders
    from f2d.evaluation.comparison_tables import EXPERT_COLUMNS, expert_tables
    from f2d.evaluation.folder import EvaluationFolder
    from f2d.evaluation.markdown import heading

    comparison = compare_folders(
        [EvaluationFolder.open(folder) for folder in evaluations], measure or (), resamples=resamples, seed=seed
    )
    for i, about in enumerate(comparison.measures):
        lines = comparison.lines[about.key]
        shown_lines = lines if i == 0 or measure else lines[-1:]
        groups = [list(_cells(comparison, about, line)) for line in shown_lines]
        out.print(_table(heading(about), _COLUMNS, groups))
    for experts in [] if measure else expert_tables(comparison):
        out.print(_table(experts.title, EXPERT_COLUMNS, experts.groups))
    for line in _notes(comparison, resamples, seed, experts=not measure):
        out.print(shown(line))
    for name, reason in list(comparison.left_out.items())[:_SHOWN]:
        out.print(f"  {shown(name)}: {shown(reason)}")
    if len(comparison.left_out) > _SHOWN:
        out.print(f"  and {len(comparison.left_out) - _SHOWN} more" + ("" if target else "; -o writes the whole list"))
    if target is not None:
        _write(target, comparison, resamples, seed)
        out.print(f"written to {shown(target)}")


def _table(title: str, columns: Sequence[str], groups: Sequence[Sequence[Sequence[str]]]) -> Table:
    """Draw groups of rows, separated by lines; columns without a title, and the third, are text."""
    table = Table(title=Text(title), title_justify="left")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 2 or not column else "right", overflow="fold")
    for group in groups:
        for cells in group:
            table.add_row(*map(Text, cells))
        table.add_section()
    return table


def _cells(comparison: "Comparison", about: "About", line: "Line") -> Iterator[list[str]]:
    """Yield the cells of each method; a star marks the best mean as printed, unless all are printed alike."""
    from f2d.evaluation.markdown import number

    means = [number(mean, about.digits) for mean in line.means]
    best = {"higher": max, "lower": min}.get(about.better)
    of_best = best and number(best(line.means), about.digits)
    for i, method in enumerate(comparison.methods):
        place = [line.name, str(line.images)] if i == 0 else ["", ""]
        mean = f"{means[i]} *" if means[i] == of_best and len(set(means)) > 1 else f"{means[i]}  "
        yield [*place, method, mean, *(_difference(about, line.intervals[i - 1]) if i else ("", "", ""))]


def _difference(about: "About", interval: "Interval") -> tuple[str, str, str]:
    from f2d.evaluation.markdown import number

    difference, low, high = (number(value, about.digits, "+") for value in interval[:3])
    if low == "–":
        return difference, "none", ""
    return difference, f"{low} to {high}", _verdict(about, interval)


def _verdict(about: "About", interval: "Interval") -> str:
    if not interval.excludes_zero:
        return ""
    direction = {"higher": ("better", "worse"), "lower": ("worse", "better")}.get(about.better, ("higher", "lower"))
    return direction[interval.difference < 0]


def _notes(comparison: "Comparison", resamples: int, seed: int, experts: bool = True) -> Iterator[str]:
    from f2d.evaluation.comparison_tables import expert_notes

    yield (
        f"{comparison.pictures} pictures of {comparison.data} that all evaluations contain. Differences are from "
        f"{comparison.methods[0]}. * marks the best mean."
    )
    yield (
        "better and worse mean that the 95 % confidence interval excludes 0. The intervals are not corrected for "
        "multiple comparisons: about one in twenty misses the true difference. They come from a paired BCa bootstrap "
        f"of {resamples} resamples, seed {seed}; tiers and the overall mean give each category the same weight."
    )
    if experts:
        yield from expert_notes(comparison)
    # measures differ in their scenes where they are undefined for some images
    scenes = {line.scenes for lines in comparison.lines.values() for line in lines if line.kind == "category"}
    few = [number for number in scenes if 2 <= number < _FEW]
    if max(scenes) < 2:
        yield (
            "No category has two scenes, so there are no intervals, and no method can be called better or worse: "
            "evaluate more images of each category."
        )
    elif min(scenes) < 2:
        yield "A category with fewer than two scenes has no interval, and neither does an average over it."
    if any(isinf(mean) for lines in comparison.lines.values() for line in lines for mean in line.means):
        yield "A mean is infinite if one of its images has no error at all; differences from it have no interval."
    if few:
        yield f"The smallest category with an interval has {min(few)} scenes: intervals from so few are too narrow."
    for key, count in comparison.undefined.items():
        yield f"{key} is undefined for {count} of them, which are excluded from every method's numbers."
    for key, reason in comparison.skipped.items():
        yield f"{key} is not compared: {reason}."
    if comparison.absent:
        yield (
            f"No picture of {', '.join(comparison.absent)} is in every evaluation, so tiers and the overall mean are "
            "over the other categories."
        )
    if comparison.left_out:
        yield f"Excluded pictures: {len(comparison.left_out)}"


def _write(target: Path, comparison: "Comparison", resamples: int, seed: int) -> None:
    from f2d.evaluation import markdown
    from f2d.evaluation.comparison_tables import EXPERT_COLUMNS, expert_tables, overview
    from f2d.evaluation.record import dumps

    parts = ["# " + " / ".join(map(markdown.plain, comparison.methods)) + f" on {markdown.plain(comparison.data)}\n"]
    first = markdown.plain(comparison.methods[0])
    brackets = f"Means over the categories. Brackets: 95 % interval of the difference from {first}.\n"
    parts += ["## Overview\n", brackets, markdown.table(*overview(comparison))]
    for experts in expert_tables(comparison):
        parts += [f"## {experts.title}\n", markdown.table(EXPERT_COLUMNS, chain.from_iterable(experts.groups))]
    for about in comparison.measures:
        rows = [cells for line in comparison.lines[about.key] for cells in _cells(comparison, about, line)]
        parts += [f"## {markdown.plain(markdown.heading(about))}\n", markdown.table(_COLUMNS, rows)]
    parts.append(markdown.items(_notes(comparison, resamples, seed)))
    if comparison.left_out:
        parts.append(markdown.items(f"{name}: {reason}" for name, reason in comparison.left_out.items()))
    values = asdict(comparison) | {
        "measures": [about._asdict() for about in comparison.measures],
        "lines": list(_entries(comparison)),
    }
    del values["experts"]  # among the lines
    texts = {
        "compare.json": dumps(values | {"resamples": resamples, "seed": seed}),
        "compare.md": "\n".join(parts),
        "compare.csv": _csv(comparison),
    }
    write_texts(target, texts)


def _entries(comparison: "Comparison") -> Iterator[dict[str, object]]:
    """Yield one entry per measure, row and method; the first method has no difference.

    share_better is the share of the resamples in which the method is better. The numbers about experts follow; their
    interval is from mean_low to mean_high, and methods without them have no entry.
    """
    for about in comparison.measures:
        for line in comparison.lines[about.key]:
            for i, method in enumerate(comparison.methods):
                entry = {"measure": about.key, "row": line.name, "kind": line.kind, "images": line.images}
                entry |= {"method": method, "mean": line.means[i]}
                if i:
                    interval = line.intervals[i - 1]
                    better = {"higher": interval.above, "lower": 1 - interval.above}.get(about.better)
                    entry |= {"difference": interval.difference, "low": interval.low, "high": interval.high}
                    entry |= {"share_better": better, "verdict": _verdict(about, interval)}
                yield entry
    for expert in comparison.experts:
        measure = {"measure": f"{expert.measure} {expert.row}", "row": "all", "kind": "all", "images": expert.images}
        for method, estimate in zip(comparison.methods, expert.estimates):
            if estimate is not None:
                mean, low, high = estimate
                yield measure | {"method": method, "mean": mean, "mean_low": low, "mean_high": high}


def _csv(comparison: "Comparison") -> str:
    columns = ["measure", "row", "kind", "images", "method", "mean", "mean_low", "mean_high"]
    text = io.StringIO()
    writer = csv.DictWriter(
        text, [*columns, "difference", "low", "high", "share_better", "verdict"], lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(_entries(comparison))
    return text.getvalue()
