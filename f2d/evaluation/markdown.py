"""Write Markdown tables, and format the numbers in them."""

import re
from collections.abc import Iterable, Sequence
from math import isinf, isnan

from f2d.metrics.measure import About

_SPECIAL = re.compile(r"[\\`*|<>\[\]#&~]|(?<![^\W_])_|_(?![^\W_])")  # an underscore inside a word is no emphasis


def number(value: float | None, digits: int, sign: str = "") -> str:
    """Format a number, such as ``28.47``; infinity becomes ∞, a missing value –. sign "+" always prints the sign."""
    if value is None or isnan(value):
        return "–"
    if isinf(value):
        return "∞" if value > 0 else "-∞"
    return f"{value:{sign}.{digits}f}"


def heading(about: About) -> str:
    """Return the heading of a column: ``PSNR RGB (dB)``."""
    return f"{about.title} ({about.unit})" if about.unit else about.title


def table(header: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """Write a table of arbitrary cells; the first `left` columns are text, the others numbers, aligned right."""
    rule = ["---" if column < left else "---:" for column in range(len(header))]
    return "\n".join(_line(cells) for cells in (header, rule, *rows)) + "\n"


def items(lines: Iterable[str]) -> str:
    """Write a list with one item per line, escaped."""
    return "".join(f"- {plain(line)}\n" for line in lines)


def plain(text: str) -> str:
    """Return the text on one line, with Markdown's special characters escaped."""
    return _SPECIAL.sub(r"\\\g<0>", " ".join(text.split()))


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell if set(cell) <= set('-:') else plain(cell) for cell in cells)} |"
