"""silu(group_norm(x) · (1 + scale) + shift) and its gradients in Triton: forward kernels, backward kernels, launchers.

Each tile of 128 pixels of a channel leaves two numbers, a second kernel adds those of a group in a fixed order, a third
transforms the image; a group of at most 4096 elements needs one kernel, which reads it once. The arithmetic per element
is that of csrc/group_norm_silu.h, operation by operation; statistics are float64 from the tiles' sums on.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from f2d_kernels.triton._launch import compute_type, flat_pixels, index_type, launch, pixel_offsets, rounded, strides
from f2d_kernels.triton._reduce import LANES, empty_partials, sum_rows, tree_sum
from f2d_kernels.triton.exponential import exponential

TILE = 128  # pixels per partial sum; every block is a multiple of it
WHOLE_GROUP = 4096  # elements of a group that one program keeps in registers: 16 per thread


@triton.jit
def _decay(u):
    """exp(-|u|), 0 where it would be no normal number."""
    size = tl.where(u < 0.0, -u, u)
    limit: tl.constexpr = 700.0 if u.dtype == tl.float64 else 87.0
    return tl.where(size > limit, 0.0, exponential(-size)[0])


@triton.jit
def _divide(a, b):
    if a.dtype == tl.float64:
        return a / b
    else:
        return tl.div_rn(a, b)


@triton.jit
def _silu(u):
    t = _decay(u)
    return _divide(tl.where(u < 0.0, u * t, u), 1.0 + t)


@triton.jit
def _silu_gradient(grad, u):
    t = _decay(u)
    inverse = _divide(tl.full(t.shape, 1.0, t.dtype), 1.0 + t)
    other = t * inverse
    q = tl.where(u < 0.0, other, inverse)
    return grad * tl.fma(u * q, tl.where(u < 0.0, inverse, other), q)


@triton.jit
def _addresses(pointer, stride, b, c, p, width, FLAT: tl.constexpr):
    """Addresses of channels c and pixels p of image b: [BLOCK_C, BLOCK_P]."""
    channel = pointer + b * stride[0] + c.to(tl.int64) * stride[1]
    return channel[:, None] + pixel_offsets(p, width, stride, FLAT)[None, :]


@triton.jit
def _parameter(pointer, offset, inside, OTHERWISE: tl.constexpr):
    """float64 [BLOCK_C], OTHERWISE where the parameter is absent."""
    if pointer is None:
        return tl.full(inside.shape, OTHERWISE, tl.float64)
    else:
        return tl.load(pointer + offset, mask=inside, other=OTHERWISE).to(tl.float64)


@triton.jit
def _line(mean, rstd, parameters, parameter_strides, b, c, inside, COMPUTE: tl.constexpr):
    """(centre, gain, offset) of channels c, [BLOCK_C, 1]: u = (x - centre) · gain + offset; mean and rstd [BLOCK_C]."""
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
def _group_values(values, b, c, inside, groups, group_channels):
    """values[b, group of c] of a contiguous float64 [B,G]: [BLOCK_C]."""
    return tl.load(values + b * groups + c // group_channels, mask=inside, other=0.0)


@triton.jit
def _apply_line(x, line):
    centre, gain, offset = line
    return tl.fma(x - centre, tl.broadcast_to(gain, x.shape), tl.broadcast_to(offset, x.shape))


@triton.jit
def _block(channels, pixels, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr, INDEX: tl.constexpr):
    """(sample, channels, pixels, which are there) of this program."""
    tiles, chunks = tl.cdiv(pixels, BLOCK_P), tl.cdiv(channels, BLOCK_C)
    program = tl.program_id(0)
    b = (program // (tiles * chunks)).to(tl.int64)
    c = (program // tiles) % chunks * BLOCK_C + tl.arange(0, BLOCK_C)
    p = (program % tiles).to(INDEX) * BLOCK_P + tl.arange(0, BLOCK_P)
    return b, c, p, (c < channels)[:, None] & (p < pixels)[None, :]


@triton.jit
def _tile_moments(x, inside, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr, TILE: tl.constexpr):
    """(count, mean, sum of squared deviations) of each channel's tiles, float64 [BLOCK_C, BLOCK_P / TILE].

    Deviations are from the tile's own mean rounded to the compute type; their sum corrects it.
    """
    T: tl.constexpr = BLOCK_P // TILE
    x = tl.reshape(x, [BLOCK_C * T, TILE])
    there = tl.reshape(inside.to(x.dtype), [BLOCK_C * T, TILE])
    count = tree_sum(there, TILE)
    some = tl.maximum(count, 1.0)
    centre = _divide(tree_sum(x * there, TILE), some)
    deviation = (x - centre) * there
    correction = tree_sum(deviation, TILE).to(tl.float64)
    n, filled = count.to(tl.float64), some.to(tl.float64)
    squares = tree_sum(deviation * deviation, TILE).to(tl.float64) - correction * correction / filled
    mean = centre.to(tl.float64) + correction / filled
    shape: tl.constexpr = [BLOCK_C, T]
    return tl.reshape(n, shape), tl.reshape(mean, shape), tl.reshape(tl.maximum(squares, 0.0), shape)


@triton.jit
def _store_tiles(pointer, sums, b, c, p, channels, tiles, TILE: tl.constexpr):
    """pointer[b, c, tile] = sums [BLOCK_C, tiles of the block]."""
    T: tl.constexpr = sums.shape[1]
    t = tl.min(p, axis=0) // TILE + tl.arange(0, T)
    place = pointer + ((b * channels + c) * tiles)[:, None] + t[None, :]
    tl.store(place, sums, mask=(c < channels)[:, None] & (t < tiles)[None, :])


@triton.jit
def _whole_group_kernel(
    out, channel_mean, mean, rstd, x, parameters,
    eps, groups, group_channels, pixels, width, out_stride, x_stride, parameter_strides,
    FLAT: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr, TILE: tl.constexpr, INDEX: tl.constexpr,
    COMPUTE: tl.constexpr,
):  # fmt: skip
    """One program: one group of one sample, read once."""
    b = (tl.program_id(0) // groups).to(tl.int64)
    first = tl.program_id(0) % groups * group_channels
    c = first + tl.arange(0, BLOCK_C)
    p = tl.arange(0, BLOCK_P).to(INDEX)
    there = tl.arange(0, BLOCK_C) < group_channels
    inside = there[:, None] & (p < pixels)[None, :]
    values = tl.load(_addresses(x, x_stride, b, c, p, width, FLAT), mask=inside, other=0.0).to(COMPUTE)
    count, means, squares = _tile_moments(values, inside, BLOCK_C, BLOCK_P, TILE)
    PARTS: tl.constexpr = BLOCK_C * BLOCK_P // TILE
    total = tl.cast(group_channels, tl.float64) * tl.cast(pixels, tl.float64)
    average = tl.sum(tree_sum(tl.reshape(count * means, [PARTS]), PARTS), axis=0) / total
    distance = means - average
    squares += count * distance * distance
    variance = tl.sum(tree_sum(tl.reshape(squares, [PARTS]), PARTS), axis=0) / total
    inverse = 1.0 / tl.sqrt(variance + eps)
    tl.store(mean + tl.program_id(0), average)
    tl.store(rstd + tl.program_id(0), inverse)
    ones = tl.full([BLOCK_C], 1.0, tl.float64)
    line = _line(average * ones, inverse * ones, parameters, parameter_strides, b, c, there, COMPUTE)
    result = _silu(_apply_line(values, line))
    tl.store(_addresses(out, out_stride, b, c, p, width, FLAT), rounded(result, out), mask=inside)
    if channel_mean is not None:
        sums = tl.reshape(tree_sum(tl.where(inside, result, 0.0), BLOCK_P), [BLOCK_C])
        sums = _divide(sums, tl.zeros([BLOCK_C], COMPUTE) + pixels)
        tl.store(channel_mean + b * groups * group_channels + c, rounded(sums, channel_mean), mask=there)


@triton.jit
def _moments_kernel(
    means, squares, x, channels, pixels, width, x_stride, tiles,
    FLAT: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr, TILE: tl.constexpr, INDEX: tl.constexpr,
    COMPUTE: tl.constexpr,
):  # fmt: skip
    b, c, p, inside = _block(channels, pixels, BLOCK_C, BLOCK_P, INDEX)
    values = tl.load(_addresses(x, x_stride, b, c, p, width, FLAT), mask=inside, other=0.0).to(COMPUTE)
    _, mean, square = _tile_moments(values, inside, BLOCK_C, BLOCK_P, TILE)
    _store_tiles(means, mean, b, c, p, channels, tiles, TILE)
    _store_tiles(squares, square, b, c, p, channels, tiles, TILE)


@triton.jit
def _statistics_kernel(
    mean, rstd, means, squares, eps, group_channels, pixels, tiles,
    TILE: tl.constexpr, LANES: tl.constexpr, INDEX: tl.constexpr,
):  # fmt: skip
    """One program: one group; its tiles in order, lane by lane."""
    group = tl.program_id(0).to(tl.int64)
    parts = group_channels * tiles
    lane = tl.arange(0, LANES)
    total = tl.cast(group_channels, tl.float64) * tl.cast(pixels, tl.float64)
    sums = tl.zeros([LANES], tl.float64)
    for first in range(0, parts, LANES):
        i = first + lane
        count = tl.minimum(pixels - (i % tiles).to(INDEX) * TILE, TILE).to(tl.float64)
        sums += count * tl.load(means + group * parts + i, mask=i < parts, other=0.0)
    average = tl.sum(tree_sum(sums, LANES), axis=0) / total
    sums = tl.zeros([LANES], tl.float64)
    for first in range(0, parts, LANES):
        i = first + lane
        count = tl.minimum(pixels - (i % tiles).to(INDEX) * TILE, TILE).to(tl.float64)
        distance = tl.load(means + group * parts + i, mask=i < parts, other=average) - average
        sums += tl.load(squares + group * parts + i, mask=i < parts, other=0.0) + count * distance * distance
    tl.store(mean + group, average)
    tl.store(rstd + group, 1.0 / tl.sqrt(tl.sum(tree_sum(sums, LANES), axis=0) / total + eps))


@triton.jit
def _apply_kernel(
    out, result_sums, mean, rstd, x, parameters,
    groups, group_channels, channels, pixels, width, out_stride, x_stride, parameter_strides, tiles,
    FLAT: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr, TILE: tl.constexpr, INDEX: tl.constexpr,
    COMPUTE: tl.constexpr,
):  # fmt: skip
    b, c, p, inside = _block(channels, pixels, BLOCK_C, BLOCK_P, INDEX)
    values = tl.load(_addresses(x, x_stride, b, c, p, width, FLAT), mask=inside, other=0.0).to(COMPUTE)
    average = _group_values(mean, b, c, c < channels, groups, group_channels)
    inverse = _group_values(rstd, b, c, c < channels, groups, group_channels)
    line = _line(average, inverse, parameters, parameter_strides, b, c, c < channels, COMPUTE)
    result = _silu(_apply_line(values, line))
    tl.store(_addresses(out, out_stride, b, c, p, width, FLAT), rounded(result, out), mask=inside)
    if result_sums is not None:
        sums = tree_sum(tl.where(inside, result, 0.0), TILE)
        sums = _divide(sums, tl.zeros(sums.shape, COMPUTE) + pixels)
        _store_tiles(result_sums, sums, b, c, p, channels, tiles, TILE)


@triton.jit
def _slope(
    grad, grad_mean, x, line, grad_stride, x_stride, grad_mean_stride, b, c, p, inside, pixels, width,
    FLAT: tl.constexpr, COMPUTE: tl.constexpr,
):  # fmt: skip
    """(d_u, x - centre): [BLOCK_C, BLOCK_P], 0 outside the image."""
    values = tl.load(_addresses(x, x_stride, b, c, p, width, FLAT), mask=inside, other=0.0).to(COMPUTE)
    g = tl.load(_addresses(grad, grad_stride, b, c, p, width, FLAT), mask=inside, other=0.0).to(COMPUTE)
    if grad_mean is not None:
        place = grad_mean + b * grad_mean_stride[0] + c.to(tl.int64) * grad_mean_stride[1]
        share = tl.load(place, mask=tl.max(inside.to(tl.int32), axis=1) > 0, other=0.0).to(tl.float64)
        g += (share / tl.cast(pixels, tl.float64)).to(COMPUTE)[:, None]
    d_u = tl.where(inside, _silu_gradient(g, _apply_line(values, line)), 0.0)
    return d_u, values - line[0]


@triton.jit
def _gradient_sums_kernel(
    plain, products, grad, grad_mean, mean, rstd, x, parameters,
    groups, group_channels, channels, pixels, width, grad_stride, x_stride, grad_mean_stride, parameter_strides, tiles,
    FLAT: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr, TILE: tl.constexpr, INDEX: tl.constexpr,
    COMPUTE: tl.constexpr,
):  # fmt: skip
    """Σ d_u and Σ d_u (x - centre) of each channel's tiles."""
    b, c, p, inside = _block(channels, pixels, BLOCK_C, BLOCK_P, INDEX)
    average = _group_values(mean, b, c, c < channels, groups, group_channels)
    inverse = _group_values(rstd, b, c, c < channels, groups, group_channels)
    line = _line(average, inverse, parameters, parameter_strides, b, c, c < channels, COMPUTE)
    d_u, distance = _slope(
        grad, grad_mean, x, line, grad_stride, x_stride, grad_mean_stride, b, c, p, inside, pixels, width, FLAT, COMPUTE
    )
    _store_tiles(plain, tree_sum(d_u, TILE), b, c, p, channels, tiles, TILE)
    _store_tiles(products, tree_sum(d_u * distance, TILE), b, c, p, channels, tiles, TILE)


