"""Σ_j coefficients[:, j] · terms[j] + std · eps in plain PyTorch, and its gradients."""

from typing import Any

import torch
from torch import Tensor

from f2d_kernels.reference.philox import normal
from f2d_kernels.reference.precision import compute_dtype


def _per_sample(values: Tensor, dtype: torch.dtype) -> Tensor:
    return values.to(dtype).view(-1, 1, 1, 1)


def _noise(shape: torch.Size, dtype: torch.dtype, noise: Tensor | None, seed: Tensor | None, *position: int) -> Tensor:
    # drawn noise is rounded to float32 first: a seed means the same noise in every precision
    if noise is None:
        assert seed is not None
        noise = normal(shape, seed, *position).float()
    return noise.to(dtype)


def forward(
    out: Tensor,
    terms: list[Tensor],
    coefficients: Tensor,
    std: Tensor | None,
    noise: Tensor | None,
    seed: Tensor | None,
    stream: int,
    top: int,
    left: int,
) -> None:
    """Fill out [B,C,H,W]; std None means no noise, else exactly one of noise and seed is not None."""
    dtype = compute_dtype(*terms, coefficients, std, noise)
    total: Any = sum(
        _per_sample(c, dtype) * term.to(dtype) for c, term in zip(coefficients.unbind(1), terms, strict=True)
    )
    if std is not None:
        total = total + _per_sample(std, dtype) * _noise(out.shape, dtype, noise, seed, stream, top, left)
    out.copy_(total)


def backward(
    grad: Tensor,
    terms: list[Tensor],
    coefficients: Tensor,
    std: Tensor | None,
    noise: Tensor | None,
    seed: Tensor | None,
    stream: int,
    top: int,
    left: int,
    d_terms: list[Tensor],
    d_coefficients: Tensor | None,
    d_std: Tensor | None,
    d_noise: Tensor | None,
) -> None:
    """d_term_j = c_j g;  d_c_j = Σ g term_j;  d_std = Σ g eps;  d_noise = std g. A d_term without elements is not
    wanted."""
    dtype = compute_dtype(grad, *terms, coefficients, std, noise)
    g = grad.to(dtype)
    for j, (term, d_term) in enumerate(zip(terms, d_terms, strict=True)):
        if d_term.numel():
            d_term.copy_(_per_sample(coefficients[:, j], dtype) * g)
        if d_coefficients is not None:
            d_coefficients[:, j] = (g * term.to(dtype)).sum((1, 2, 3))
    if d_std is not None:
        d_std.copy_((g * _noise(g.shape, dtype, noise, seed, stream, top, left)).sum((1, 2, 3)))
    if d_noise is not None and std is not None:
        d_noise.copy_(_per_sample(std, dtype) * g)
