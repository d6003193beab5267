"""mu + (x - mu) · exp(clamp(log_mean + log_std · eps, -20, 20)) and its gradients in Triton: kernels, then launchers.

A program owns QUADS groups of four neighbouring columns of one sample, since one Philox call gives the noise of four.
Quads lie on the grid of the whole image: where a window's left edge or width is no multiple of 4, the mask cuts them.
The arithmetic is that of csrc/lognormal_transition.h, operation by operation.
"""

from collections.abc import Sequence
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from f2d_kernels.triton._launch import compute_type, index_type, launch, rounded, strides
from f2d_kernels.triton._reduce import empty_partials, sum_rows, tree_sum
from f2d_kernels.triton.exponential import exponential
from f2d_kernels.triton.normal import normal_quads

QUADS = 256  # per program; a multiple of TILE / 4
TILE = 1024  # elements per partial sum of the schedules' gradients
POSITION = ("stream", "top", "first_quad", "shift")  # not specialized: one kernel serves every step and tile


@triton.jit
def _spread(values):
    """[N], one per quad -> [4N], one per element."""
    return tl.interleave(tl.interleave(values, values), tl.interleave(values, values))


@triton.jit
def _locate(size, shift, QUADS: tl.constexpr, DENSE: tl.constexpr, CHANNELS_LAST: tl.constexpr, INDEX: tl.constexpr):
    """(sample, tile, (c, y, quad of the row) [QUADS], (count in memory, c, y, column) and inside [4 · QUADS]).

    size = (channels, height, width, quads per row, elements in all quads of a sample).
    """
    channels, height, width, row_quads, elements = size
    tiles = tl.cdiv(elements, 4 * QUADS)
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
    """Where a program's elements of sample b lie; tensors that are dense alike need only the count."""
    count, c, y, column = element
    if DENSE:
        offset = count.to(tl.int64)
    else:
        offset = c.to(tl.int64) * stride[1] + y.to(tl.int64) * stride[2] + column.to(tl.int64) * stride[3]
    return pointer + b * stride[0] + offset


@triton.jit
def _load(pointer, stride, b, element, inside, DENSE: tl.constexpr, COMPUTE: tl.constexpr):
    return tl.load(_addresses(pointer, stride, b, element, DENSE), mask=inside, other=0.0).to(COMPUTE)


@triton.jit
def _store(pointer, stride, b, element, inside, values, DENSE: tl.constexpr):
    tl.store(_addresses(pointer, stride, b, element, DENSE), rounded(values, pointer), mask=inside)


@triton.jit
def _seeded(seed, stream, top, first_quad, b, quad, PER_SAMPLE: tl.constexpr):
    """eps [4 · QUADS] of the quads (c, y, quad of the row)."""
    c, y, column_quad = quad
    if PER_SAMPLE:
        return normal_quads(tl.load(seed + b), column_quad + first_quad, y + top, c, stream, b * 0)
    else:
        return normal_quads(tl.load(seed), column_quad + first_quad, y + top, c, stream, b)


@triton.jit
def _clamped(raw):
    """Comparisons, not minimum and maximum: a NaN passes through."""
    return tl.where(raw < -20.0, -20.0, tl.where(raw > 20.0, 20.0, raw))


@triton.jit
def _per_sample(values, stride, b, SHAPE: tl.constexpr, COMPUTE: tl.constexpr):
    return tl.broadcast_to(tl.load(values + b * stride).to(COMPUTE), SHAPE)


