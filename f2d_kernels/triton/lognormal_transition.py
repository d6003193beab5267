"""mu + (x - mu) · exp(clamp(log_mean + log_std · eps, -20, 20)) and its gradients in Triton: kernels, then launchers.

The arithmetic is that of csrc/lognormal_transition.h, operation by operation.
"""

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from f2d_kernels.arguments import LognormalTransition, LognormalTransitionGradients
from f2d_kernels.triton._launch import compute_type, launch, strides
from f2d_kernels.triton._quads import POSITION, TILE, load, locate, per_sample, quad_grid, seeded_noise, store
from f2d_kernels.triton._reduce import partials_of, sum_rows, tree_sum
from f2d_kernels.triton.exponential import exponential


@triton.jit
def clamped(raw):
    """Clamp by comparisons instead of minimum and maximum, so that a NaN passes through."""
    return tl.where(raw < -20.0, -20.0, tl.where(raw > 20.0, 20.0, raw))


@triton.jit
def stepped(x, mu, raw):
    """mu + d · exp(clamped raw), d = x - mu; for a small exponent as x + d · expm1, which loses no digits of x."""
    exp, expm1, small = exponential(clamped(raw))
    return tl.fma(x - mu, tl.where(small, expm1, exp), tl.where(small, x, mu))


@triton.jit(do_not_specialize=POSITION)
def _forward_kernel(
    out, x, mu, log_mean, log_std, noise, seed, stream, top, first_quad, shift,
    size, out_stride, x_stride, mu_stride, noise_stride, mean_stride, std_stride,
    PER_SAMPLE: tl.constexpr, DENSE: tl.constexpr, CHANNELS_LAST: tl.constexpr, QUADS: tl.constexpr,
    INDEX: tl.constexpr, COMPUTE: tl.constexpr,
):  # fmt: skip
    b, _, quad, element, inside = locate(size, shift, QUADS, DENSE, CHANNELS_LAST, INDEX)
    state = load(x, x_stride, b, element, inside, DENSE, COMPUTE)
    target = load(mu, mu_stride, b, element, inside, DENSE, COMPUTE)
    if seed is None:
        eps = load(noise, noise_stride, b, element, inside, DENSE, COMPUTE)
    else:
        eps = seeded_noise(seed, stream, top, first_quad, b, quad, PER_SAMPLE).to(COMPUTE)
    mean = per_sample(log_mean, mean_stride, b, [4 * QUADS], COMPUTE)
    std = per_sample(log_std, std_stride, b, [4 * QUADS], COMPUTE)
    store(out, out_stride, b, element, inside, stepped(state, target, tl.fma(std, eps, mean)), DENSE)


@triton.jit(do_not_specialize=POSITION)
def _backward_kernel(
    grad, x, mu, log_mean, log_std, noise, seed, stream, top, first_quad, shift,
    d_x, d_mu, d_noise, mean_partials, std_partials,
    size, grad_stride, x_stride, mu_stride, noise_stride, d_x_stride, d_mu_stride, d_noise_stride,
    mean_stride, std_stride, sums,
    PER_SAMPLE: tl.constexpr, DENSE: tl.constexpr, CHANNELS_LAST: tl.constexpr, QUADS: tl.constexpr,
    TILE: tl.constexpr, INDEX: tl.constexpr, COMPUTE: tl.constexpr,
):  # fmt: skip
    b, tile, quad, element, inside = locate(size, shift, QUADS, DENSE, CHANNELS_LAST, INDEX)
    g = load(grad, grad_stride, b, element, inside, DENSE, COMPUTE)
    if seed is None:
        eps = load(noise, noise_stride, b, element, inside, DENSE, COMPUTE)
    else:
        eps = seeded_noise(seed, stream, top, first_quad, b, quad, PER_SAMPLE).to(COMPUTE)
    std = per_sample(log_std, std_stride, b, [4 * QUADS], COMPUTE)
    raw = tl.fma(std, eps, per_sample(log_mean, mean_stride, b, [4 * QUADS], COMPUTE))
    exp, expm1, _ = exponential(clamped(raw))
    if d_x is not None:
        store(d_x, d_x_stride, b, element, inside, g * exp, DENSE)
    if d_mu is not None:
        store(d_mu, d_mu_stride, b, element, inside, -(g * expm1), DENSE)
    if d_noise is not None or mean_partials is not None or std_partials is not None:
        state = load(x, x_stride, b, element, inside, DENSE, COMPUTE)
        target = load(mu, mu_stride, b, element, inside, DENSE, COMPUTE)
        slope = tl.where((raw < -20.0) | (raw > 20.0), 0.0, g * (state - target) * exp)
        if d_noise is not None:
            store(d_noise, d_noise_stride, b, element, inside, slope * std, DENSE)
        # masked elements hold g = 0 and add nothing
        t = tile * (4 * QUADS // TILE) + tl.arange(0, 4 * QUADS // TILE)
        if mean_partials is not None:
            tl.store(mean_partials + b * sums + t, tree_sum(slope, TILE), mask=t < sums)
        if std_partials is not None:
            tl.store(std_partials + b * sums + t, tree_sum(slope * eps, TILE), mask=t < sums)


def forward(out: Tensor, *arguments: Any) -> None:
    """Fill out [B,C,H,W]; exactly one of noise [B,C,H,W] and seed (int64 [1] or [B]) is not None."""
    a = LognormalTransition(*arguments)
    _, compute = compute_type(*a[:5])
    programs, _, shift, grid = quad_grid((out, a.x, a.mu, a.noise), a.seed, a.left, compute)
    launch(
        _forward_kernel, programs, out.device,
        out, *a[:6], a.stream, a.top, a.left // 4, shift,
        out_stride=strides(out), x_stride=strides(a.x), mu_stride=strides(a.mu), noise_stride=strides(a.noise),
        mean_stride=a.log_mean.stride(0), std_stride=a.log_std.stride(0), **grid,
    )  # fmt: skip


def backward(grad: Tensor, *arguments: Any) -> None:
    """Fill those of d_x, d_mu, d_noise [B,C,H,W] and d_log_mean, d_log_std [B] that are not None."""
    a, d = LognormalTransition(*arguments[:9]), LognormalTransitionGradients(*arguments[9:])
    torch_type, compute = compute_type(grad, *a[:5])
    reads_state = any(t is not None for t in d[2:])
    read = (d.x, d.mu, d.noise, grad, a.noise, *(a[:2] if reads_state else ()))
    programs, sums, shift, grid = quad_grid(read, a.seed, a.left, compute)
    mean_partials, std_partials = (
        partials_of(result, (len(grad), sums), torch_type, grad) for result in (d.log_mean, d.log_std)
    )
    launch(
        _backward_kernel, programs, grad.device,
        grad, *a[:6], a.stream, a.top, a.left // 4, shift,
        d.x, d.mu, d.noise, mean_partials, std_partials,
        grad_stride=strides(grad), x_stride=strides(a.x), mu_stride=strides(a.mu), noise_stride=strides(a.noise),
        d_x_stride=strides(d.x), d_mu_stride=strides(d.mu), d_noise_stride=strides(d.noise),
        mean_stride=a.log_mean.stride(0), std_stride=a.log_std.stride(0), sums=sums, TILE=TILE, **grid,
    )  # fmt: skip
    sum_rows(mean_partials, d.log_mean)
    sum_rows(std_partials, d.log_std)
