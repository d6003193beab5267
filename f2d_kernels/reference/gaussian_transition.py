"""Σ_j coefficients[:, j] · terms[j] + std · eps in plain PyTorch, and its gradients."""

from typing import Any

import torch
from torch import Tensor

from f2d_kernels.arguments import GaussianTransition
from f2d_kernels.reference.philox import noise_of
from f2d_kernels.reference.precision import compute_dtype, fill


def _per_sample(values: Tensor, dtype: torch.dtype) -> Tensor:
    return values.to(dtype).view(-1, 1, 1, 1)


def formula(*arguments: Any) -> Tensor:
    """[B,C,H,W]; std None means no noise, else exactly one of noise and seed is not None."""
    a = GaussianTransition(*arguments)
    dtype = compute_dtype(*a.terms, *a[1:4])
    total: Any = sum(
        _per_sample(c, dtype) * term.to(dtype) for c, term in zip(a.coefficients.unbind(1), a.terms, strict=True)
    )
    return total if a.std is None else total + _per_sample(a.std, dtype) * noise_of(a, a.terms[0].shape, dtype)


def gradients(grad: Tensor, *arguments: Any) -> list[Tensor]:
    """d_term_j = c_j g;  d_c_j = Σ g term_j;  d_std = Σ g eps;  d_noise = std g. needs: one flag per term, then those
    of coefficients, std and noise."""
    *inputs, (*need_terms, need_coefficients, need_std, need_noise) = arguments
    a = GaussianTransition(*inputs)
    dtype = compute_dtype(grad, *a.terms, *a[1:4])
    g = grad.to(dtype)
    results = [_per_sample(a.coefficients[:, j], dtype) * g for j, need in enumerate(need_terms) if need]
    if need_coefficients:
        results.append(torch.stack([(g * term.to(dtype)).sum((1, 2, 3)) for term in a.terms], 1))
    if need_std:
        results.append((g * noise_of(a, a.terms[0].shape, dtype)).sum((1, 2, 3)))
    if need_noise:
        assert a.std is not None
        results.append(_per_sample(a.std, dtype) * g)
    return results


def forward(out: Tensor, *inputs: Any) -> None:
    out.copy_(formula(*inputs))


def backward(grad: Tensor, terms: list[Tensor], *rest: Any) -> None:
    """rest: the other inputs, then d_terms (one without elements is not wanted), d_coefficients, d_std, d_noise."""
    *inputs, d_terms, d_coefficients, d_std, d_noise = rest
    results = [*(d if d.numel() else None for d in d_terms), d_coefficients, d_std, d_noise]
    fill(results, gradients(*[grad, terms, *inputs, [d is not None for d in results]]))
