"""Arrange images and maps in rows on one sheet, and save it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from f2d.replacing import replacing

CELL, BAR, TEXT = 2.2, 0.8, 0.22  # inches: width of an image and of the colour bar, height of a line of text
_UNDATED = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}

Cell = tuple[str, np.ndarray, str]  # title, image [H, W, 3] or map [H, W], caption


def grid(rows: Sequence[Sequence[Cell]], limits: tuple[float, float] = (0, 1), unit: str = "") -> Figure:
    """Arrange images and maps in rows, each with a caption below, and a title where it differs from the one above.

    Maps use the colours of inferno between `limits`, with one colour bar, labelled with `unit`, for all of them.
    """
    shape = rows[0][0][1].shape
    columns, height = max(map(len, rows)), CELL * shape[0] / shape[1]
    bar = BAR if any(values.ndim == 2 for row in rows for _, values, _ in row) else 0
    figure = Figure(figsize=(CELL * columns + bar, (height + TEXT) * len(rows) + TEXT), layout="constrained")
    engine = figure.get_layout_engine()
    assert isinstance(engine, ConstrainedLayoutEngine)
    engine.set(w_pad=0.03, h_pad=0.02, wspace=0, hspace=0)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    drawn = None
    for r, row in enumerate(rows):
        titles_above = [title for title, _, _ in rows[r - 1]] if r else []
        for c, (axis, (title, values, caption)) in enumerate(zip(axes[r], row)):
            if values.ndim == 2:
                drawn = axis.imshow(values, cmap="inferno", vmin=limits[0], vmax=limits[1])
            else:
                axis.imshow(values)
            if titles_above[c : c + 1] != [title]:
                axis.set_title(title, fontsize=9, parse_math=False)
            axis.set_xlabel(caption, fontsize=8, parse_math=False)  # names may hold dollars
        for axis in axes[r]:
            axis.set(xticks=[], yticks=[], frame_on=False)
    if drawn is not None:
        figure.colorbar(drawn, ax=axes, aspect=40, fraction=0.05, pad=0.01, label=unit)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a figure in the format of the suffix (png, pdf, svg); equal figures give byte-identical files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = path.suffix[1:]
    with replacing(path, alone=True) as part, rc_context({"svg.hashsalt": "f2d"}):
        figure.savefig(part, format=kind, dpi=160, metadata=_UNDATED.get(kind))