@triton.jit
def _input_gradient_kernel(
    d_x, grad, grad_mean, mean, rstd, slope, level, x, parameters,
    groups, group_channels, channels, pixels, width,
    d_x_stride, grad_stride, x_stride, grad_mean_stride, parameter_strides,
    FLAT: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr, INDEX: tl.constexpr, COMPUTE: tl.constexpr,
):  # fmt: skip
    """d_x = d_u · gain - ((x - centre) · slope + level)."""
    b, c, p, inside = _block(channels, pixels, BLOCK_C, BLOCK_P, INDEX)
    average = _group_values(mean, b, c, c < channels, groups, group_channels)
    inverse = _group_values(rstd, b, c, c < channels, groups, group_channels)
    line = _line(average, inverse, parameters, parameter_strides, b, c, c < channels, COMPUTE)
    d_u, distance = _slope(
        grad, grad_mean, x, line, grad_stride, x_stride, grad_mean_stride, b, c, p, inside, pixels, width, FLAT, COMPUTE
    )
    incline = _group_values(slope, b, c, c < channels, groups, group_channels).to(COMPUTE)[:, None]
    height = _group_values(level, b, c, c < channels, groups, group_channels).to(COMPUTE)[:, None]
    taken = tl.fma(distance, tl.broadcast_to(incline, d_u.shape), tl.broadcast_to(height, d_u.shape))
    result = tl.fma(d_u, tl.broadcast_to(line[1], d_u.shape), -taken)
    tl.store(_addresses(d_x, d_x_stride, b, c, p, width, FLAT), rounded(result, d_x), mask=inside)