@triton.jit(do_not_specialize=POSITION)
def _forward_kernel(
    out, x, mu, log_mean, log_std, noise, seed, stream, top, first_quad, shift,
    size, out_stride, x_stride, mu_stride, noise_stride, mean_stride, std_stride,
    PER_SAMPLE: tl.constexpr, DENSE: tl.constexpr, CHANNELS_LAST: tl.constexpr, QUADS: tl.constexpr,
    INDEX: tl.constexpr, COMPUTE: tl.constexpr,
):  # fmt: skip
    b, _, quad, element, inside = _locate(size, shift, QUADS, DENSE, CHANNELS_LAST, INDEX)
    state = _load(x, x_stride, b, element, inside, DENSE, COMPUTE)
    target = _load(mu, mu_stride, b, element, inside, DENSE, COMPUTE)
    if seed is None:
        eps = _load(noise, noise_stride, b, element, inside, DENSE, COMPUTE)
    else:
        eps = _seeded(seed, stream, top, first_quad, b, quad, PER_SAMPLE).to(COMPUTE)
    mean = _per_sample(log_mean, mean_stride, b, [4 * QUADS], COMPUTE)
    std = _per_sample(log_std, std_stride, b, [4 * QUADS], COMPUTE)
    exp, expm1, small = exponential(_clamped(tl.fma(std, eps, mean)))
    # mu + d = x exactly, so where z is small x + d·expm1(z) loses no digits of x
    result = tl.fma(state - target, tl.where(small, expm1, exp), tl.where(small, state, target))
    _store(out, out_stride, b, element, inside, result, DENSE)


@triton.jit(do_not_specialize=POSITION)
def _backward_kernel(
    grad, x, mu, log_mean, log_std, noise, seed, stream, top, first_quad, shift,
    d_x, d_mu, d_noise, mean_partials, std_partials,
    size, grad_stride, x_stride, mu_stride, noise_stride, d_x_stride, d_mu_stride, d_noise_stride,
    mean_stride, std_stride, sums,
    PER_SAMPLE: tl.constexpr, DENSE: tl.constexpr, CHANNELS_LAST: tl.constexpr, QUADS: tl.constexpr,
    TILE: tl.constexpr, INDEX: tl.constexpr, COMPUTE: tl.constexpr,
):  # fmt: skip
    b, tile, quad, element, inside = _locate(size, shift, QUADS, DENSE, CHANNELS_LAST, INDEX)
    g = _load(grad, grad_stride, b, element, inside, DENSE, COMPUTE)
    if seed is None:
        eps = _load(noise, noise_stride, b, element, inside, DENSE, COMPUTE)
    else:
        eps = _seeded(seed, stream, top, first_quad, b, quad, PER_SAMPLE).to(COMPUTE)
    std = _per_sample(log_std, std_stride, b, [4 * QUADS], COMPUTE)
    raw = tl.fma(std, eps, _per_sample(log_mean, mean_stride, b, [4 * QUADS], COMPUTE))
    exp, expm1, _ = exponential(_clamped(raw))
    if d_x is not None:
        _store(d_x, d_x_stride, b, element, inside, g * exp, DENSE)
    if d_mu is not None:
        _store(d_mu, d_mu_stride, b, element, inside, -(g * expm1), DENSE)
    if d_noise is not None or mean_partials is not None or std_partials is not None:
        state = _load(x, x_stride, b, element, inside, DENSE, COMPUTE)
        target = _load(mu, mu_stride, b, element, inside, DENSE, COMPUTE)
        slope = tl.where((raw < -20.0) | (raw > 20.0), 0.0, g * (state - target) * exp)
        if d_noise is not None:
            _store(d_noise, d_noise_stride, b, element, inside, slope * std, DENSE)
        # masked elements hold g = 0 and add nothing
        t = tile * (4 * QUADS // TILE) + tl.arange(0, 4 * QUADS // TILE)
        if mean_partials is not None:
            tl.store(mean_partials + b * sums + t, tree_sum(slope, TILE), mask=t < sums)
        if std_partials is not None:
            tl.store(std_partials + b * sums + t, tree_sum(slope * eps, TILE), mask=t < sums)


def _channels_last(image: Tensor) -> bool:
    return image.stride(1) == 1 and image.shape[1] > 1


def _dense_alike(images: Sequence[Tensor]) -> bool:
    """Whether every image walks through memory without gaps, in one common order."""
    return all(t[0].is_contiguous() for t in images) or all(t[0].movedim(0, -1).is_contiguous() for t in images)


def _grid(images: Sequence[Tensor], seeded: bool, left: int) -> tuple[int, int, dict[str, Any]]:
    """(shift, quads per sample, kernel arguments) for tensors of one shape [B,C,H,W]; the first sets the walk's order.

    Without a seed a dense sample is one long row; with one, quads must end where rows do.
    """
    _, channels, height, width = images[0].shape
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
        "INDEX": index_type(4 * quads),
    }
    return shift, quads, grid


