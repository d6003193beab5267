"""Tables about the experts of the methods: their selectivity, and the localisation of their maps."""

from f2d.evaluation.map_rows import MAP_COLUMNS, MAPS, map_cells, map_notes
from f2d.report.gather import Content
from f2d.report.markup import Markup, element, together
from f2d.report.results import boxed, key


def selectivity(content: Content) -> Markup:
    """Write the table of selectivity ratios; empty if no method has factors."""
    names = list(dict.fromkeys(name for method in content.methods for name in method.summary.selectivity))
    if not names:
        return Markup()
    rows = []
    for k, method in enumerate(content.methods):
        ratios = [method.summary.selectivity.get(name) for name in names]
        cells = [
            element("td", "–" if ratio is None else f"{ratio.ratio:.1f} ({ratio.median:.1f})", class_="number")
            for ratio in ratios
        ]
        rows.append(element("tr", element("th", key(f"method-{k}"), method.name, scope="row"), *cells))
    head = element(
        "tr",
        element("th", "Method", scope="col"),
        *(element("th", name, scope="col") for name in names),
    )
    words = (
        "The ratios show how selectively the experts act; e is the mean of gate times map, α·m. present_absent: e of "
        "the present factors over e of the absent ones. inside_masks: the same over the pixels where a present factor "
        "acts. max_min: the largest e over the smallest. Each cell gives the ratio of the means over the set and, in "
        "brackets, the median over pictures. “Selectivity ratio” has no public definition."
    )
    table = element("table", element("thead", head), element("tbody", *rows))
    return together(element("h3", "Selectivity"), element("p", words, class_="words"), boxed("Selectivity", table))


def localisation(content: Content) -> Markup:
    """Write the table of map localisation by method and factor; empty if no method has maps and ground-truth masks."""
    rows, notes = [], []
    for k, method in enumerate(content.methods):
        for factor, found in method.summary.localisation.items():
            named = element("th", key(f"method-{k}"), method.name, scope="row")
            cells = [element("td", cell, class_="number") for cell in map_cells(found)]
            rows.append(element("tr", named, element("td", factor), *cells))
            notes += [f"{method.name}, {note}" for note in map_notes(factor, found)]
    if not rows:
        return Markup()
    head = [element("th", name, scope="col") for name in ("Method", "Factor")]
    head += [element("th", name, scope="col", class_="number") for name in MAP_COLUMNS]
    table = element("table", element("thead", element("tr", *head)), element("tbody", *rows))
    told = (element("p", note, class_="note") for note in notes)
    title = "Maps and ground-truth masks"
    return together(element("h3", title), element("p", MAPS, class_="words"), boxed(title, table), *told)
