"""Pictures as text in a page: WebP within a budget of bytes, and maps in the colours of inferno."""

import base64
import io
from bisect import bisect_left
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from PIL import Image

# (long side in pixels, quality of WebP) from the best to the least; the first that fits is taken
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
    """A picture as text. url: ``data:image/webp;base64,...``; width, height: pixels of what it holds."""

    url: str
    width: int
    height: int


class Encoded(NamedTuple):
    """Pictures of one place in the page, all of one quality and, if they were of one size, of one size."""

    quality: int
    pictures: tuple[Inline, ...]

    @property
    def characters(self) -> int:
        """The number of characters that the images take in the page."""
        return sum(len(picture.url) for picture in self.pictures)


def encode_within(pictures: Sequence[Image.Image], budget: float, ladder: Sequence[tuple[int, int]]) -> Encoded:
    """The best (long side, quality) of `ladder` at which all `pictures` together take `budget` characters or less.

    All get the same, as they are to be compared. Where even the last does not fit it is taken all the same.
    """
    tried: dict[int, Encoded] = {}

    def fits(i: int) -> bool:
        tried[i] = _encode(pictures, *ladder[i])
        return tried[i].characters <= budget

    i = bisect_left(range(len(ladder) - 1), True, key=fits)
    return tried[i] if i in tried else _encode(pictures, *ladder[i])


def shrunk(values: np.ndarray, side: int = MAP_SIDE) -> np.ndarray:
    """[H, W] -> float16 [h, w], the long side at most `side`: means over areas."""
    size = _fitted(values.shape[1], values.shape[0], side)
    picture = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    return np.asarray(picture.resize(size, Image.Resampling.BOX)).astype(np.float16)


def inferno(values: np.ndarray) -> Image.Image:
    """[H, W] in [0, 1] -> RGB in matplotlib's inferno, black at 0 to pale yellow at 1; values beyond are clamped."""
    levels = (values.astype(np.float32).clip(0, 1) * 255).round().astype(np.uint8)
    return Image.fromarray(colours()[levels])


@cache
def colours() -> np.ndarray:
    """[256, 3] uint8: the table of inferno. ValueError without matplotlib, saying how to get it."""
    try:
        from matplotlib import colormaps
    except ImportError:
        raise ValueError(
            'maps are drawn with the colours of matplotlib, which is not installed: pip install "f2d[eval]"'
        ) from None
    return (colormaps["inferno"](np.arange(256))[:, :3] * 255).round().astype(np.uint8)


def scale_of(maps: Sequence[np.ndarray], steps: Sequence[int]) -> int:
    """The first of `steps` that at most 1 in 100 of all values are above; the last where none is."""
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