def forward(
    out: Tensor,
    x: Tensor,
    mu: Tensor,
    log_mean: Tensor,
    log_std: Tensor,
    noise: Tensor | None,
    seed: Tensor | None,
    stream: int,
    top: int,
    left: int,
) -> None:
    """Fill out [B,C,H,W]; exactly one of noise [B,C,H,W] and seed (int64 [1] or [B]) is not None."""
    _, compute = compute_type(x, mu, log_mean, log_std, noise)
    images = [t for t in (out, x, mu, noise) if t is not None]
    shift, quads, grid = _grid(images, seed is not None, left)
    launch(
        _forward_kernel, out.shape[0] * triton.cdiv(quads, QUADS), out.device,
        out, x, mu, log_mean, log_std, noise, seed, stream, top, left // 4, shift,
        out_stride=strides(out), x_stride=strides(x), mu_stride=strides(mu), noise_stride=strides(noise),
        mean_stride=log_mean.stride(0), std_stride=log_std.stride(0),
        PER_SAMPLE=seed is not None and seed.numel() > 1, COMPUTE=compute, **grid,
    )  # fmt: skip


def backward(
    grad: Tensor,
    x: Tensor,
    mu: Tensor,
    log_mean: Tensor,
    log_std: Tensor,
    noise: Tensor | None,
    seed: Tensor | None,
    stream: int,
    top: int,
    left: int,
    d_x: Tensor | None,
    d_mu: Tensor | None,
    d_log_mean: Tensor | None,
    d_log_std: Tensor | None,
    d_noise: Tensor | None,
) -> None:
    """Fill those of d_x, d_mu, d_noise [B,C,H,W] and d_log_mean, d_log_std [B] that are not None."""
    torch_type, compute = compute_type(grad, x, mu, log_mean, log_std, noise)
    reads_state = any(t is not None for t in (d_log_mean, d_log_std, d_noise))
    images = [t for t in (d_x, d_mu, d_noise, grad, noise, *((x, mu) if reads_state else ())) if t is not None]
    shift, quads, grid = _grid(images, seed is not None, left)
    batch, sums = grad.shape[0], triton.cdiv(4 * quads, TILE)
    mean_partials, std_partials = (
        None if result is None else empty_partials((batch, sums), torch_type, grad)
        for result in (d_log_mean, d_log_std)
    )
    launch(
        _backward_kernel, batch * triton.cdiv(quads, QUADS), grad.device,
        grad, x, mu, log_mean, log_std, noise, seed, stream, top, left // 4, shift,
        d_x, d_mu, d_noise, mean_partials, std_partials,
        grad_stride=strides(grad), x_stride=strides(x), mu_stride=strides(mu), noise_stride=strides(noise),
        d_x_stride=strides(d_x), d_mu_stride=strides(d_mu), d_noise_stride=strides(d_noise),
        mean_stride=log_mean.stride(0), std_stride=log_std.stride(0), sums=sums,
        PER_SAMPLE=seed is not None and seed.numel() > 1, TILE=TILE, COMPUTE=compute, **grid,
    )  # fmt: skip
    for partials, result in ((mean_partials, d_log_mean), (std_partials, d_log_std)):
        if partials is not None and result is not None:
            sum_rows(partials, result)
