"""Conversion between the planes of a video frame and RGB, for every range, matrix, depth and chroma subsampling.

    Y' = kr R + (1 - kr - kb) G + kb B,  Cb = (B - Y') / (2 (1 - kb)),  Cr = (R - Y') / (2 (1 - kr))

for R, G, B, Y' in [0, 1] and Cb, Cr in [-1/2, 1/2]. With n bits and s = 2^(n-8), the code values are 219 s Y' + 16 s
and 224 s C + 128 s in limited range, (2^n - 1) Y' and (2^n - 1) C + 2^(n-1) in full range. ITU-R BT.601, BT.709,
BT.2020.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# Numbers of ITU-T H.273, as streams carry them -> (kr, kb)
MATRICES = {
    1: (0.2126, 0.0722),  # BT.709
    4: (0.30, 0.11),  # FCC
    5: (0.299, 0.114),  # BT.601, 625 lines
    6: (0.299, 0.114),  # BT.601, 525 lines
    7: (0.212, 0.087),  # SMPTE 240M
    9: (0.2627, 0.0593),  # BT.2020, non-constant luminance
}
RGB, UNSPECIFIED = 0, 2


class Colour(NamedTuple):
    """The meaning of a frame's code values.

    matrix: (kr, kb), or None for planes G, B, R. full: full range. bits: 8 to 16. One plane means grey.
    """

    matrix: tuple[float, float] | None
    full: bool
    bits: int

    @property
    def scales(self) -> tuple[float, float, float, float]:
        """Code values of (Y' = 0, one unit of Y', C = 0, one unit of C)."""
        if self.full:
            top = 2**self.bits - 1
            return 0.0, top, 2 ** (self.bits - 1), top
        step = 2 ** (self.bits - 8)
        return 16 * step, 219 * step, 128 * step, 224 * step


def to_rgb(planes: list[Tensor], colour: Colour) -> Tensor:
    """Return RGB [1, 3, H, W] float32, about [0, 1] (code values outside the nominal range are not clamped).

    planes: code values as float32 [1, 1, h, w], luma first. Chroma is interpolated linearly; samples are co-sited with
    luma horizontally and lie between the rows vertically, as in H.264 unless a stream says otherwise.
    """
    black, unit, neutral, chroma_unit = colour.scales
    luma = (planes[0] - black) / unit
    if len(planes) == 1:
        return luma.expand(-1, 3, -1, -1)
    if colour.matrix is None:
        green, blue, red = ((plane - black) / unit for plane in planes)
        return torch.cat([red, green, blue], dim=1)
    kr, kb = colour.matrix
    height, width = luma.shape[2:]
    cb, cr = ((_upsampled(plane, height, width) - neutral) / chroma_unit for plane in planes[1:])
    red, blue = luma + 2 * (1 - kr) * cr, luma + 2 * (1 - kb) * cb
    return torch.cat([red, (luma - kr * red - kb * blue) / (1 - kr - kb), blue], dim=1)


def changed(planes: list[Tensor], change: Tensor, colour: Colour) -> list[Tensor]:
    """Return the planes after adding `change` [1, 3, H, W] to the RGB that `to_rgb` gives, rounded to code values.

    Adding the change, rather than converting the sum, loses nothing where nothing changed: chroma is not resampled
    twice, and code values outside the nominal range survive.
    """
    _, unit, _, chroma_unit = colour.scales
    red, green, blue = change.split(1, dim=1)
    if len(planes) == 1 or colour.matrix is None:
        grey = change.mean(dim=1, keepdim=True)
        changes = [grey * unit] if len(planes) == 1 else [part * unit for part in (green, blue, red)]
    else:
        kr, kb = colour.matrix
        luma = kr * red + (1 - kr - kb) * green + kb * blue
        chroma = [(blue - luma) / (2 * (1 - kb)), (red - luma) / (2 * (1 - kr))]
        size = planes[1].shape[2:]
        changes = [luma * unit, *(_downsampled(part, *size) * chroma_unit for part in chroma)]
    return [(plane + part).round_().clamp_(0, 2**colour.bits - 1) for plane, part in zip(planes, changes)]


def _upsampled(plane: Tensor, height: int, width: int) -> Tensor:
    """Interpolate chroma [1, 1, h, w] to [1, 1, height, width]."""
    h, w = plane.shape[2:]
    across, down = _factor(width, w), _factor(height, h)
    if across > 1:  # align_corners and one repeated column: sample i lies exactly on luma column i · across
        plane = F.interpolate(
            F.pad(plane, (0, 1, 0, 0), mode="replicate"), (h, w * across + 1), mode="bilinear", align_corners=True
        )[..., :width]
    if down > 1:
        plane = F.interpolate(plane, (h * down, width), mode="bilinear", align_corners=False)[..., :height, :]
    return plane


def _downsampled(part: Tensor, h: int, w: int) -> Tensor:
    """Filter and subsample [1, 1, H, W] to [1, 1, h, w] at the positions that `_upsampled` takes chroma to have."""
    across, down = _factor(part.shape[3], w), _factor(part.shape[2], h)
    part = F.pad(part, (0, w * across - part.shape[3], 0, h * down - part.shape[2]), mode="replicate")
    if across > 1:  # two box filters make the triangle of linear interpolation, centred on column i · across
        part = F.pad(part, (across - 1, across - 1, 0, 0), mode="replicate")
        part = F.avg_pool2d(F.avg_pool2d(part, (1, across), 1), (1, across), (1, across))
    return F.avg_pool2d(part, (down, 1)) if down > 1 else part


def _factor(large: int, small: int) -> int:
    return -(-large // small)
