"""Layers over bands of rows; each reads the rows it needs above and below, so a band equals those rows of the whole."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from f2d.engine.layers import Conv, spatial_mean

from .stored import Field, Rows, Scratch, View


class Bands:
    """Cuts feature maps into bands of about `positions` positions (an even number of rows) and stores the results."""

    def __init__(self, scratch: Scratch, positions: int):
        self.scratch, self.positions = scratch, positions

    def of(self, height: int, width: int) -> Iterator[tuple[int, int]]:
        """Yield (top, bottom) of each band, from the first row to the last."""
        rows = max(2, self.positions // width // 2 * 2)
        return ((top, min(top + rows, height)) for top in range(0, height, rows))

    def keep(self, height: int, width: int, rows: Callable[[int, int], Tensor]) -> Field:
        """Store the results [1, C, bottom - top, width] of `rows(top, bottom)` as a field."""
        field = self.scratch.field(height, width)
        for top, bottom in self.of(height, width):
            field.append(rows(top, bottom))
        return field

    def convolve(self, conv: Conv, x: Rows, change: Callable[[Tensor], Tensor] = lambda rows: rows) -> Field:
        """Store ``change(conv(x))`` as a field; conv may double the rows."""
        stride = _vertical(conv, "stride", 1)
        height, width = (length * 2 if conv.doubles else length // stride for length in (x.height, x.width))
        return self.keep(height, width, lambda top, bottom: change(conv_rows(conv, x, top, bottom)))

    def mean(self, x: Rows, rows: Callable[[int, int], Tensor] | None = None) -> Tensor:
        """Return the mean [1, C] over all pixels of x, or of `rows(top, bottom)` of x's size."""
        rows = rows or x.read
        total: Any = sum(
            spatial_mean(rows(top, bottom)).double() * (bottom - top) for top, bottom in self.of(x.height, x.width)
        )
        return total / x.height


def conv_rows(conv: Conv, x: Rows, top: int, bottom: int) -> Tensor:
    """Compute rows top..bottom of ``conv(x)`` (even if it doubles them), zero-padded at the image's borders only."""
    if conv.doubles:  # a convolution with four times the channels, each of whose rows becomes two
        top, bottom = top // 2, bottom // 2
    stride, padding, dilation = (_vertical(conv, name, default) for name, default in _GEOMETRY.items())
    first = top * stride - padding
    last = (bottom - 1) * stride - padding + dilation * (conv.weight.shape[2] - 1) + 1
    band = x.read(max(first, 0), min(last, x.height))
    if not padding:
        return conv(band)
    above, below = max(-first, 0), max(last - x.height, 0)
    if above or below:
        band = F.pad(band, (0, 0, above, below))
    geometry = conv.geometry | {"padding": (0, padding)}
    return conv.finished(F.conv2d(band.to(conv.weight.dtype), conv.weight, conv.bias, **geometry))


_GEOMETRY = {"stride": 1, "padding": 0, "dilation": 1}


def _vertical(conv: Conv, name: str, default: int) -> int:
    value = conv.geometry.get(name, default)
    return value if isinstance(value, int) else value[0]


def doubled(rows: Rows) -> View:
    """Return the rows of ``interpolate(x, scale 2, bilinear)``."""

    def read(top: int, bottom: int) -> Tensor:
        # A row of the result lies between two rows; at the ends of the rows read there is only one, as at the borders
        first, last = max((top - 1) // 2, 0), min(bottom // 2 + 1, rows.height)
        large = F.interpolate(rows.read(first, last), scale_factor=2, mode="bilinear")
        return large[:, :, top - 2 * first : bottom - 2 * first]

    return View(2 * rows.height, 2 * rows.width, read)


def unshuffled(image: Rows, patch: int) -> View:
    """Return the rows of ``pixel_unshuffle(image, patch)``."""

    def read(top: int, bottom: int) -> Tensor:
        return F.pixel_unshuffle(image.read(top * patch, bottom * patch), patch)

    return View(image.height // patch, image.width // patch, read)


def padded(image: Rows, multiple: int) -> View:
    """Return the rows of ``pad_to_multiple(image, multiple)``."""
    own, width = image.height, image.width
    below, right = -own % multiple, -width % multiple

    def read(top: int, bottom: int) -> Tensor:
        # rows below the image mirror its last ones, or repeat the last one if there are too few
        places = [row if row < own else 2 * own - 2 - row if below < own else own - 1 for row in range(top, bottom)]
        first = min(places)
        rows = image.read(first, max(places) + 1)
        if bottom > own:
            rows = rows[:, :, [place - first for place in places]]
        if right:
            rows = F.pad(rows, (0, right, 0, 0), mode="reflect" if right < width else "replicate")
        return rows.contiguous(memory_format=torch.channels_last)

    return View(own + below, width + right, read)
