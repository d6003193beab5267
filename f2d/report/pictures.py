"""Images inside a page: WebP within a budget of characters, and maps in the colours of inferno."""

import base64
import io
from bisect import bisect_left
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from PIL import Image

# (long side in pixels, WebP quality), best first; the first that fits is used
PHOTOGRAPHS = (
    *((960, quality) for quality in (92, 86, 80, 72)),
    *((800, quality) for quality in (78, 70)),
    *((640, quality) for quality in (76, 66)),
    *((480, quality) for quality in (70, 56)),
    *((360, quality) for quality in (60, 40)),
    (240, 40),
)
MAPS = ((480, 84), (480, 72), (400, 66), (320, 60), (256, 50), (192, 40), (128, 30))
MAP_SIDE = MAPS[0][0]


class Inline(NamedTuple):
    """An image as text. url: ``data:image/webp;base64,...``; width, height: of the encoded image in pixels."""

    url: str
    width: int
    height: int


class Encoded(NamedTuple):
    """Images of one part of the page, encoded with one quality; images of one size stay of one size."""

    quality: int
    pictures: tuple[Inline, ...]

    @property
    def characters(self) -> int:
        """The number of characters that the images take in the page."""
        return sum(len(picture.url) for picture in self.pictures)


def encode_within(pictures: Sequence[Image.Image], budget: float, ladder: Sequence[tuple[int, int]]) -> Encoded:
    """Encode `pictures` with the best (long side, quality) of `ladder` at which all take at most `budget` characters.

    All use the same entry, so that they can be compared. The last entry is used even if it does not fit.
    """
    tried: dict[int, Encoded] = {}

    def fits(i: int) -> bool:
        tried[i] = _encode(pictures, *ladder[i])
        return tried[i].characters <= budget

    i = bisect_left(range(len(ladder) - 1), True, key=fits)
    return tried[i] if i in tried else _encode(pictures, *ladder[i])


def shrunk(values: np.ndarray, side: int = MAP_SIDE) -> np.ndarray:
    """Downscale [H, W] by area averages to float16 [h, w] with a long side of at most `side`."""
    size = _fitted(values.shape[1], values.shape[0], side)
    picture = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    return np.asarray(picture.resize(size, Image.Resampling.BOX)).astype(np.float16)


def inferno(values: np.ndarray) -> Image.Image:
    """Colour [H, W] with matplotlib's inferno, from black at 0 to pale yellow at 1; other values are clamped."""
    levels = (values.astype(np.float32).clip(0, 1) * 255).round().astype(np.uint8)
    return Image.fromarray(colours()[levels])


@cache
def colours() -> np.ndarray:
    """Return inferno's colour table, [256, 3] uint8.

    Raises ValueError, with the command to run, if matplotlib is missing.
    """
    try:
        from matplotlib import colormaps
    except ImportError:
        raise ValueError(
            'maps are drawn with the colours of matplotlib, which is not installed: pip install "f2d[eval]"'
        ) from None
    return (colormaps["inferno"](np.arange(256))[:, :3] * 255).round().astype(np.uint8)


def scale_of(maps: Sequence[np.ndarray], steps: Sequence[int]) -> int:
    """Return the first of `steps` that at most 1 % of all values exceed, otherwise the last."""
    if not maps:
        return steps[0]
    values = np.concatenate([values.ravel() for values in maps])
    return next((step for step in steps if (values > step).mean() <= 0.01), steps[-1])


def _encode(pictures: Sequence[Image.Image], side: int, quality: int) -> Encoded:
    inline = []
    for picture in pictures:
        size = _fitted(*picture.size, side)
        if picture.size != size:
            picture = picture.resize(size, Image.Resampling.LANCZOS)
        file = io.BytesIO()
        picture.save(file, "WEBP", quality=quality, method=4)
        inline.append(Inline(f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}", *size))
    return Encoded(quality, tuple(inline))


def _fitted(width: int, height: int, side: int) -> tuple[int, int]:
    scale = min(1, side / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))
