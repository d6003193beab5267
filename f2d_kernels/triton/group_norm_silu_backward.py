"""group_norm_silu's gradients in Triton: backward kernels and their launcher.

The first kernel stores two sums per tile of 128 pixels of a channel. Their totals give the parameters' gradients and,
per group, the terms that a second kernel subtracts from d_u to get the gradient of the image.
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
    grid_of,
    group_values,
    line_of,
    parameter_strides_of,
    silu_gradient,
    store_tiles,
)
from f2d_kernels.triton._launch import compute_type, launch, rounded, strides
from f2d_kernels.triton._reduce import empty_partials, sum_rows, tree_sum


@triton.jit
def _slope(
    grad, grad_mean, x, line, grad_stride, x_stride, grad_mean_stride, b, c, p, inside, pixels, width,
    FLAT: tl.constexpr, COMPUTE: tl.constexpr,
):  # fmt: skip
    """Return (d_u, x - centre), both [BLOCK_C, BLOCK_P] and 0 outside the image."""
    values = read(x, x_stride, b, c, p, width, inside, FLAT, COMPUTE)
    g = read(grad, grad_stride, b, c, p, width, inside, FLAT, COMPUTE)
    if grad_mean is not None:
        place = grad_mean + b * grad_mean_stride[0] + c.to(tl.int64) * grad_mean_stride[1]
        share = tl.load(place, mask=tl.max(inside.to(tl.int32), axis=1) > 0, other=0.0).to(tl.float64)
        g += (share / tl.cast(pixels, tl.float64)).to(COMPUTE)[:, None]
    d_u = tl.where(inside, silu_gradient(g, apply_line(values, line)), 0.0)
    return d_u, values - line[0]


@triton.jit
def _gradient_sums_kernel(
    plain, products, grad, grad_mean, mean, rstd, x, parameters,
    groups, group_channels, channels, pixels, width, grad_stride, x_stride, grad_mean_stride, parameter_strides, tiles,
    FLAT: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr, TILE: tl.constexpr, INDEX: tl.constexpr,
    COMPUTE: tl.constexpr,
):  # fmt: skip
    """Store Σ d_u and Σ d_u (x - centre) of each channel's tiles."""
    b, c, p, inside = block_of(channels, pixels, BLOCK_C, BLOCK_P, INDEX)
    average = group_values(mean, b, c, c < channels, groups, group_channels)
    inverse = group_values(rstd, b, c, c < channels, groups, group_channels)
    line = line_of(average, inverse, parameters, parameter_strides, b, c, c < channels, COMPUTE)
    d_u, distance = _slope(
        grad, grad_mean, x, line, grad_stride, x_stride, grad_mean_stride, b, c, p, inside, pixels, width, FLAT, COMPUTE
    )
    store_tiles(plain, tree_sum(d_u, TILE), b, c, p, channels, tiles, TILE)
    store_tiles(products, tree_sum(d_u * distance, TILE), b, c, p, channels, tiles, TILE)


@triton.jit
def _input_gradient_kernel(
    d_x, grad, grad_mean, mean, rstd, slope, level, x, parameters,
    groups, group_channels, channels, pixels, width,
    d_x_stride, grad_stride, x_stride, grad_mean_stride, parameter_strides,
    FLAT: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr, INDEX: tl.constexpr, COMPUTE: tl.constexpr,
):  # fmt: skip
    """d_x = d_u · gain - ((x - centre) · slope + level)."""
    b, c, p, inside = block_of(channels, pixels, BLOCK_C, BLOCK_P, INDEX)
    average = group_values(mean, b, c, c < channels, groups, group_channels)
    inverse = group_values(rstd, b, c, c < channels, groups, group_channels)
    line = line_of(average, inverse, parameters, parameter_strides, b, c, c < channels, COMPUTE)
    d_u, distance = _slope(
        grad, grad_mean, x, line, grad_stride, x_stride, grad_mean_stride, b, c, p, inside, pixels, width, FLAT, COMPUTE
    )
    incline = group_values(slope, b, c, c < channels, groups, group_channels).to(COMPUTE)[:, None]
    height = group_values(level, b, c, c < channels, groups, group_channels).to(COMPUTE)[:, None]
    taken = tl.fma(distance, tl.broadcast_to(incline, d_u.shape), tl.broadcast_to(height, d_u.shape))
    result = tl.fma(d_u, tl.broadcast_to(line[1], d_u.shape), -taken)
    tl.store(addresses(d_x, d_x_stride, b, c, p, width, FLAT), rounded(result, d_x), mask=inside)


def backward(grad: Tensor, grad_mean: Tensor | None, mean: Tensor, rstd: Tensor, x: Tensor, *rest: Any) -> None:
    """Fill those of d_x [B,C,H,W], d_weight and d_bias [C], d_scale and d_shift [B,C] that are not None."""
    batch, channels, height, width = x.shape
    pixels, num_groups = height * width, mean.shape[1]
    group_channels, tiles = channels // num_groups, triton.cdiv(pixels, TILE)
    weight, bias, scale, shift, d_x, d_weight, d_bias, d_scale, d_shift = rest
    torch_type, compute = compute_type(grad, x, weight, bias, scale, shift)
    mean, rstd = mean.contiguous(), rstd.contiguous()
    parameters, parameter_strides = (weight, bias, scale, shift), parameter_strides_of(weight, bias, scale, shift)
    shape = num_groups, group_channels, channels, pixels, width
    grad_mean_stride = (0, 0) if grad_mean is None else grad_mean.stride()
    programs, grid = grid_of(x, (grad, x), compute)
    plain, products = (empty_partials((batch, channels, tiles), torch_type, x) for _ in range(2))
    launch(
        _gradient_sums_kernel, programs, x.device,
        plain, products, grad, grad_mean, mean, rstd, x, parameters,
        *shape, strides(grad), strides(x), grad_mean_stride, parameter_strides, tiles,
        TILE=TILE, **grid,
    )  # fmt: skip
    sums, normalised = (empty_partials((batch, channels), torch.float64, x) for _ in range(2))
    sum_rows(plain, sums)
    sum_rows(products, normalised)

    # from here on [B,C] in float64, a few thousand numbers; the rounding error of the mean is corrected here
    def per_channel(values: Tensor) -> Tensor:
        return values.repeat_interleave(group_channels, 1)

    def per_group(values: Tensor) -> Tensor:
        return values.reshape(batch, num_groups, group_channels).sum(2) / (group_channels * pixels)

    lost = mean - mean.to(torch_type).double()
    normalised = per_channel(rstd) * (normalised - per_channel(lost) * sums)
    factor = torch.ones_like(sums) if scale is None else 1.0 + scale.double()
    gain = torch.ones_like(sums) if weight is None else weight.double().expand(batch, channels)
    if d_shift is not None:
        d_shift.copy_(sums)
    if d_scale is not None:
        d_scale.copy_(gain * normalised if bias is None else gain * normalised + bias.double() * sums)
    if d_bias is not None:
        d_bias.copy_((factor * sums).sum(0))
    if d_weight is not None:
        d_weight.copy_((factor * normalised).sum(0))
    if d_x is None:
        return
    slope = rstd * rstd * per_group(factor * gain * normalised)
    level = rstd * per_group(factor * gain * sums) - lost * slope
    programs, grid = grid_of(d_x, (d_x, grad, x), compute)
    launch(
        _input_gradient_kernel, programs, x.device,
        d_x, grad, grad_mean, mean, rstd, slope, level, x, parameters,
        *shape, strides(d_x), strides(grad), strides(x), grad_mean_stride, parameter_strides,
        **grid,
    )  # fmt: skip
