"""`f2d compare`: evaluations of several methods side by side, and how sure their differences are."""

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
from f2d.cli.options import Seed
from f2d.replacing import replacing

if TYPE_CHECKING:
    from f2d.evaluation.bootstrap import Interval
    from f2d.evaluation.comparison import Comparison, Line
    from f2d.metrics.measure import About

_SHOWN = 5  # pictures that are left out, on the terminal; the files have all
_COLUMNS = ("", "pictures", "method", "mean", "difference", "95 % interval", "")


@one_line_errors
def compare(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="EVALUATION...", help="Two or more folders of f2d eval.", show_default=False),
    ],
    target: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for compare.json, .md and .csv.", show_default=False)
    ] = None,
    measure: Annotated[
        list[str] | None, typer.Option(metavar="KEY", help='Only this one, such as "psnr rgb 8bit"; again for others.')
    ] = None,
    resamples: Annotated[int, typer.Option(min=100, help="Of the bootstrap.")] = 10_000,
    seed: Seed = 0,
) -> None:
    """Compare two or more EVALUATIONs of the same data: means, and differences to the first with 95 % intervals.

    Printed are all rows of the first measure and the averages of the others, all rows of those that --measure names.
    Only pictures that all of them have count; the others are listed. The intervals are those of a paired bootstrap in
    which each category counts once.
    """
    if target is not None:
        check_no_file(target)
    from f2d.evaluation.comparison import compare as compare_folders
    from f2d.evaluation.folder import EvaluationFolder

    comparison = compare_folders(
        [EvaluationFolder.open(folder) for folder in folders], measure or (), resamples=resamples, seed=seed
    )
    for i, about in enumerate(comparison.measures):
        lines = comparison.lines[about.key]
        out.print(_table(comparison, about, lines if i == 0 or measure else lines[-1:]))
    for line in _notes(comparison, resamples, seed):
        out.print(shown(line))
    for name, reason in list(comparison.left_out.items())[:_SHOWN]:
        out.print(f"  {shown(name)}: {shown(reason)}")
    if len(comparison.left_out) > _SHOWN:
        out.print(f"  and {len(comparison.left_out) - _SHOWN} more" + ("" if target else "; -o lists them all"))
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
    """Of each method. The best mean as it is printed has a star, unless all print alike."""
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
        f"{comparison.pictures} pictures of {comparison.data} that all have; differences to {comparison.methods[0]}; "
        "* the best mean."
    )
    yield (
        "better, worse: the 95 % interval excludes 0. Each interval holds for itself: of many, one in twenty misses. "
        f"Paired bootstrap, BCa, {resamples} resamples, seed {seed}; a tier and all count each category once."
    )
    for key, count in comparison.undefined.items():
        yield f"{key}: not defined for {count} of them, which are left out of all methods' numbers"
    for key, reason in comparison.skipped.items():
        yield f"{key} is not compared: {reason}"
    if comparison.left_out:
        yield f"{len(comparison.left_out)} pictures are left out:"


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
    target.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        with replacing(target / name) as part:
            part.write_text(text, encoding="utf-8", newline="\n")


def _entries(comparison: "Comparison") -> Iterator[dict[str, object]]:
    """One for every measure, row and method; the first method has no difference. share_better: of the resamples."""
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
