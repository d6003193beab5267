"""Write the results of an evaluation as JSON, CSV and Markdown, and as a table for the terminal."""

import csv
import io
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import chain

import torch
from rich.table import Table
from rich.text import Text

import f2d_kernels
from f2d.evaluation import markdown
from f2d.evaluation.datasets import DataSet
from f2d.evaluation.folder import EvaluationFolder, Settings
from f2d.evaluation.map_rows import MAP_COLUMNS, MAPS, map_cells, map_notes
from f2d.evaluation.markdown import heading, number, plain
from f2d.evaluation.published import PublishedTable, tables
from f2d.evaluation.record import Record, dumps
from f2d.evaluation.summary import Row, Summary
from f2d.metrics.measure import About
from f2d.replacing import write_texts

RESULTS, SPEED = "results", "speed.json"
FILES = (*(f"{RESULTS}.{kind}" for kind in ("json", "csv", "md")), SPEED)
WIDTH = 100  # columns of a terminal
AVERAGES = (
    'Each category is the mean over its pictures; a tier, and "all", the mean over their categories, each counted '
    "once. input: the degraded pictures themselves."
)
_SELECTIVITY = {
    "present_absent": "mean effective gate of the factors present / of those absent",
    "max_min": "largest / smallest mean effective gate of a picture",
    "inside_masks": "as present_absent, only from pixels where a factor present acts (its mask above 0.05)",
}


def write_results(
    folder: EvaluationFolder,
    data: DataSet,
    summary: Summary,
    records: Sequence[Record],
    over_sets: Mapping[str, float] | None = None,
    device: str = "",
) -> None:
    """Write ``results.json``, ``results.csv`` (one line per image), ``results.md`` and ``speed.json``.

    over_sets: the measures of all restorations together, such as FID, by key. device: a description of the device.
    Two evaluations with equal settings and records write byte-identical files, except for speed.json, which alone
    contains times, memory and the machine.
    """
    names = [record.name for record in records]
    results = _Results(folder.settings, data, summary, dict(over_sets or {}), names)
    texts = (
        results.json(),
        _csv(folder.settings, records),
        "\n".join(results.sections()),
        dumps(_speed(summary, device)),
    )
    write_texts(folder.path, dict(zip(FILES, texts, strict=True)))


def terminal_table(settings: Settings, summary: Summary) -> Table:
    """Return a table with as many measures as fit in 100 columns: categories, tiers, "all", and the input's "all"."""
    fitting, room = [], WIDTH - max(len(row.name) for row in summary.rows) - 20
    measured = [about for about in settings.measures if about.key in summary.all.values]
    for about in measured:
        room -= max(len(heading(about)), 7) + 3
        if room < 0:
            break
        fitting.append(about)
    table = Table(title=Text(settings.name), title_justify="left")
    table.add_column("")
    for title in ("pictures", *map(heading, fitting)):
        table.add_column(Text(title), justify="right")
    kind = summary.rows[0].kind
    for row in summary.rows:
        if row.kind != kind:
            table.add_section()
            kind = row.kind
        cells = (number(row.values[about.key], about.digits) for about in fitting)
        table.add_row(Text(row.name), str(row.images), *cells)
    table.add_row("input", "", *(number(summary.all.input[about.key], about.digits) for about in fitting))
    if len(fitting) < len(measured):
        table.caption = f"{RESULTS}.md has all {len(measured)} measures"
    return table


