"""Shared by transport_step's forward and backward Triton kernels: a program's pixels, the sum before the clamp, and the
launch.

One program owns a block of channels × pixels. The pixels come in quads, since one Philox call gives the noise of four.
The arithmetic is that of the two separate ops, operation by operation, and rounds what they would store.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from f2d_kernels.arguments import TransportStep
from f2d_kernels.triton import expert_assembly
from f2d_kernels.triton._blocks import plane_of
from f2d_kernels.triton._groups import GROUP
from f2d_kernels.triton._launch import as_type, block_count, flat_pixels, index_type, rounded
from f2d_kernels.triton._quads import seeded_noise
from f2d_kernels.triton.expert_assembly import gate_of

TILE = 128  # pixels per partial sum; every block is a multiple of it
TYPES = {torch.float32: tl.float32, torch.float64: tl.float64, torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}


@triton.jit
def locate(size, shift, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr, FLAT: tl.constexpr, INDEX: tl.constexpr):
    """Return (b, tile, c [BLOCK_C], (y, quad of the row) [BLOCK_P / 4], (y, column) [BLOCK_P], mask of the pixels).

    size = (channels, width, quads per row, quads, chunks of channels). FLAT: column counts all pixels of the image.
    """
    _, width, row_quads, quads, chunks = size
    tiles = block_count(quads, BLOCK_P // 4, INDEX)
    program = tl.program_id(0)
    tile = (program % tiles).to(INDEX)
    c = (program // tiles) % chunks * BLOCK_C + tl.arange(0, BLOCK_C)
    n = tile * (BLOCK_P // 4) + tl.arange(0, BLOCK_P // 4)
    column = tile * BLOCK_P + tl.arange(0, BLOCK_P)
    if FLAT:
        place = (column, column)
        on_image = column < width
    else:
        element_quad = column // 4
        place = (element_quad // row_quads, element_quad % row_quads * 4 + column % 4 - shift)
        on_image = (element_quad < quads) & (place[1] >= 0) & (place[1] < width)
    return (program // (tiles * chunks)).to(tl.int64), tile, c, (n // row_quads, n % row_quads), place, on_image


@triton.jit
def _offsets(stride, place, FLAT: tl.constexpr):
    if FLAT:
        return place[1].to(tl.int64) * stride[3]
    else:
        return place[0].to(tl.int64) * stride[2] + place[1].to(tl.int64) * stride[3]


@triton.jit
def image_at(pointer, stride, b, c, place, FLAT: tl.constexpr):
    """Return the addresses [BLOCK_C, BLOCK_P] of channels c of image b at a block's pixels."""
    channel = pointer + b * stride[0] + c.to(tl.int64) * stride[1]
    return channel[:, None] + _offsets(stride, place, FLAT)[None, :]


@triton.jit
def read(pointer, stride, b, c, place, inside, FLAT: tl.constexpr, COMPUTE: tl.constexpr):
    return tl.load(image_at(pointer, stride, b, c, place, FLAT), mask=inside, other=0.0).to(COMPUTE)


@triton.jit
def write(pointer, stride, b, c, place, inside, values, FLAT: tl.constexpr):
    tl.store(image_at(pointer, stride, b, c, place, FLAT), rounded(values, pointer), mask=inside)


@triton.jit
def noise_of(
    noise, seed, stride, stream, top, first_quad, b, c, quad, place, inside,
    PER_SAMPLE: tl.constexpr, FLAT: tl.constexpr, COMPUTE: tl.constexpr,
):  # fmt: skip
    if seed is None:
        return read(noise, stride, b, c, place, inside, FLAT, COMPUTE)
    else:
        shape: tl.constexpr = [c.shape[0], quad[0].shape[0]]
        key = (
            tl.broadcast_to(c[:, None], shape),
            tl.broadcast_to(quad[0][None, :], shape),
            tl.broadcast_to(quad[1][None, :], shape),
        )
        return seeded_noise(seed, stream, top, first_quad, b, key, PER_SAMPLE).to(COMPUTE)


@triton.jit
def map_at(maps, stride, b, k, place, FLAT: tl.constexpr):
    return plane_of(maps, stride, b, k) + _offsets(stride, place, FLAT)


