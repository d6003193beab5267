"""Shared by group_norm_silu's forward and backward Triton kernels: silu, the affine function ("line") that normalises
and modulates a channel, and the walk over an image.

The arithmetic per element is that of csrc/group_norm_silu.h, operation by operation.
"""

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from f2d_kernels.triton._launch import flat_pixels, index_type, strides
from f2d_kernels.triton.exponential import exponential

TILE = 128  # pixels per partial sum; every block is a multiple of it


@triton.jit
def _decay(u):
    """exp(-|u|), or 0 where it would not be a normal number."""
    size = tl.where(u < 0.0, -u, u)
    limit: tl.constexpr = 700.0 if u.dtype == tl.float64 else 87.0
    return tl.where(size > limit, 0.0, exponential(-size)[0])


@triton.jit
def divide(a, b):
    if a.dtype == tl.float64:
        return a / b
    else:
        return tl.div_rn(a, b)


@triton.jit
def silu(u):
    t = _decay(u)
    return divide(tl.where(u < 0.0, u * t, u), 1.0 + t)


@triton.jit
def silu_gradient(grad, u):
    t = _decay(u)
    inverse = divide(tl.full(t.shape, 1.0, t.dtype), 1.0 + t)
    other = t * inverse
    q = tl.where(u < 0.0, other, inverse)
    return grad * tl.fma(u * q, tl.where(u < 0.0, inverse, other), q)


@triton.jit
def _parameter(pointer, offset, inside, OTHERWISE: tl.constexpr):
    """Load a parameter as float64 [BLOCK_C], or OTHERWISE if it is absent."""
    if pointer is None:
        return tl.full(inside.shape, OTHERWISE, tl.float64)
    else:
        return tl.load(pointer + offset, mask=inside, other=OTHERWISE).to(tl.float64)


@triton.jit
def line_of(mean, rstd, parameters, parameter_strides, b, c, inside, COMPUTE: tl.constexpr):
    """Return (centre, gain, offset) [BLOCK_C, 1] of u = (x - centre) · gain + offset; mean and rstd are [BLOCK_C]."""
    weight, bias, scale, shift = parameters
    channel = c.to(tl.int64)
    factor = 1.0 + _parameter(scale, b * parameter_strides[2] + channel * parameter_strides[3], inside, 0.0)
    gain = rstd * _parameter(weight, channel * parameter_strides[0], inside, 1.0) * factor
    centre = mean.to(COMPUTE)
    offset = _parameter(bias, channel * parameter_strides[1], inside, 0.0) * factor
    offset += _parameter(shift, b * parameter_strides[4] + channel * parameter_strides[5], inside, 0.0)
    offset -= (mean - centre.to(tl.float64)) * gain
    return centre[:, None], gain.to(COMPUTE)[:, None], offset.to(COMPUTE)[:, None]


@triton.jit
def group_values(values, b, c, inside, groups, group_channels):
    """Load values[b, group of c] [BLOCK_C] from a contiguous float64 [B,G]."""
    return tl.load(values + b * groups + c // group_channels, mask=inside, other=0.0)


@triton.jit
def apply_line(x, line):
    centre, gain, offset = line
    return tl.fma(x - centre, tl.broadcast_to(gain, x.shape), tl.broadcast_to(offset, x.shape))


@triton.jit
def store_tiles(pointer, sums, b, c, p, channels, tiles, TILE: tl.constexpr):
    """pointer[b, c, tile] = sums [BLOCK_C, tiles of the block]."""
    T: tl.constexpr = sums.shape[1]
    t = tl.min(p, axis=0) // TILE + tl.arange(0, T)
    place = pointer + ((b * channels + c) * tiles)[:, None] + t[None, :]
    tl.store(place, sums, mask=(c < channels)[:, None] & (t < tiles)[None, :])


def block_sizes(image: Tensor) -> dict[str, int]:
    """Return channels and pixels per program and its warps, for 16-byte accesses along the contiguous axis."""
    channels = image.shape[1]
    if image.stride(1) == 1 and channels > 1:
        return {"BLOCK_C": min(triton.next_power_of_2(channels), 16), "BLOCK_P": TILE, "num_warps": 4}
    return {"BLOCK_C": 1, "BLOCK_P": 8 * TILE, "num_warps": 4}


def parameter_strides_of(
    weight: Tensor | None, bias: Tensor | None, scale: Tensor | None, shift: Tensor | None
) -> tuple:
    ones = (0 if t is None else t.stride(0) for t in (weight, bias))
    pairs = ((0, 0) if t is None else t.stride() for t in (scale, shift))
    return (*ones, *(stride for pair in pairs for stride in pair))


def grid_of(walked: Tensor, images: tuple[Tensor, ...], compute: tl.dtype) -> tuple[int, dict[str, Any]]:
    """Return (programs, kernel arguments) of a walk over blocks of `walked`."""
    batch, channels, height, width = walked.shape
    blocks = block_sizes(walked)
    programs = batch * triton.cdiv(channels, blocks["BLOCK_C"]) * triton.cdiv(height * width, blocks["BLOCK_P"])
    constants = {
        "FLAT": flat_pixels(width, [strides(t) for t in images]),
        "INDEX": index_type(height * width, channels),
        "COMPUTE": compute,
    }
    return programs, {**constants, **blocks}