class _Results:
    def __init__(
        self, settings: Settings, data: DataSet, summary: Summary, over_sets: dict[str, float], names: list[str]
    ):
        self.settings, self.data, self.summary = settings, data, summary
        self.over_sets, self.names = over_sets, names
        self.published = tables(data.published)
        self.measured = [about for about in settings.measures if about.key in summary.all.values]

    def json(self) -> str:
        settings = asdict(self.settings) | {"measures": [about._asdict() for about in self.settings.measures]}
        return dumps(
            {
                "settings": settings,
                "title": self.data.title,
                "pictures": self.names,
                "rows": [row._asdict() for row in self.summary.rows],
                "over_sets": self.over_sets,
                "selectivity": {name: ratio._asdict() for name, ratio in self.summary.selectivity.items()},
                "localisation": {name: found._asdict() for name, found in self.summary.localisation.items()},
                "failed": [failure._asdict() for failure in self.summary.failed],
                "problems": list(self.data.problems),
                "published": [
                    table._asdict() | {"rows": [row._asdict() for row in table.rows]} for table in self.published
                ],
            }
        )

    def sections(self) -> Iterator[str]:
        """Yield the sections of the Markdown, each ending with a newline."""
        settings, summary = self.settings, self.summary
        yield f"# {plain(settings.name)} on {plain(self.data.title)}\n"
        yield (
            f"{summary.all.images} pictures evaluated, {len(summary.failed)} failed, {len(self.data.problems)} problems"
            f" of the data. {plain(self._method())}\n"
        )
        yield f"{AVERAGES}\n"
        by_key = {about.key: about for about in self.measured}
        for name, convention in settings.conventions.items():
            yield f"## Convention {plain(name)}\n\n{plain(convention['text'])}.\n"
            yield self._table([by_key[key] for key in convention["keys"] if key in by_key])
        of_conventions = set(chain.from_iterable(convention["keys"] for convention in settings.conventions.values()))
        others = [about for about in self.measured if about.key not in of_conventions]
        if others:
            yield "## Other measures\n"
            yield self._table(others)
        if self.over_sets:
            yield "## Measures of all pictures together\n"
            known = {about.key: about for about in settings.measures}
            rows = [[heading(known[key]), number(x, known[key].digits)] for key, x in self.over_sets.items()]
            yield markdown.table(["measure", ""], rows)
        if summary.selectivity:
            yield '## Selectivity of the experts\n\n"Selectivity ratio" has no public definition; these are three.\n'
            rows = [
                [name, _SELECTIVITY.get(name, ""), number(ratio.ratio, 3), number(ratio.median, 3)]
                for name, ratio in summary.selectivity.items()
            ]
            yield markdown.table(["", "definition", "ratio of the means", "median over pictures"], rows, left=2)
        if summary.localisation:
            yield f"## Maps of the experts\n\n{plain(MAPS)}\n"
            rows = [[factor, *map_cells(found)] for factor, found in summary.localisation.items()]
            yield markdown.table(["", *MAP_COLUMNS], rows)
            for factor, found in summary.localisation.items():
                yield from (f"{plain(note)}\n" for note in map_notes(factor, found))
        said = "Other people's numbers, as they printed them; none was measured here."
        if not self.published:
            said = f"None are collected here for {plain(self.data.title)}."
        yield f"## Published results\n\n{said}\n"
        for table in self.published:
            yield self._of_others(table)
        lists = {
            "Absent measures": [f"{name}: {reason}" for name, reason in settings.absent.items()],
            "Pictures without numbers": [f"{failure.name}: {failure.reason}" for failure in summary.failed],
            "Problems of the data": list(self.data.problems),
        }
        for title, lines in lists.items():
            if lines:
                yield f"## {title} ({len(lines)})\n\n{markdown.items(lines)}"

    def _method(self) -> str:
        settings = self.settings
        options = ", ".join(f"{name} {value}" for name, value in settings.options.items() if value is not None)
        if settings.model is None:
            return "The pictures are another method's" + (f"; {options}." if options else ".")
        weights = f", weights SHA-256 {settings.digest[:16]}" if settings.digest else ""
        return f"Model {settings.model}{weights}" + (f"; {options}." if options else ".")

    def _table(self, abouts: list[About]) -> str:
        """Write the summary's rows, with the restoration's value and the input's for each measure."""
        header = ["", "pictures", *chain.from_iterable((heading(about), "input") for about in abouts)]
        text = markdown.table(
            header, [[self._name(row), str(row.images), *_cells(row, abouts)] for row in self._rows()]
        )
        undefined = self.summary.all.undefined
        notes = [
            f"{plain(about.title)} is not defined for {undefined[about.key]} of {self.summary.all.images} pictures, "
            "which its means leave out.\n"
            for about in abouts
            if about.key in undefined
        ]
        return "\n".join([text, *notes])

    def _rows(self) -> list[Row]:
        """Return the rows; averages of a single category are omitted."""
        rows = self.summary.rows
        return [row for row in rows if row.kind == "category" or len(rows[-1].categories) > 1]

    def _name(self, row: Row) -> str:
        return f"{row.name} (mean of {len(row.categories)})" if row.kind != "category" else row.name

    def _of_others(self, table: PublishedTable) -> str:
        ours = [name for name in table.comparable if name in self.settings.conventions]
        if ours:
            advice = f"The same as {' and '.join(ours)} above{self._part()}."
        elif table.comparable:
            advice = f"NOT the convention of any table above: do not compare; {' or '.join(table.comparable)} would be."
        else:
            advice = "Not known to be that of any table above: do not compare closely."
        rows = [
            [f"{row.method} (published)", row.parameters or "–", *(row.printed[c] or "–" for c in table.columns)]
            for row in table.rows
        ]
        said = f"Source: {plain(table.source)}. Convention: {plain(table.convention)}. {advice}"
        return f"### {plain(table.title)}\n\n{said}\n\n{markdown.table(['method', 'parameters', *table.columns], rows)}"

    def _part(self) -> str:
        """Say so if the averages are not those of the whole dataset."""
        part = self.settings.options.get("limit") or self.summary.failed or self.data.problems
        return ", but ours is of a part of the data" if part else ""


