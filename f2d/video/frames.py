"""Frames of a video as planes of code values, and back."""

import math
import struct
from typing import Any, NamedTuple

import av
import numpy as np
import torch
from torch import Tensor

from .colour import MATRICES, RGB, UNSPECIFIED, Colour
from .names import VideoError

_LIMITED, _FULL = 1, 2  # AVColorRange
_SUBSAMPLING = {(1, 1): "444", (2, 1): "422", (2, 2): "420", (1, 2): "440", (4, 1): "411", (4, 4): "410"}


class Layout(NamedTuple):
    """How frames are stored: the planar pixel format, its colour, and what puts a frame upright: first mirrored from
    left to right if `mirrored`, then turned counterclockwise by `turns` quarters."""

    pixel_format: str
    colour: Colour
    turns: int
    mirrored: bool

    def upright(self, image: Tensor) -> Tensor:
        """Return a stored image [..., H, W] as it is shown."""
        return torch.rot90(image.flip(-1) if self.mirrored else image, self.turns, dims=(-2, -1))

    def stored(self, image: Tensor) -> Tensor:
        """The inverse of `upright`."""
        turned = torch.rot90(image, -self.turns, dims=(-2, -1))
        return turned.flip(-1) if self.mirrored else turned


def layout_of(frame: av.VideoFrame) -> Layout:
    """Return the layout of a decoded frame; raise VideoError for one that is not supported.

    Without a matrix in the stream, frames of at least 1280 columns or over 576 rows are read as BT.709 and others as
    BT.601, as players do; without a range, YUV and grey are read as limited, and RGB as full.
    """
    form = frame.format
    planar = _planar(form.name)
    if planar == "gray" or form.is_rgb:
        matrix = None
    elif frame.colorspace in (UNSPECIFIED, RGB):
        matrix = MATRICES[1 if frame.width >= 1280 or frame.height > 576 else 6]
    elif frame.colorspace in MATRICES:
        matrix = MATRICES[frame.colorspace]
    else:
        raise VideoError(
            f"colour matrix {int(frame.colorspace)} (ITU-T H.273) must be one of {', '.join(map(str, MATRICES))}"
        )
    full = range_tag(frame) == _FULL or (form.is_rgb and range_tag(frame) != _LIMITED)
    return Layout(planar, Colour(matrix, full, form.components[0].bits), *_orientation(display_matrix(frame)))


def display_matrix(frame: av.VideoFrame) -> bytes | None:
    """Return the matrix that tells players how to turn a frame: nine 32-bit integers a, b, u, c, d, v, x, y, w."""
    return next((bytes(data) for data in frame.side_data if data.type.name == "DISPLAYMATRIX"), None)


def _orientation(matrix: bytes | None) -> tuple[int, bool]:
    """Return the quarter turns and whether to mirror first: (x, y) is shown at (a x + c y, b x + d y), y downwards."""
    if matrix is None:
        return 0, False
    a, b, _, c, d = struct.unpack("=5i", matrix[:20])
    mirrored = a * d < b * c
    if mirrored:
        a, b = -a, -b
    return round(-math.atan2(b, a) / (math.pi / 2)) % 4, mirrored


def planes_of(frame: av.VideoFrame, layout: Layout) -> list[Tensor]:
    """Return the code values of a frame, [1, 1, h, w] float32 each."""
    if frame.format.name != layout.pixel_format and not frame.format.name.startswith("yuvj"):
        frame = frame.reformat(format=layout.pixel_format)  # between packed and planar, without changing a value
    return [torch.from_numpy(_view(plane, layout).astype(np.float32))[None, None] for plane in frame.planes]


def frame_of(planes: list[Tensor], layout: Layout, like: av.VideoFrame) -> av.VideoFrame:
    """Return a frame of code values with the time stamp and the colour tags of `like`."""
    frame = av.VideoFrame(like.width, like.height, layout.pixel_format)
    for plane, values in zip(frame.planes, planes):
        view = _view(plane, layout)
        view[...] = values[0, 0].cpu().numpy().astype(view.dtype)
    frame.pts, frame.time_base = like.pts, like.time_base
    frame.color_range, frame.colorspace = range_tag(like), like.colorspace
    frame.color_trc, frame.color_primaries = like.color_trc, like.color_primaries
    return frame


def range_tag(frame: av.VideoFrame) -> int:
    """Return the tag of the colour range, which the pixel formats yuvj420p, ... imply."""
    return _FULL if frame.format.name.startswith("yuvj") else int(frame.color_range)


def _view(plane: Any, layout: Layout) -> np.ndarray:
    """Return the code values [h, w] of a plane without the padding of its lines; writable if the plane is."""
    values = np.frombuffer(plane, np.uint8 if layout.colour.bits == 8 else np.dtype("<u2"))
    return values.reshape(plane.height, -1)[:, : plane.width]


def _planar(name: str) -> str:
    """Return the planar pixel format with the components, depth and subsampling of the format `name`."""
    form = av.VideoFormat(name, 64, 64)
    parts = form.components
    if any(part.is_alpha for part in parts):
        raise VideoError(f"transparency ({name}) is not supported, so convert the video to a format without alpha")
    unknown = form.has_palette or form.is_bayer or name.startswith("xyz")
    if unknown or form.is_bit_stream or not 8 <= parts[0].bits <= 16:
        raise VideoError(f"pixel format {name} is not supported")
    depth = f"{parts[0].bits}le" if parts[0].bits > 8 else ""
    if len(parts) == 1:
        return f"gray{depth}"
    if form.is_rgb:
        return f"gbrp{depth}"
    return f"yuv{_SUBSAMPLING[64 // parts[1].width, 64 // parts[1].height]}p{depth}"