def block_sizes(image: Tensor) -> dict[str, int]:
    """Channels and pixels per program and its warps, for 16-byte accesses along what is contiguous in `image`."""
    channels = image.shape[1]
    if image.stride(1) == 1 and channels > 1:
        return {"BLOCK_C": min(triton.next_power_of_2(channels), 16), "BLOCK_P": TILE, "num_warps": 4}
    return {"BLOCK_C": 1, "BLOCK_P": 8 * TILE, "num_warps": 4}


def _parameter_strides(weight: Tensor | None, bias: Tensor | None, scale: Tensor | None, shift: Tensor | None) -> tuple:
    ones = (0 if t is None else t.stride(0) for t in (weight, bias))
    pairs = ((0, 0) if t is None else t.stride() for t in (scale, shift))
    return (*ones, *(stride for pair in pairs for stride in pair))


def _grid(walked: Tensor, images: tuple[Tensor, ...], compute: tl.dtype) -> tuple[int, dict[str, Any]]:
    """(programs, kernel arguments) of a walk over blocks of `walked`."""
    batch, channels, height, width = walked.shape
    blocks = block_sizes(walked)
    programs = batch * triton.cdiv(channels, blocks["BLOCK_C"]) * triton.cdiv(height * width, blocks["BLOCK_P"])
    constants = {
        "FLAT": flat_pixels(width, [strides(t) for t in images]),
        "INDEX": index_type(height * width),
        "COMPUTE": compute,
    }
    return programs, {**constants, **blocks}


