"""The walk of kernels with noise: quads of four neighbouring columns, since one Philox call gives four numbers.

A program owns QUADS of them in one sample. Quads lie on the grid of the whole image; if a window's left edge or width
is not a multiple of 4, a mask cuts them.
"""

from collections.abc import Sequence
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from f2d_kernels.triton._launch import block_count, index_type, rounded
from f2d_kernels.triton.normal import normal_quads

QUADS = 256  # per program; a multiple of TILE / 4
TILE = 1024  # elements per partial sum, for the gradients that are sums
POSITION = ("stream", "top", "first_quad", "shift")  # not specialized, so that one kernel serves every step and tile


@triton.jit
def _spread(values):
    """Repeat [N] values, one per quad, as [4N] values, one per element."""
    return tl.interleave(tl.interleave(values, values), tl.interleave(values, values))


@triton.jit
def locate(size, shift, QUADS: tl.constexpr, DENSE: tl.constexpr, CHANNELS_LAST: tl.constexpr, INDEX: tl.constexpr):
    """Return (sample, tile, (c, y, quad of the row) [QUADS], (count in memory, c, y, column) and inside [4 · QUADS]).

    size = (channels, height, width, quads per row, elements in all quads of a sample).
    """
    channels, height, width, row_quads, elements = size
    tiles = block_count(elements, 4 * QUADS, INDEX)
    tile = (tl.program_id(0) % tiles).to(INDEX)
    n = tile * QUADS + tl.arange(0, QUADS)
    if CHANNELS_LAST:
        c, y, quad = n % channels, n // channels // row_quads, n // channels % row_quads
    else:
        c, y, quad = n // row_quads // height, n // row_quads % height, n % row_quads
    count = tile * (4 * QUADS) + tl.arange(0, 4 * QUADS)
    element = (count, count, count, count)
    inside = count < elements
    if not DENSE:
        column = _spread(quad * 4 - shift) + count % 4
        element = (count, _spread(c), _spread(y), column)
        inside = inside & (column >= 0) & (column < width)
    return (tl.program_id(0) // tiles).to(tl.int64), tile, (c, y, quad), element, inside


@triton.jit
def _addresses(pointer, stride, b, element, DENSE: tl.constexpr):
    """Return the addresses of a program's elements of sample b; equally dense tensors need only the count."""
    count, c, y, column = element
    if DENSE:
        offset = count.to(tl.int64)
    else:
        offset = c.to(tl.int64) * stride[1] + y.to(tl.int64) * stride[2] + column.to(tl.int64) * stride[3]
    return pointer + b * stride[0] + offset


@triton.jit
def load(pointer, stride, b, element, inside, DENSE: tl.constexpr, COMPUTE: tl.constexpr):
    return tl.load(_addresses(pointer, stride, b, element, DENSE), mask=inside, other=0.0).to(COMPUTE)


@triton.jit
def store(pointer, stride, b, element, inside, values, DENSE: tl.constexpr):
    tl.store(_addresses(pointer, stride, b, element, DENSE), rounded(values, pointer), mask=inside)


@triton.jit
def seeded_noise(seed, stream, top, first_quad, b, quad, PER_SAMPLE: tl.constexpr):
    """Draw eps [4 · QUADS] of the quads (c, y, quad of the row)."""
    c, y, column_quad = quad
    if PER_SAMPLE:
        return normal_quads(tl.load(seed + b), column_quad + first_quad, y + top, c, stream, b * 0)
    else:
        return normal_quads(tl.load(seed), column_quad + first_quad, y + top, c, stream, b)


@triton.jit
def per_sample(values, stride, b, SHAPE: tl.constexpr, COMPUTE: tl.constexpr):
    return tl.broadcast_to(tl.load(values + b * stride).to(COMPUTE), SHAPE)


def _channels_last(image: Tensor) -> bool:
    return image.stride(1) == 1 and image.shape[1] > 1


def _dense_alike(images: Sequence[Tensor]) -> bool:
    """Whether every image is dense in memory, all in the same order."""
    return all(t[0].is_contiguous() for t in images) or all(t[0].movedim(0, -1).is_contiguous() for t in images)


def quad_grid(
    every_image: Sequence[Tensor | None], seed: Tensor | None, left: int, compute: tl.dtype
) -> tuple[int, int, int, dict[str, Any]]:
    """Return (programs, partial sums per sample, shift, kernel arguments) for tensors [B,C,H,W]. None is ignored;
    the first tensor sets the order of the walk.

    Without a seed a dense sample is one long row. With a seed, quads must end where rows do.
    """
    images = [t for t in every_image if t is not None]
    seeded = seed is not None
    batch, channels, height, width = images[0].shape
    channels_last = _channels_last(images[0])
    shift = left % 4 if seeded else 0
    dense = _dense_alike(images)
    if seeded:
        dense = dense and not channels_last and shift == 0 and width % 4 == 0
    else:
        dense = dense and channels * height * width % 4 == 0
    row_quads = triton.cdiv(shift + width, 4)
    quads = channels * height * width // 4 if dense else channels * height * row_quads
    grid = {
        "size": (channels, height, width, row_quads, 4 * quads),
        "DENSE": dense,
        "CHANNELS_LAST": channels_last,
        "QUADS": QUADS,
        "num_warps": 4,
        "INDEX": index_type(4 * quads),
        "PER_SAMPLE": seed is not None and seed.numel() > 1,
        "COMPUTE": compute,
    }
    return batch * triton.cdiv(quads, QUADS), triton.cdiv(4 * quads, TILE), shift, grid
