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
from f2d.report.numbers import best, heading, printed

INPUT = "Input"
TOLD = 200  # largest number of failures and problems that are listed


def methods_table(content: Content) -> Markup:
    """Write the table of methods: model, options, time and memory."""
    columns = ("Method", "Model", "Options", "Pictures", "Seconds per picture", "Peak memory")
    rows = []
    for k, method in enumerate(content.methods):
        settings, records = method.settings, method.records.values()
        model = settings.model or f"outputs in {settings.outputs}"
        digest = element("code", f"SHA-256 {settings.digest[:12]}…", class_="block") if settings.digest else ""
        options = ", ".join(f"{name} {value}" for name, value in settings.options.items() if value is not None)
        peak = max(record.peak_memory for record in records)
        cells = (
            element("th", key(f"method-{k}"), method.name, scope="row"),
            element("td", element("code", model), digest),
            element("td", options or "–"),
            element("td", f"{len(method.records)} of {len(content.data.cases)}", class_="number"),
            element("td", _seconds(fmean(record.seconds for record in records)), class_="number"),
            element("td", f"{peak / 2**20:,.0f} MiB" if peak else "–", class_="number"),
        )
        rows.append(element("tr", *cells))
    head = element("tr", *(element("th", name, scope="col") for name in columns))
    return boxed("Methods", element("table", element("thead", head), element("tbody", *rows)))


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
    return together(*(_published(table, ours) for table in content.published))


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


def boxed(name: str, table: Markup) -> Markup:
    """Put a table into a box that scrolls by itself and can be focused with the keyboard."""
    return element("div", table, class_="scroll", tabindex=0, role="region", aria_label=name)


def key(kind: str) -> Markup:
    """Write the colour patch of a method."""
    return element("span", class_=f"key {kind}", aria_hidden="true")


def marked(values: Sequence[float | None], about: About) -> list[Markup]:
    """Write the cells of one measure; the best is bold, underlined and announced to screen readers."""
    first = best(values, about)
    cells = []
    for i, value in enumerate(values):
        text = printed(value, about)
        said = element("span", " best", class_="said")
        inside = element("strong", text, said) if i in first else text
        cells.append(element("td", inside, class_="number"))
    return cells


def _table_of(content: Content, convention: Convention) -> Markup:
    columns = _columns(content)
    over = [
        element("th", "Category", scope="col", rowspan=2),
        element("th", "Pictures", scope="col", rowspan=2, class_="number"),
    ]
    over += [
        element("th", heading(about), scope="colgroup", colspan=len(columns), class_="group")
        for about in convention.measures
    ]
    names = [
        element("th", column.name, scope="col", class_="number") for _ in convention.measures for column in columns
    ]
    bodies: list[tuple[str, list[Markup]]] = []
    last = None
    for place in _places(content):
        kind, name = place
        cells = [element("th", name, scope="row"), element("td", _counts(content, place), class_="number")]
        for about in convention.measures:
            cells += marked([column.value(place, about) for column in columns], about)
        if kind != last:
            bodies.append((kind, []))
            last = kind
        bodies[-1][1].append(element("tr", *cells))
    table = element(
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
    return element("div", words, boxed(f"Results, {convention.name}", table), *notes, class_="convention")


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
    head = [element("th", name, scope="col") for name in ("Measure", *(method.name for method in content.methods))]
    rows = []
    for about in abouts:
        cells = marked([method.over_sets.get(about.key) for method in content.methods], about)
        rows.append(element("tr", element("th", heading(about), scope="row"), *cells))
    table = element("table", element("thead", element("tr", *head)), element("tbody", *rows))
    title = "Measures of all pictures together"
    return together(element("h3", title), boxed(title, table))


def _absent(content: Content) -> Markup:
    if not content.absent:
        return Markup()
    items = (together(element("dt", name), element("dd", reason)) for name, reason in content.absent.items())
    return element("div", element("h3", "Not measured"), element("dl", *items), class_="absent")


def _published(table: PublishedTable, ours: set[str]) -> Markup:
    same = [name for name in table.comparable if name in ours]
    beside = f"The same as {' and '.join(same)} above." if same else "No table above uses it, so do not compare them."
    sized = any(row.parameters for row in table.rows)
    names = (*(("Parameters",) if sized else ()), *table.columns)
    head = [element("th", "Method", scope="col"), *(element("th", n, scope="col", class_="number") for n in names)]
    rows = []
    for row in table.rows:
        told = (*((row.parameters,) if sized else ()), *(row.printed[name] for name in table.columns))
        cells = [element("td", value or "–", class_="number") for value in told]
        rows.append(element("tr", element("th", row.method, scope="row"), *cells))
    about = (
        element("b", "Published, not measured here."),
        element("br"),
        f"Source: {table.source}",
        element("br"),
        f"Convention: {table.convention}. {beside}",
    )
    drawn = element("table", element("thead", element("tr", *head)), element("tbody", *rows))
    title = element("h3", table.title)
    named = boxed(f"Published: {table.title}", drawn)
    return element("div", title, element("p", *about, class_="words"), named, class_="published")


def _seconds(value: float) -> str:
    return f"{value:.3g} s"