def forward(
    out: Tensor,
    channel_mean: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    x: Tensor,
    num_groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    eps: float,
) -> None:
    """Fill out like x [B,C,H,W], channel_mean [B,C] where wanted, mean and rstd [B,G] (float64)."""
    batch, channels, height, width = x.shape
    pixels, group_channels = height * width, channels // num_groups
    torch_type, compute = compute_type(x, weight, bias, scale, shift)
    parameters = (weight, bias, scale, shift)
    parameter_strides = _parameter_strides(*parameters)
    programs, grid = _grid(out, (out, x), compute)
    block_c, block_p = triton.next_power_of_2(group_channels), max(TILE, triton.next_power_of_2(pixels))
    if block_c * block_p <= WHOLE_GROUP:
        grid |= {"BLOCK_C": block_c, "BLOCK_P": block_p, "num_warps": 8}
        launch(
            _whole_group_kernel, batch * num_groups, x.device,
            out, channel_mean, mean, rstd, x, parameters,
            eps, num_groups, group_channels, pixels, width, strides(out), strides(x), parameter_strides,
            TILE=TILE, **grid,
        )  # fmt: skip
        return
    tiles = triton.cdiv(pixels, TILE)
    means, squares = (empty_partials((batch, channels, tiles), torch.float64, x) for _ in range(2))
    sums = None if channel_mean is None else empty_partials((batch, channels, tiles), torch_type, x)
    launch(
        _moments_kernel, programs, x.device,
        means, squares, x, channels, pixels, width, strides(x), tiles, TILE=TILE, **grid,
    )  # fmt: skip
    launch(
        _statistics_kernel, batch * num_groups, x.device,
        mean, rstd, means, squares, eps, group_channels, pixels, tiles,
        TILE=TILE, LANES=LANES, INDEX=index_type(pixels),
    )  # fmt: skip
    launch(
        _apply_kernel, programs, x.device,
        out, sums, mean, rstd, x, parameters,
        num_groups, group_channels, channels, pixels, width, strides(out), strides(x), parameter_strides, tiles,
        TILE=TILE, **grid,
    )  # fmt: skip
    if channel_mean is not None and sums is not None:
        sum_rows(sums, channel_mean)


