"""Write the tables of a page: methods, results, bar charts and published results."""

from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

from f2d.evaluation.published import PublishedTable
from f2d.evaluation.summary import Row
from f2d.metrics.measure import About
from f2d.report.charts import Series, bars
from f2d.report.gather import Content, Convention, Method
from f2d.report.markup import Markup, element, together
from f2d.report.numbers import heading
from f2d.report.tables import boxed, columns, key, marked, numbers, row, table

INPUT = "Input"
TOLD = 200  # largest number of failures and problems that are listed


def methods_table(content: Content) -> Markup:
    """Write the table of methods: model, options, time and memory."""
    head = columns("Method", "Model", "Options", "Pictures", "Seconds per picture", "Peak memory")
    rows = []
    for k, method in enumerate(content.methods):
        settings, records = method.settings, method.records.values()
        model = settings.model or f"outputs in {settings.outputs}"
        digest = element("code", f"SHA-256 {settings.digest[:12]}…", class_="block") if settings.digest else ""
        options = ", ".join(f"{name} {value}" for name, value in settings.options.items() if value is not None)
        peak = max(record.peak_memory for record in records)
        cells = (element("td", element("code", model), digest), element("td", options or "–"))
        measured = numbers(
            f"{len(method.records)} of {len(content.data.cases)}",
            f"{fmean(record.seconds for record in records):.3g} s",
            f"{peak / 2**20:,.0f} MiB" if peak else "–",
        )
        rows.append(row((key(f"method-{k}"), method.name), *cells, *measured))
    return table("Methods", head, rows)


def results(content: Content) -> Markup:
    """Write a table for each convention with its description, the tiers, and the measures that are missing."""
    drawn = [_table_of(content, convention) for convention in content.conventions]
    tiers = [f"{name}: {', '.join(members)}" for name, members in content.data.tiers]
    told = [element("p", "Tiers. ", "; ".join(tiers), ".", class_="note")] if tiers else []
    return together(*drawn, *told, _over_sets(content), _absent(content))


def charts(content: Content) -> Markup:
    """Draw bars for each measure, by category and over all."""
    rows = [place for place in _places(content) if place[0] != "tier"]
    legend = [element("li", key(column.kind), column.name) for column in _columns(content)]
    figures = []
    for about in content.measures:
        series = [
            Series(column.name, column.kind, [column.value(place, about) for place in rows])
            for column in _columns(content)
        ]
        drawn = bars(about, [name for _, name in rows], series)
        figures.append(element("figure", element("figcaption", heading(about)), drawn))
    return together(element("ul", *legend, class_="legend"), element("div", *figures, class_="charts"))


def published(content: Content) -> Markup:
    """Write the published results on this data, each with its source and convention."""
    ours = {convention.name for convention in content.conventions}
    return together(*(_published(given, ours) for given in content.published))


def failures(content: Content) -> Markup:
    """List failures by name; nothing if there are none."""
    told = [f"Data: {problem}" for problem in content.data.problems]
    told += [f"{method.name}: {record.name}: {record.error}" for method in content.methods for record in method.failed]
    if not told:
        return Markup()
    more = [element("li", f"and {len(told) - TOLD} more")] if len(told) > TOLD else []
    count = f"{len(told)} {'picture or file' if len(told) == 1 else 'pictures or files'} without results"
    return element(
        "details",
        element("summary", count),
        element("ul", *(element("li", line) for line in told[:TOLD]), *more),
        class_="problems",
    )