@triton.jit
def total_of(
    x, deltas, gates, maps, base, anchor, image_strides, delta_strides, gate_stride, map_stride, b, c, place,
    c_inside, on_image, K: tl.constexpr, PER_CHANNEL: tl.constexpr, FLAT: tl.constexpr, COMPUTE: tl.constexpr,
    ASSEMBLED: tl.constexpr, TARGET: tl.constexpr,
):  # fmt: skip
    """anchor + base + Σ_k gates · maps · deltas [BLOCK_C, BLOCK_P], rounded as the two ops would store it; and, so that
    nothing is read twice, x, the deltas and the maps as they were read."""
    inside = c_inside[:, None] & on_image[None, :]
    if base is None:
        total = tl.zeros([c.shape[0], place[1].shape[0]], COMPUTE)
    else:
        total = read(base, image_strides[1], b, c, place, inside, FLAT, COMPUTE)
    seen, charts = (), ()  # Triton knows no stars
    for k in tl.static_range(K):
        weight = gate_of(gates, gate_stride, b, k, c, c_inside, PER_CHANNEL, COMPUTE)
        if maps is not None:
            chart = tl.load(map_at(maps, map_stride, b, k, place, FLAT), mask=on_image, other=0.0)
            weight = weight * chart.to(COMPUTE)[None, :]
            charts = charts + (chart,)  # type: ignore[assignment] # noqa: RUF005
        delta = tl.load(image_at(deltas[k], delta_strides[k], b, c, place, FLAT), mask=inside, other=0.0)
        seen = seen + (delta,)  # type: ignore[assignment] # noqa: RUF005
        total = tl.fma(tl.broadcast_to(weight, total.shape), delta.to(COMPUTE), total)
    state = tl.load(image_at(x, image_strides[0], b, c, place, FLAT), mask=inside, other=0.0)
    start = state.to(COMPUTE)
    if anchor is not None:
        start = read(anchor, image_strides[2], b, c, place, inside, FLAT, COMPUTE)
    total = as_type(total, ASSEMBLED).to(COMPUTE)
    return as_type(start + total, TARGET).to(COMPUTE), state, seen, charts


@triton.jit
def limited(total, LOW: tl.constexpr, HIGH: tl.constexpr):
    """Clamp as torch.clamp does, so that a NaN passes through; also return whether each value was inside."""
    low, high = tl.full(total.shape, LOW, total.dtype), tl.full(total.shape, HIGH, total.dtype)
    return tl.where(total < low, low, tl.where(total > high, high, total)), (total >= low) & (total <= high)


def block_sizes(image: Tensor, light: bool = True) -> dict[str, int]:
    """Return channels and pixels per program and its warps, as in the assembly but with half the elements per thread,
    since the transition needs more registers for each; a quarter if addresses, experts or deltas that stay in registers
    need these too (otherwise 4 to 400 bytes spill)."""
    blocks = expert_assembly.block_sizes(image)
    return {**blocks, "num_warps": min(8, (2 if light else 4) * blocks["num_warps"])}


def grid_of(
    image: Tensor, seeded: bool, left: int, light: bool, all_strides: list[tuple[int, int, int, int]]
) -> tuple[int, int, dict[str, Any]]:
    """Return (shift, programs, kernel arguments) of a walk over [B,C,H,W]. With a seed, quads lie on the grid of the
    whole image, and a flat walk needs rows of whole quads. Without a seed, the image may be a single row. light: as in
    `block_sizes`."""
    batch, channels, height, width = image.shape
    shift = left % 4 if seeded else 0
    flat = flat_pixels(width, all_strides) and (not seeded or (shift == 0 and width % 4 == 0))
    row_quads = triton.cdiv(height * width if flat and not seeded else shift + width, 4)
    quads = row_quads if flat and not seeded else height * row_quads
    blocks = block_sizes(image, flat and light)
    if not flat:
        blocks["BLOCK_P"] = max(TILE, blocks["BLOCK_P"] // 2)
    chunks = triton.cdiv(channels, blocks["BLOCK_C"])
    programs = batch * chunks * triton.cdiv(4 * quads, blocks["BLOCK_P"])
    arguments = {
        "size": (channels, height * width if flat else width, row_quads, quads, chunks),
        "FLAT": flat,
        "INDEX": index_type(4 * quads, channels),
        **blocks,
    }
    return shift, programs, arguments


def _assembled_type(deltas: list[Tensor], base: Tensor | None) -> torch.dtype:
    dtype = deltas[0].dtype
    for tensor in (*deltas, base):
        dtype = dtype if tensor is None else torch.promote_types(dtype, tensor.dtype)
    return dtype


def last_experts(
    experts: tuple[Tensor, ...], gates: Tensor, maps: Tensor | None, base: Tensor | None, torch_type: torch.dtype,
    image: Tensor,
) -> tuple[tuple[Tensor, ...], Tensor, Tensor | None, Tensor | None]:  # fmt: skip
    """Return the last 8 experts, with the unrounded sum of the earlier ones as their base."""
    first = max(0, len(experts) - GROUP)
    if first:
        partial = torch.empty_like(image, dtype=torch_type)
        expert_assembly.forward(
            partial, list(experts[:first]), gates[:, :first], None if maps is None else maps[:, :first], base
        )
        base = partial
    return experts[first:], gates[:, first:], None if maps is None else maps[:, first:], base


def constants_of(a: TransportStep, compute: tl.dtype) -> dict[str, Any]:
    """Return the constants of both kernels. The bounds are rounded to mu's dtype, as in torch.clamp."""
    assembled = _assembled_type(a.deltas, a.base)
    target = torch.promote_types((a.x if a.anchor is None else a.anchor).dtype, assembled)
    low, high = torch.tensor([a.low, a.high], dtype=torch.float64).to(target).double().tolist()
    return {
        "PER_CHANNEL": a.gates.dim() == 3,
        "PER_SAMPLE": a.seed is not None and a.seed.numel() > 1,
        "LOW": low,
        "HIGH": high,
        "COMPUTE": compute,
        "ASSEMBLED": TYPES[assembled],
        "TARGET": TYPES[target],
    }
