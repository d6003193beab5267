"""Tables about the experts of the methods: their selectivity, and the localisation of their maps."""

from f2d.evaluation.map_rows import MAP_COLUMNS, MAPS, map_cells, map_notes
from f2d.report.gather import Content
from f2d.report.markup import Markup, element, together
from f2d.report.tables import columns, key, numbers, row, table


def selectivity(content: Content) -> Markup:
    """Write the table of selectivity ratios; empty if no method has factors."""
    names = list(dict.fromkeys(name for method in content.methods for name in method.summary.selectivity))
    if not names:
        return Markup()
    rows = []
    for k, method in enumerate(content.methods):
        ratios = [method.summary.selectivity.get(name) for name in names]
        told = ("–" if ratio is None else f"{ratio.ratio:.1f} ({ratio.median:.1f})" for ratio in ratios)
        rows.append(row((key(f"method-{k}"), method.name), *numbers(*told)))
    words = (
        "The ratios show how selectively the experts act; e is the mean of gate times map, α·m. present_absent: e of "
        "the present factors over e of the absent ones. inside_masks: the same over the pixels where a present factor "
        "acts. max_min: the largest e over the smallest. Each cell gives the ratio of the means over the set and, in "
        "brackets, the median over pictures. “Selectivity ratio” has no public definition."
    )
    drawn = table("Selectivity", columns("Method", *names), rows)
    return together(element("h3", "Selectivity"), element("p", words, class_="words"), drawn)


def localisation(content: Content) -> Markup:
    """Write the table of map localisation by method and factor; empty if no method has maps and ground-truth masks."""
    rows, notes = [], []
    for k, method in enumerate(content.methods):
        for factor, found in method.summary.localisation.items():
            cells = (element("td", factor), *numbers(*map_cells(found)))
            rows.append(row((key(f"method-{k}"), method.name), *cells))
            notes += [f"{method.name}, {note}" for note in map_notes(factor, found)]
    if not rows:
        return Markup()
    title, head = "Maps and ground-truth masks", columns("Method", "Factor") + columns(*MAP_COLUMNS, number=True)
    told = (element("p", note, class_="note") for note in notes)
    return together(element("h3", title), element("p", MAPS, class_="words"), table(title, head, rows), *told)
