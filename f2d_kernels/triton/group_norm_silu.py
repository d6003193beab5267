"""silu(group_norm(x) · (1 + scale) + shift) in Triton: forward kernels and their launcher.

The first kernel stores two numbers per tile of 128 pixels of a channel, a second adds those of a group in a fixed
order, and a third transforms the image. A group of at most 4096 elements needs one kernel, which reads it once. From
the tiles' sums on, statistics are float64.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from f2d_kernels.triton._blocks import addresses, block_of, read
from f2d_kernels.triton._group_norm import (
    TILE,
    apply_line,
    divide,
    grid_of,
    group_values,
    line_of,
    parameter_strides_of,
    silu,
    store_tiles,
)
from f2d_kernels.triton._launch import compute_type, index_type, launch, rounded, strides
from f2d_kernels.triton._reduce import LANES, empty_partials, partials_of, sum_rows, tree_sum
from f2d_kernels.triton.group_norm_silu_backward import backward

__all__ = ["backward", "forward"]

SEGMENT = 512  # tiles that one program merges, where a group has more of them
WHOLE_GROUP = 4096  # elements of a group that one program keeps in registers: 16 per thread


@triton.jit
def _tile_moments(x, inside, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr, TILE: tl.constexpr):
    """Return (count, mean, sum of squared deviations) of each channel's tiles, float64 [BLOCK_C, BLOCK_P / TILE].

    Deviations are from the tile's own mean rounded to the compute type, and their sum corrects the rounding.
    """
    T: tl.constexpr = BLOCK_P // TILE
    x = tl.reshape(x, [BLOCK_C * T, TILE])
    there = tl.reshape(inside.to(x.dtype), [BLOCK_C * T, TILE])
    count = tree_sum(there, TILE)
    some = tl.maximum(count, 1.0)
    centre = divide(tree_sum(x * there, TILE), some)
    deviation = (x - centre) * there
    correction = tree_sum(deviation, TILE).to(tl.float64)
    n, filled = count.to(tl.float64), some.to(tl.float64)
    squares = tree_sum(deviation * deviation, TILE).to(tl.float64) - correction * correction / filled
    mean = centre.to(tl.float64) + correction / filled
    shape: tl.constexpr = [BLOCK_C, T]
    return tl.reshape(n, shape), tl.reshape(mean, shape), tl.reshape(tl.maximum(squares, 0.0), shape)


@triton.jit
def _whole_group_kernel(
    out, channel_mean, mean, rstd, x, parameters,
    groups, group_channels, pixels, width, out_stride, x_stride, parameter_strides,
    EPS: tl.constexpr, FLAT: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr, TILE: tl.constexpr,
    INDEX: tl.constexpr, COMPUTE: tl.constexpr,
):  # fmt: skip
    """Process one group of one sample per program, reading it once. EPS is a constant: an argument would be float32."""
    b = (tl.program_id(0) // groups).to(tl.int64)
    first = tl.program_id(0) % groups * group_channels
    c = first + tl.arange(0, BLOCK_C)
    p = tl.arange(0, BLOCK_P).to(INDEX)
    there = tl.arange(0, BLOCK_C) < group_channels
    inside = there[:, None] & (p < pixels)[None, :]
    values = read(x, x_stride, b, c, p, width, inside, FLAT, COMPUTE)
    count, means, squares = _tile_moments(values, inside, BLOCK_C, BLOCK_P, TILE)
    PARTS: tl.constexpr = BLOCK_C * BLOCK_P // TILE
    total = tl.cast(group_channels, tl.float64) * tl.cast(pixels, tl.float64)
    average = tl.sum(tree_sum(tl.reshape(count * means, [PARTS]), PARTS), axis=0) / total
    distance = means - average
    squares += count * distance * distance
    variance = tl.sum(tree_sum(tl.reshape(squares, [PARTS]), PARTS), axis=0) / total
    inverse = 1.0 / tl.sqrt(variance + EPS)
    tl.store(mean + tl.program_id(0), average)
    tl.store(rstd + tl.program_id(0), inverse)
    ones = tl.full([BLOCK_C], 1.0, tl.float64)
    line = line_of(average * ones, inverse * ones, parameters, parameter_strides, b, c, there, COMPUTE)
    result = silu(apply_line(values, line))
    tl.store(addresses(out, out_stride, b, c, p, width, FLAT), rounded(result, out), mask=inside)
    if channel_mean is not None:
        sums = tl.reshape(tree_sum(tl.where(inside, result, 0.0), BLOCK_P), [BLOCK_C])
        sums = divide(sums, tl.zeros([BLOCK_C], COMPUTE) + pixels)
        tl.store(channel_mean + b * groups * group_channels + c, rounded(sums, channel_mean), mask=there)


@triton.jit
def _moments_kernel(
    means, squares, x, channels, pixels, width, x_stride, tiles,
    FLAT: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr, TILE: tl.constexpr, INDEX: tl.constexpr,
    COMPUTE: tl.constexpr,
):  # fmt: skip
    b, c, p, inside = block_of(channels, pixels, BLOCK_C, BLOCK_P, INDEX)
    values = read(x, x_stride, b, c, p, width, inside, FLAT, COMPUTE)
    _, mean, square = _tile_moments(values, inside, BLOCK_C, BLOCK_P, TILE)
    store_tiles(means, mean, b, c, p, channels, tiles, TILE)
    store_tiles(squares, square, b, c, p, channels, tiles, TILE)


@triton.jit
def _counts(counts, group, parts, i, pixels, tiles, TILE: tl.constexpr, INDEX: tl.constexpr):
    """Elements of parts i of a group: stored, or those of a tile."""
    if counts is None:
        return tl.minimum(pixels - (i % tiles).to(INDEX) * TILE, TILE).to(tl.float64)
    else:
        return tl.load(counts + group * parts + i, mask=i < parts, other=0.0)


@triton.jit
def _combine_kernel(
    merged_means, merged_squares, merged_counts, means, squares, parts, segments, pixels, tiles,
    TILE: tl.constexpr, SEGMENT: tl.constexpr, INDEX: tl.constexpr,
):  # fmt: skip
    """One program: SEGMENT neighbouring tiles of one group become one part, so that a large group is no serial walk."""
    group = (tl.program_id(0) // segments).to(tl.int64)
    i = (tl.program_id(0) % segments).to(INDEX) * SEGMENT + tl.arange(0, SEGMENT)
    inside = i < parts
    count = tl.where(inside, _counts(None, group, parts, i, pixels, tiles, TILE, INDEX), 0.0)
    mean = tl.load(means + group * parts + i, mask=inside, other=0.0)
    total = tl.sum(tree_sum(count, SEGMENT), axis=0)
    average = tl.sum(tree_sum(count * mean, SEGMENT), axis=0) / total
    distance = mean - average
    square = tl.load(squares + group * parts + i, mask=inside, other=0.0) + count * distance * distance
    tl.store(merged_means + tl.program_id(0), average)
    tl.store(merged_squares + tl.program_id(0), tl.sum(tree_sum(square, SEGMENT), axis=0))
    tl.store(merged_counts + tl.program_id(0), total)


@triton.jit
def _statistics_kernel(
    mean, rstd, means, squares, counts, group_channels, parts, pixels, tiles,
    EPS: tl.constexpr, TILE: tl.constexpr, LANES: tl.constexpr, INDEX: tl.constexpr,
):  # fmt: skip
    """Combine the parts of one group per program, in order, lane by lane."""
    group = tl.program_id(0).to(tl.int64)
    parts = tl.cast(parts, INDEX)
    lane = tl.arange(0, LANES)
    total = tl.cast(group_channels, tl.float64) * tl.cast(pixels, tl.float64)
    sums = tl.zeros([LANES], tl.float64)
    for first in range(0, parts, LANES):
        i = first + lane
        count = _counts(counts, group, parts, i, pixels, tiles, TILE, INDEX)
        sums += count * tl.load(means + group * parts + i, mask=i < parts, other=0.0)
    average = tl.sum(tree_sum(sums, LANES), axis=0) / total
    sums = tl.zeros([LANES], tl.float64)
    for first in range(0, parts, LANES):
        i = first + lane
        count = _counts(counts, group, parts, i, pixels, tiles, TILE, INDEX)
        distance = tl.load(means + group * parts + i, mask=i < parts, other=average) - average
        sums += tl.load(squares + group * parts + i, mask=i < parts, other=0.0) + count * distance * distance
    tl.store(mean + group, average)
    tl.store(rstd + group, 1.0 / tl.sqrt(tl.sum(tree_sum(sums, LANES), axis=0) / total + EPS))


@triton.jit
def _apply_kernel(
    out, result_sums, mean, rstd, x, parameters,
    groups, group_channels, channels, pixels, width, out_stride, x_stride, parameter_strides, tiles,
    FLAT: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr, TILE: tl.constexpr, INDEX: tl.constexpr,
    COMPUTE: tl.constexpr,
):  # fmt: skip
    b, c, p, inside = block_of(channels, pixels, BLOCK_C, BLOCK_P, INDEX)
    values = read(x, x_stride, b, c, p, width, inside, FLAT, COMPUTE)
    average = group_values(mean, b, c, c < channels, groups, group_channels)
    inverse = group_values(rstd, b, c, c < channels, groups, group_channels)
    line = line_of(average, inverse, parameters, parameter_strides, b, c, c < channels, COMPUTE)
    result = silu(apply_line(values, line))
    tl.store(addresses(out, out_stride, b, c, p, width, FLAT), rounded(result, out), mask=inside)
    if result_sums is not None:
        sums = tree_sum(tl.where(inside, result, 0.0), TILE)
        sums = divide(sums, tl.zeros(sums.shape, COMPUTE) + pixels)
        store_tiles(result_sums, sums, b, c, p, channels, tiles, TILE)


def forward(
    out: Tensor, channel_mean: Tensor | None, mean: Tensor, rstd: Tensor, x: Tensor, num_groups: int, *rest: Any
) -> None:
    """Fill out [B,C,H,W], channel_mean [B,C] unless it is None, mean and rstd [B,G] (float64)."""
    batch, channels, height, width = x.shape
    pixels, group_channels = height * width, channels // num_groups
    parameters, eps = rest[:4], rest[4]  # weight, bias, scale, shift
    torch_type, compute = compute_type(x, *parameters)
    parameter_strides = parameter_strides_of(*parameters)
    programs, grid = grid_of(out, (out, x), compute)
    block_c, block_p = triton.next_power_of_2(group_channels), max(TILE, triton.next_power_of_2(pixels))
    if block_c * block_p <= WHOLE_GROUP:
        grid |= {"BLOCK_C": block_c, "BLOCK_P": block_p, "num_warps": 8}
        launch(
            _whole_group_kernel, batch * num_groups, x.device,
            out, channel_mean, mean, rstd, x, parameters,
            num_groups, group_channels, pixels, width, strides(out), strides(x), parameter_strides,
            EPS=eps, TILE=TILE, **grid,
        )  # fmt: skip
        return
    tiles = triton.cdiv(pixels, TILE)
    means, squares = (empty_partials((batch, channels, tiles), torch.float64, x) for _ in range(2))
    sums = partials_of(channel_mean, (batch, channels, tiles), torch_type, x)
    launch(
        _moments_kernel, programs, x.device,
        means, squares, x, channels, pixels, width, strides(x), tiles, TILE=TILE, **grid,
    )  # fmt: skip
    parts, counts, index = group_channels * tiles, None, index_type(group_channels * pixels)
    if parts > SEGMENT:
        segments = triton.cdiv(parts, SEGMENT)
        merged = [empty_partials((batch, num_groups, segments), torch.float64, x) for _ in range(3)]
        launch(
            _combine_kernel, batch * num_groups * segments, x.device,
            *merged, means, squares, parts, segments, pixels, tiles, TILE=TILE, SEGMENT=SEGMENT, INDEX=index,
        )  # fmt: skip
        (means, squares, counts), parts = merged, segments
    launch(
        _statistics_kernel, batch * num_groups, x.device,
        mean, rstd, means, squares, counts, group_channels, parts, pixels, tiles,
        EPS=eps, TILE=TILE, LANES=LANES, INDEX=index,
    )  # fmt: skip
    launch(
        _apply_kernel, programs, x.device,
        out, sums, mean, rstd, x, parameters,
        num_groups, group_channels, channels, pixels, width, strides(out), strides(x), parameter_strides, tiles,
        TILE=TILE, **grid,
    )  # fmt: skip
    sum_rows(sums, channel_mean)