def _table_of(content: Content, convention: Convention) -> Markup:
    shown = _columns(content)
    over = [
        element("th", "Category", scope="col", rowspan=2),
        element("th", "Pictures", scope="col", rowspan=2, class_="number"),
    ]
    over += [
        element("th", heading(about), scope="colgroup", colspan=len(shown), class_="group")
        for about in convention.measures
    ]
    names = columns(*(column.name for column in shown), number=True) * len(convention.measures)
    bodies: list[tuple[str, list[Markup]]] = []
    last = None
    for place in _places(content):
        kind, name = place
        cells = numbers(_counts(content, place))
        for about in convention.measures:
            cells += marked([column.value(place, about) for column in shown], about)
        if kind != last:
            bodies.append((kind, []))
            last = kind
        bodies[-1][1].append(row(name, *cells))
    drawn = element(
        "table",
        element("thead", element("tr", *over), element("tr", *names)),
        *(element("tbody", *rows, class_=kind) for kind, rows in bodies),
        class_="results",
    )
    text = f": {convention.text}" if convention.text else ""
    words = element("p", element("b", convention.name), text, class_="words")
    lines = [
        f"{method.name}: {about.title} is undefined for {missing} pictures, which are excluded from its means."
        for method in content.methods
        for about in convention.measures
        if (missing := method.summary.all.undefined.get(about.key))
    ]
    notes = [element("p", line, class_="note") for line in lines]
    return element("div", words, boxed(f"Results, {convention.name}", drawn), *notes, class_="convention")


class _Column(NamedTuple):
    """A column of every measure. kind: the class of its colour. methods: the first that has a value gives it, for its
    input if `of_input`, otherwise for its restorations."""

    name: str
    kind: str
    methods: Sequence[Method]
    of_input: bool = False

    def value(self, place: tuple[str, str], about: About) -> float | None:
        for method in self.methods:
            row = _row(method, place)
            value = None if row is None else (row.input if self.of_input else row.values).get(about.key)
            if value is not None:
                return value
        return None


def _columns(content: Content) -> list[_Column]:
    methods = [_Column(method.name, f"method-{k}", (method,)) for k, method in enumerate(content.methods)]
    return [_Column(INPUT, "input", content.methods, of_input=True), *methods]


def _places(content: Content) -> list[tuple[str, str]]:
    """Return (kind, name) of all rows: categories, tiers, all."""
    rows = [row for method in content.methods for row in method.summary.rows]
    several = len({row.name for row in rows if row.kind == "category"}) > 1  # otherwise the averages equal the category
    found = {(row.kind, row.name): None for row in rows if several or row.kind == "category"}
    return sorted(found, key=lambda place: ("category", "tier", "all").index(place[0]))


def _row(method: Method, place: tuple[str, str]) -> Row | None:
    return next((row for row in method.summary.rows if (row.kind, row.name) == place), None)


def _counts(content: Content, place: tuple[str, str]) -> str:
    """Return the number of images of a row, by method if they differ."""
    rows = [_row(method, place) for method in content.methods]
    counts = [0 if row is None else row.images for row in rows]
    return str(counts[0]) if len(set(counts)) == 1 else " / ".join(map(str, counts))


def _over_sets(content: Content) -> Markup:
    known = {about.key: about for method in content.methods for about in method.settings.measures}
    abouts = [about for key, about in known.items() if any(key in method.over_sets for method in content.methods)]
    if not abouts:
        return Markup()
    head = columns("Measure", *(method.name for method in content.methods))
    rows = [
        row(heading(about), *marked([method.over_sets.get(about.key) for method in content.methods], about))
        for about in abouts
    ]
    title = "Measures of all pictures together"
    return together(element("h3", title), table(title, head, rows))


def _absent(content: Content) -> Markup:
    if not content.absent:
        return Markup()
    items = (together(element("dt", name), element("dd", reason)) for name, reason in content.absent.items())
    return element("div", element("h3", "Not measured"), element("dl", *items), class_="absent")


def _published(given: PublishedTable, ours: set[str]) -> Markup:
    same = [name for name in given.comparable if name in ours]
    beside = f"The same as {' and '.join(same)} above." if same else "No table above uses it, so do not compare them."
    sized = any(line.parameters for line in given.rows)
    head = columns("Method") + columns(*(["Parameters"] if sized else []), *given.columns, number=True)
    rows = []
    for line in given.rows:
        told = [*([line.parameters] if sized else []), *(line.printed[name] for name in given.columns)]
        rows.append(row(line.method, *numbers(*(value or "–" for value in told))))
    about = (
        element("b", "Published, not measured here."),
        element("br"),
        f"Source: {given.source}",
        element("br"),
        f"Convention: {given.convention}. {beside}",
    )
    drawn = table(f"Published: {given.title}", head, rows)
    return element("div", element("h3", given.title), element("p", *about, class_="words"), drawn, class_="published")
