"""`f2d compare`: evaluations of several methods side by side, with confidence intervals of their differences."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict
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

_FEW = 10  # pictures; with ten normal differences a "95 %" interval covers 90 % (`f2d.evaluation.bootstrap.paired`)
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

    By default all rows of the first measure and the averages of the others are printed; --measure prints all rows of
    the measures it names. Only pictures that every evaluation contains are compared; the others are listed. The
    confidence intervals come from a paired bootstrap in which all categories have equal weight.
    """
    if target is not None:
        check_no_file(target)
    from f2d.evaluation.comparison import compare as compare_folders
    from f2d.evaluation.folder import EvaluationFolder

    comparison = compare_folders(
        [EvaluationFolder.open(folder) for folder in evaluations], measure or (), resamples=resamples, seed=seed
    )
    for i, about in enumerate(comparison.measures):
        lines = comparison.lines[about.key]
        out.print(_table(comparison, about, lines if i == 0 or measure else lines[-1:]))
    for line in _notes(comparison, resamples, seed):
        out.print(shown(line))
    for name, reason in list(comparison.left_out.items())[:_SHOWN]:
        out.print(f"  {shown(name)}: {shown(reason)}")
    if len(comparison.left_out) > _SHOWN:
        out.print(f"  and {len(comparison.left_out) - _SHOWN} more" + ("" if target else "; -o writes the whole list"))
    if target is not None:
        _write(target, comparison, resamples, seed)
        out.print(f"written to {shown(target)}")


def _table(comparison: "Comparison", about: "About", lines: Sequence["Line"]) -> Table:
    from f2d.evaluation.markdown import heading

    table = Table(title=Text(heading(about)), title_justify="left")
    for column, title in enumerate(_COLUMNS):
        table.add_column(title, justify="right" if column in (1, 3, 4, 5) else "left", overflow="fold")
    for line in lines:
        for cells in _cells(comparison, about, line):
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


def _notes(comparison: "Comparison", resamples: int, seed: int) -> Iterator[str]:
    yield (
        f"{comparison.pictures} pictures of {comparison.data} that all evaluations contain. Differences are from "
        f"{comparison.methods[0]}. * marks the best mean."
    )
    yield (
        "better and worse mean that the 95 % confidence interval excludes 0. The intervals are not corrected for "
        "multiple comparisons: about one in twenty misses the true difference. They come from a paired BCa bootstrap "
        f"of {resamples} resamples, seed {seed}; tiers and the overall mean give each category the same weight."
    )
    lines = comparison.lines[comparison.measures[0].key]
    fewest = min(line.images for line in lines if line.kind == "category")
    if fewest < 2:
        yield "A category with fewer than two pictures has no interval, and neither does an average over it."
    elif fewest < _FEW:
        yield f"The smallest category has {fewest} pictures: intervals from so few are too narrow."
    for key, count in comparison.undefined.items():
        yield f"{key} is undefined for {count} of them, which are excluded from every method's numbers."
    for key, reason in comparison.skipped.items():
        yield f"{key} is not compared: {reason}."
    if comparison.left_out:
        yield f"{len(comparison.left_out)} pictures are excluded:"


def _write(target: Path, comparison: "Comparison", resamples: int, seed: int) -> None:
    from f2d.evaluation import markdown
    from f2d.evaluation.record import dumps

    parts = ["# " + " / ".join(map(markdown.plain, comparison.methods)) + f" on {markdown.plain(comparison.data)}\n"]
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
    texts = {
        "compare.json": dumps(values | {"resamples": resamples, "seed": seed}),
        "compare.md": "\n".join(parts),
        "compare.csv": _csv(comparison),
    }
    write_texts(target, texts)


def _entries(comparison: "Comparison") -> Iterator[dict[str, object]]:
    """Yield one entry per measure, row and method; the first method has no difference.

    share_better is the share of the resamples in which the method is better.
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


def _csv(comparison: "Comparison") -> str:
    columns = ["measure", "row", "kind", "images", "method", "mean"]
    text = io.StringIO()
    writer = csv.DictWriter(
        text, [*columns, "difference", "low", "high", "share_better", "verdict"], lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(_entries(comparison))
    return text.getvalue()
