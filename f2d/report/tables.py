"""Parts of the page's tables."""

from collections.abc import Sequence

from f2d.metrics.measure import About
from f2d.report.markup import Markup, element
from f2d.report.numbers import best, printed


def table(title: str, columns: Sequence[Markup], rows: Sequence[Markup]) -> Markup:
    """Write a table in its box."""
    return boxed(title, element("table", element("thead", element("tr", *columns)), element("tbody", *rows)))


def boxed(title: str, table: Markup) -> Markup:
    """Put a table into a box that scrolls by itself and can be focused with the keyboard."""
    return element("div", table, class_="scroll", tabindex=0, role="region", aria_label=title)


def columns(*names: str, number: bool = False) -> list[Markup]:
    """Write the heads of columns, of numbers if `number`."""
    return [element("th", name, scope="col", class_="number" if number else None) for name in names]


def row(name: str | tuple[str, ...], *cells: Markup) -> Markup:
    """Write a row that `name` begins."""
    return element("tr", element("th", *((name,) if isinstance(name, str) else name), scope="row"), *cells)


def numbers(*texts: str) -> list[Markup]:
    """Write cells of numbers."""
    return [element("td", text, class_="number") for text in texts]


def key(kind: str) -> Markup:
    """Write the colour patch of a method."""
    return element("span", class_=f"key {kind}", aria_hidden="true")


def marked(values: Sequence[float | None], about: About) -> list[Markup]:
    """Write the cells of one measure; the best is bold, underlined and announced to screen readers."""
    first, said = best(values, about), element("span", " best", class_="said")
    texts = [printed(value, about) for value in values]
    return numbers(*(element("strong", text, said) if i in first else text for i, text in enumerate(texts)))