def _cells(row: Row, abouts: list[About]) -> Iterator[str]:
    for about in abouts:
        yield number(row.values[about.key], about.digits)
        yield number(row.input[about.key], about.digits)


def _csv(settings: Settings, records: Sequence[Record]) -> str:
    """Write a line per image: its values, those of the input, gates, presence, effective gates, maps, or the error."""
    keys = [about.key for about in settings.measures if any(about.key in record.values for record in records)]
    factors = list(dict.fromkeys(name for record in records for name in (*record.gates, *record.presence)))
    effective = [name for name in factors if any(name in record.effective for record in records)]
    mapped = list(dict.fromkeys(name for record in records for name in record.localisation))
    columns = {
        "": (keys, lambda record: record.values),
        "input ": (keys, lambda record: record.input),
        "gate ": (factors, lambda record: record.gates),
        "presence ": (factors, lambda record: record.presence),
        "effective gate ": (effective, lambda record: record.effective),
        "map correlation ": (mapped, lambda record: _located(record, "correlation")),
        "map average precision ": (mapped, lambda record: _located(record, "average_precision")),
        "degraded share ": (mapped, lambda record: _located(record, "share")),
    }
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    titles = [f"{prefix}{name}" for prefix, (wanted, _) in columns.items() for name in wanted]
    writer.writerow(["name", "category", "width", "height", *titles, "error"])
    for record in records:
        numbers = [of(record).get(name, "") for wanted, of in columns.values() for name in wanted]
        writer.writerow([record.name, record.category, record.width, record.height, *numbers, record.error or ""])
    return text.getvalue()


def _located(record: Record, name: str) -> dict[str, float]:
    return {factor: getattr(one, name) for factor, one in record.localisation.items()}


def _speed(summary: Summary, device: str) -> dict[str, object]:
    return {
        "speed": summary.speed and summary.speed._asdict(),
        "device": device,
        "threads": torch.get_num_threads(),
        "versions": {"f2d": f2d_kernels.__version__, "torch": torch.__version__, "python": platform.python_version()},
    }
