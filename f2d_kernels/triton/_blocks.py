"""Shared by kernels whose programs own a block of channels and pixels: the block, and the addresses of its planes and
images, whose strides are (batch, channel or expert, row, column)."""

import triton
import triton.language as tl

from f2d_kernels.triton._launch import block_count, pixel_offsets


@triton.jit
def block_of(channels, pixels, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr, INDEX: tl.constexpr):
    """Return (sample, channels, pixels, mask) of this program."""
    tiles, chunks = block_count(pixels, BLOCK_P, INDEX), block_count(channels, BLOCK_C, INDEX)
    program = tl.program_id(0)
    b = (program // (tiles * chunks)).to(tl.int64)
    c = (program // tiles) % chunks * BLOCK_C + tl.arange(0, BLOCK_C)
    p = (program % tiles).to(INDEX) * BLOCK_P + tl.arange(0, BLOCK_P)
    return b, c, p, (c < channels)[:, None] & (p < pixels)[None, :]


@triton.jit
def plane_of(pointer, stride, b, k):
    """Return the address of channel or expert k of sample b, in 64 bits, as k image sizes can exceed 2^31."""
    return pointer + b * stride[0] + tl.cast(k, tl.int64) * stride[1]


@triton.jit
def pixels_of(pointer, stride, b, k, p, width, inside, FLAT: tl.constexpr, COMPUTE: tl.constexpr):
    """Load plane k of sample b [BLOCK_P] at pixels p."""
    place = plane_of(pointer, stride, b, k) + pixel_offsets(p, width, stride, FLAT)
    return tl.load(place, mask=inside, other=0.0).to(COMPUTE)


@triton.jit
def addresses(pointer, stride, b, c, p, width, FLAT: tl.constexpr):
    """Return the addresses [BLOCK_C, BLOCK_P] of channels c and pixels p of image b."""
    channel = pointer + b * stride[0] + c.to(tl.int64) * stride[1]
    return channel[:, None] + pixel_offsets(p, width, stride, FLAT)[None, :]


@triton.jit
def read(pointer, stride, b, c, p, width, inside, FLAT: tl.constexpr, COMPUTE: tl.constexpr):
    """Load channels c of image b [BLOCK_C, BLOCK_P] at pixels p."""
    return tl.load(addresses(pointer, stride, b, c, p, width, FLAT), mask=inside, other=0.0).to(COMPUTE)
