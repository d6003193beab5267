"""Σ_j coefficients[:, j] · terms[j] + std · eps and its gradients in Triton: kernels, then launchers.

The arithmetic is that of csrc/gaussian_transition.h, operation by operation. Terms are a tuple of J pointers, each with
its own strides.
"""

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from f2d_kernels.arguments import GaussianTransition, GaussianTransitionGradients
from f2d_kernels.triton._launch import compute_type, launch, strides
from f2d_kernels.triton._quads import POSITION, TILE, load, locate, per_sample, quad_grid, seeded_noise, store
from f2d_kernels.triton._reduce import partials_of, sum_rows, tree_sum


@triton.jit
def _coefficient(coefficients, stride, b, j: tl.constexpr, QUADS: tl.constexpr, COMPUTE: tl.constexpr):
    return per_sample(coefficients + tl.cast(j, tl.int64) * stride[1], stride[0], b, [4 * QUADS], COMPUTE)


@triton.jit(do_not_specialize=POSITION)
def _forward_kernel(
    out, terms, coefficients, std, noise, seed, stream, top, first_quad, shift,
    size, out_stride, term_strides, noise_stride, coefficient_stride, std_stride,
    TERMS: tl.constexpr, PER_SAMPLE: tl.constexpr, DENSE: tl.constexpr, CHANNELS_LAST: tl.constexpr,
    QUADS: tl.constexpr, INDEX: tl.constexpr, COMPUTE: tl.constexpr,
):  # fmt: skip
    b, _, quad, element, inside = locate(size, shift, QUADS, DENSE, CHANNELS_LAST, INDEX)
    total = load(terms[0], term_strides[0], b, element, inside, DENSE, COMPUTE)
    total = total * _coefficient(coefficients, coefficient_stride, b, 0, QUADS, COMPUTE)
    for j in tl.static_range(1, TERMS):
        term = load(terms[j], term_strides[j], b, element, inside, DENSE, COMPUTE)
        total = tl.fma(_coefficient(coefficients, coefficient_stride, b, j, QUADS, COMPUTE), term, total)
    if std is not None:
        if seed is None:
            eps = load(noise, noise_stride, b, element, inside, DENSE, COMPUTE)
        else:
            eps = seeded_noise(seed, stream, top, first_quad, b, quad, PER_SAMPLE).to(COMPUTE)
        total = tl.fma(per_sample(std, std_stride, b, [4 * QUADS], COMPUTE), eps, total)
    store(out, out_stride, b, element, inside, total, DENSE)


@triton.jit(do_not_specialize=POSITION)
def _backward_kernel(
    grad, terms, coefficients, std, noise, seed, stream, top, first_quad, shift,
    d_terms, d_noise, coefficient_partials, std_partials,
    size, grad_stride, term_strides, noise_stride, d_term_strides, d_noise_stride,
    coefficient_stride, std_stride, sums,
    TERMS: tl.constexpr, PER_SAMPLE: tl.constexpr, DENSE: tl.constexpr, CHANNELS_LAST: tl.constexpr,
    QUADS: tl.constexpr, TILE: tl.constexpr, INDEX: tl.constexpr, COMPUTE: tl.constexpr,
):  # fmt: skip
    b, tile, quad, element, inside = locate(size, shift, QUADS, DENSE, CHANNELS_LAST, INDEX)
    # masked elements hold g = 0 and add nothing to the sums
    g = load(grad, grad_stride, b, element, inside, DENSE, COMPUTE)
    t = tile * (4 * QUADS // TILE) + tl.arange(0, 4 * QUADS // TILE)
    for j in tl.static_range(TERMS):
        if d_terms[j] is not None:
            coefficient = _coefficient(coefficients, coefficient_stride, b, j, QUADS, COMPUTE)
            store(d_terms[j], d_term_strides[j], b, element, inside, coefficient * g, DENSE)
        if coefficient_partials is not None:
            term = load(terms[j], term_strides[j], b, element, inside, DENSE, COMPUTE)
            tl.store(coefficient_partials + (b * TERMS + j) * sums + t, tree_sum(g * term, TILE), mask=t < sums)
    if d_noise is not None:
        deviation = per_sample(std, std_stride, b, [4 * QUADS], COMPUTE)
        store(d_noise, d_noise_stride, b, element, inside, deviation * g, DENSE)
    if std_partials is not None:
        if seed is None:
            eps = load(noise, noise_stride, b, element, inside, DENSE, COMPUTE)
        else:
            eps = seeded_noise(seed, stream, top, first_quad, b, quad, PER_SAMPLE).to(COMPUTE)
        tl.store(std_partials + b * sums + t, tree_sum(g * eps, TILE), mask=t < sums)


def _stride(std: Tensor | None) -> int:
    return 0 if std is None else std.stride(0)


def forward(out: Tensor, *arguments: Any) -> None:
    """Fill out [B,C,H,W]; without noise, std is None; otherwise exactly one of noise and seed is not None."""
    a = GaussianTransition(*arguments)
    _, compute = compute_type(*a.terms, *a[1:4])
    programs, _, shift, grid = quad_grid((out, *a.terms, a.noise), a.seed, a.left, compute)
    launch(
        _forward_kernel, programs, out.device,
        out, tuple(a.terms), *a[1:5], a.stream, a.top, a.left // 4, shift,
        out_stride=strides(out), term_strides=tuple(strides(t) for t in a.terms), noise_stride=strides(a.noise),
        coefficient_stride=a.coefficients.stride(), std_stride=_stride(a.std), TERMS=len(a.terms), **grid,
    )  # fmt: skip


def backward(grad: Tensor, *arguments: Any) -> None:
    """Fill every d_terms [B,C,H,W] that is not empty, and those of d_coefficients [B,J], d_std [B] and d_noise that are
    not None."""
    a, d = GaussianTransition(*arguments[:8]), GaussianTransitionGradients(*arguments[8:])
    torch_type, compute = compute_type(grad, *a.terms, *a[1:4])
    wanted = tuple(t if t.numel() else None for t in d.terms)
    read_terms = a.terms if d.coefficients is not None else ()
    noise, seed = (a.noise, a.seed) if d.std is not None else (None, None)
    images = (*wanted, d.noise, grad, noise, *read_terms)
    programs, sums, shift, grid = quad_grid(images, seed, a.left, compute)
    coefficient_partials = partials_of(d.coefficients, (len(grad), len(a.terms), sums), torch_type, grad)
    std_partials = partials_of(d.std, (len(grad), sums), torch_type, grad)
    launch(
        _backward_kernel, programs, grad.device,
        grad, tuple(a.terms), a.coefficients, a.std, noise, seed, a.stream, a.top, a.left // 4, shift,
        wanted, d.noise, coefficient_partials, std_partials,
        grad_stride=strides(grad), term_strides=tuple(strides(t) for t in a.terms), noise_stride=strides(noise),
        d_term_strides=tuple(strides(t) for t in wanted), d_noise_stride=strides(d.noise),
        coefficient_stride=a.coefficients.stride(), std_stride=_stride(a.std), sums=sums, TERMS=len(a.terms),
        TILE=TILE, **grid,
    )  # fmt: skip
    sum_rows(coefficient_partials, d.coefficients)
    sum_rows(std_partials, d.std)
