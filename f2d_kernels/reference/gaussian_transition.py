"""Σ_j coefficients[:, j] · terms[j] + std · eps in plain PyTorch, and its gradients."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from f2d_kernels.reference.philox import normal
from f2d_kernels.reference.precision import compute_dtype, fill


def _per_sample(values: Tensor, dtype: torch.dtype) -> Tensor:
    return values.to(dtype).view(-1, 1, 1, 1)


def _noise(shape: torch.Size, dtype: torch.dtype, noise: Tensor | None, seed: Tensor | None, *position: int) -> Tensor:
    # drawn noise is rounded to float32 first: a seed means the same noise in every precision
    if noise is None:
        assert seed is not None
        noise = normal(shape, seed, *position).float()
    return noise.to(dtype)


def formula(
    terms: list[Tensor],
    coefficients: Tensor,
    std: Tensor | None,
    noise: Tensor | None,
    seed: Tensor | None,
    stream: int,
    top: int,
    left: int,
) -> Tensor:
    """[B,C,H,W]; std None means no noise, else exactly one of noise and seed is not None."""
    dtype = compute_dtype(*terms, coefficients, std, noise)
    total: Any = sum(
        _per_sample(c, dtype) * term.to(dtype) for c, term in zip(coefficients.unbind(1), terms, strict=True)
    )
    if std is None:
        return total
    return total + _per_sample(std, dtype) * _noise(terms[0].shape, dtype, noise, seed, stream, top, left)


def gradients(
    grad: Tensor,
    terms: list[Tensor],
    coefficients: Tensor,
    std: Tensor | None,
    noise: Tensor | None,
    seed: Tensor | None,
    stream: int,
    top: int,
    left: int,
    needs: Sequence[bool],
) -> list[Tensor]:
    """d_term_j = c_j g;  d_c_j = Σ g term_j;  d_std = Σ g eps;  d_noise = std g. needs: one flag per term, then those
    of coefficients, std and noise."""
    dtype = compute_dtype(grad, *terms, coefficients, std, noise)
    g = grad.to(dtype)
    *need_terms, need_coefficients, need_std, need_noise = needs
    results = [_per_sample(coefficients[:, j], dtype) * g for j, need in enumerate(need_terms) if need]
    if need_coefficients:
        results.append(torch.stack([(g * term.to(dtype)).sum((1, 2, 3)) for term in terms], 1))
    if need_std:
        results.append((g * _noise(g.shape, dtype, noise, seed, stream, top, left)).sum((1, 2, 3)))
    if need_noise:
        assert std is not None
        results.append(_per_sample(std, dtype) * g)
    return results


def forward(out: Tensor, *inputs: Any) -> None:
    out.copy_(formula(*inputs))


def backward(grad: Tensor, terms: list[Tensor], *rest: Any) -> None:
    """rest: the other inputs, then d_terms (one without elements is not wanted), d_coefficients, d_std, d_noise."""
    *inputs, d_terms, d_coefficients, d_std, d_noise = rest
    results = [*(d if d.numel() else None for d in d_terms), d_coefficients, d_std, d_noise]
    fill(results, gradients(*[grad, terms, *inputs, [d is not None for d in results]]))