def backward(
    grad: Tensor,
    grad_mean: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    d_x: Tensor | None,
    d_weight: Tensor | None,
    d_bias: Tensor | None,
    d_scale: Tensor | None,
    d_shift: Tensor | None,
) -> None:
    """Fill those of d_x [B,C,H,W], d_weight and d_bias [C], d_scale and d_shift [B,C] that are not None."""
    batch, channels, height, width = x.shape
    pixels, num_groups = height * width, mean.shape[1]
    group_channels, tiles = channels // num_groups, triton.cdiv(pixels, TILE)
    torch_type, compute = compute_type(grad, x, weight, bias, scale, shift)
    mean, rstd = mean.contiguous(), rstd.contiguous()
    parameters, parameter_strides = (weight, bias, scale, shift), _parameter_strides(weight, bias, scale, shift)
    shape = num_groups, group_channels, channels, pixels, width
    grad_mean_stride = (0, 0) if grad_mean is None else grad_mean.stride()
    programs, grid = _grid(x, (grad, x), compute)
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

    # [B,C] from here on, in float64: a few thousand numbers. What rounding the mean lost is made up for here.
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
    programs, grid = _grid(d_x, (d_x, grad, x), compute)
    launch(
        _input_gradient_kernel, programs, x.device,
        d_x, grad, grad_mean, mean, rstd, slope, level, x, parameters,
        *shape, strides(d_x), strides(grad), strides(x), grad_mean_stride, parameter_strides,
        **grid,
    )  # fmt: skip
