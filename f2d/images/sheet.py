"""Draw figures with Pillow alone: images side by side, with coloured maps below them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

BACKGROUND, INK, FAINT = (18, 18, 22), (240, 240, 236), (160, 160, 168)
MARGIN, TITLE_HEIGHT, LABEL_HEIGHT = 16, 44, 30

# Dark to bright with rising lightness: black, purple, red, orange, pale yellow.
_RAMP = np.array(
    [(0, 0, 4), (58, 9, 99), (140, 32, 104), (212, 66, 66), (248, 142, 9), (252, 255, 164)], dtype=np.float64
)


class Panel(NamedTuple):
    """An image with one line of text below it."""

    image: Image.Image
    label: str


def colour_map(values: np.ndarray) -> Image.Image:
    """Map [H, W] in [0, 1] to RGB, black at 0 to pale yellow at 1, piecewise linearly between six colours."""
    stops = np.linspace(0, 1, len(_RAMP))
    channels = [np.interp(values, stops, _RAMP[:, c]) for c in range(3)]
    return Image.fromarray(np.stack(channels, axis=-1).round().astype(np.uint8))


def sheet(title: str, subtitle: str, rows: Sequence[Sequence[Panel]], width: int = 1440) -> Image.Image:
    """Draw one figure: title and subtitle on top, then rows of panels, each row filling the width.

    The images of a row are scaled to one size, with the first one's aspect ratio.
    """
    sizes = [_panel_size(row, width) for row in rows]
    height = TITLE_HEIGHT + MARGIN + sum(h + LABEL_HEIGHT + MARGIN for _, h in sizes)
    figure = Image.new("RGB", (width, height), BACKGROUND)
    draw = ImageDraw.Draw(figure)
    title_font, font = ImageFont.load_default(24), ImageFont.load_default(18)
    draw.text((MARGIN, MARGIN), title, INK, title_font)
    draw.text((MARGIN + draw.textlength(title, title_font) + MARGIN, MARGIN + 6), subtitle, FAINT, font)
    y = TITLE_HEIGHT + MARGIN
    for row, (panel_width, panel_height) in zip(rows, sizes):
        for i, panel in enumerate(row):
            x = MARGIN + i * (panel_width + MARGIN)
            figure.paste(panel.image.resize((panel_width, panel_height), Image.Resampling.LANCZOS), (x, y))
            draw.text((x, y + panel_height + 5), panel.label, INK, font)
        y += panel_height + LABEL_HEIGHT + MARGIN
    return figure


def _panel_size(row: Sequence[Panel], width: int) -> tuple[int, int]:
    panel_width = (width - MARGIN * (len(row) + 1)) // len(row)
    first = row[0].image
    return panel_width, max(1, round(panel_width * first.height / first.width))
