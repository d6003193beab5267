"""Charts as inline SVG: bars of a measure by category, and gates over time."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from f2d.metrics.measure import About
from f2d.report.gather import Content
from f2d.report.numbers import heading, printed

WIDTH, LABELS, NUMBERS = 380, 112, 52
BAR, GAP, ROW_GAP = 11, 2, 10
PLOT = (34, 12, 262, 132)  # left, top, right, bottom of the gates' axes
DASHES = ("none", "6 3", "2 3", "8 3 2 3", "4 4", "1 4", "10 4")


class Series(NamedTuple):
    """The values of one method, one per row. kind: the class that colours it: "input", or "method-0" to "method-5"."""

    name: str
    kind: str
    values: Sequence[float | None]


def bars_of(content: Content, about: About) -> Markup:
    """Draw the bars of a measure by category and over all."""
    rows = [(kind, name) for kind, names in content.places.items() if kind != "tier" for name in names]
    series = [Series(c.name, c.kind, [c.value(*row, about) for row in rows]) for c in content.columns]
    return bars(about, [name for _, name in rows], series)


def bars(about: About, rows: Sequence[str], series: Sequence[Series]) -> Markup:
    """Draw horizontal bars from 0, one per series in each row, each with its value at its end."""
    finite = [v for one in series for v in one.values if v is not None and math.isfinite(v)]
    most = max([*finite, 1e-9])
    room = WIDTH - LABELS - NUMBERS
    thick = BAR if len(series) < 4 else BAR - 2
    step = len(series) * (thick + GAP) + ROW_GAP
    drawn = [_line(LABELS, 0, LABELS, len(rows) * step, "axis")]
    for r, row in enumerate(rows):
        y = r * step + ROW_GAP / 2
        name = row if len(row) <= 17 else f"{row[:16]}…"
        drawn.append(_text(LABELS - 8, y + (step - ROW_GAP) / 2 + 3.5, name, "end"))
        for s, one in enumerate(series):
            value, top = one.values[r], y + s * (thick + GAP)
            length = room * min(1, max(0, value) / most) if value is not None and not math.isnan(value) else 0
            bar = Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}" rx="1.5"></rect>')
            drawn.append(bar.format(one.kind, LABELS, _n(top), _n(length), thick))
            drawn.append(_text(LABELS + length + 5, top + thick - 1.8, printed(value, about), "start", "number"))
    names = ", ".join(one.name for one in series)
    spoken = f"Bar chart of {heading(about)} by category for {names}; the numbers are in the table above."
    return _svg(WIDTH, len(rows) * step, spoken, *drawn)


def gates_over_time(factors: Sequence[str], times: Sequence[float], paths: np.ndarray) -> Markup:
    """Draw the gates alpha_k(t), paths [n, K] at times in [0, 1), each with its colour, dashes and name."""
    left, top, right, bottom = PLOT

    def x(t: float) -> float:
        return left + (right - left) * t

    def y(gate: float) -> float:
        return bottom - (bottom - top) * gate

    drawn = []
    for tick in (0, 0.5, 1):
        drawn += [
            _line(left, y(tick), right, y(tick), "grid"),
            _text(left - 6, y(tick) + 3.5, f"{tick:g}", "end"),
            _text(x(tick), bottom + 15, f"{tick:g}", "middle"),
        ]
    drawn.append(_text((left + right) / 2, bottom + 29, "t / T", "middle"))
    ends = _apart([y(gate) for gate in paths[-1]], 13, top, bottom)
    for k, factor in enumerate(factors):
        points = " ".join(f"{_n(x(t))},{_n(y(gate))}" for t, gate in zip(times, paths[:, k]))
        kind, dash = f"line factor-{k % 7}", DASHES[k % 7]
        line = Markup('<polyline class="{}" points="{}" stroke-dasharray="{}"></polyline>')
        drawn.append(line.format(kind, points, dash))
        drawn.append(_text(right + 6, ends[k] + 3.5, factor, "start", f"factor-{k % 7}"))
        drawn.append(_line(x(times[-1]), y(paths[-1, k]), right + 4, ends[k], "leader"))
    courses = [f"{factor} {first:.2f} to {last:.2f}" for factor, first, last in zip(factors, paths[0], paths[-1])]
    return _svg(320, bottom + 34, f"Gates over time, from t = 0 to t = {times[-1]:g} T: {'; '.join(courses)}.", *drawn)


def _apart(places: Sequence[float], least: float, top: float, bottom: float) -> list[float]:
    """Move places down, then up, keeping their order, until no two are closer than `least`."""
    order = sorted(range(len(places)), key=lambda k: places[k])
    found, above = list(places), top - least
    for k in order:
        found[k] = above = max(places[k], above + least)
    below = max(bottom, top + least * (len(places) - 1)) + least
    for k in reversed(order):
        found[k] = below = min(found[k], below - least)
    return found


def _svg(width: float, height: float, spoken: str, *inside: Markup) -> Markup:
    opening = Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">')
    return opening.format(_n(width), _n(height), spoken) + Markup("").join(inside) + Markup("</svg>")


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    line = Markup('<line class="{}" x1="{}" y1="{}" x2="{}" y2="{}"></line>')
    return line.format(kind, *map(_n, (x1, y1, x2, y2)))


def _text(x: float, y: float, text: str, anchor: str, kind: str = "") -> Markup:
    return Markup('<text class="{}" x="{}" y="{}" text-anchor="{}">{}</text>').format(kind, _n(x), _n(y), anchor, text)


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
