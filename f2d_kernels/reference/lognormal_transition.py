"""mu + (x - mu) · exp(clamp(log_mean + log_std · eps, -20, 20)) in plain PyTorch, and its gradients."""

import math
from typing import Any

import torch
from torch import Tensor

from f2d_kernels.arguments import LognormalTransition, LognormalTransitionGradients
from f2d_kernels.reference.philox import noise_of
from f2d_kernels.reference.precision import compute_dtype, filling

LIMIT = 20.0
SMALL = math.log(2) / 2


def _exponent(a: LognormalTransition, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(z, eps) with z = log_mean + log_std · eps before clamping."""
    eps = noise_of(a, a.x.shape, dtype)
    return a.log_mean.to(dtype).view(-1, 1, 1, 1) + a.log_std.to(dtype).view(-1, 1, 1, 1) * eps, eps


def formula(*arguments: Any) -> Tensor:
    a = LognormalTransition(*arguments)
    dtype = compute_dtype(*a[:5])
    z = _exponent(a, dtype)[0].clamp(-LIMIT, LIMIT)
    x, mu = a.x.to(dtype), a.mu.to(dtype)
    # mu + d = x: where exp(z) is near 1, x + d·expm1(z) keeps the digits of x, and z = 0 returns x itself
    return torch.where(z.abs() < SMALL, x + (x - mu) * torch.expm1(z), mu + (x - mu) * torch.exp(z))


def gradients(grad: Tensor, *arguments: Any) -> list[Tensor]:
    """With f = exp(z), d = x - mu: d_x = g f; d_mu = g (1 - f); d_log_mean = Σ g d f; d_log_std = Σ g d f eps;
    d_noise = g d f log_std; the last three zero where |z| > 20."""
    *inputs, needs = arguments
    a, need = LognormalTransition(*inputs), LognormalTransitionGradients(*needs)
    dtype = compute_dtype(grad, *a[:5])
    z, eps = _exponent(a, dtype)
    clamped = z.clamp(-LIMIT, LIMIT)
    g = grad.to(dtype)
    results = []
    if need.x:
        results.append(g * torch.exp(clamped))
    if need.mu:
        results.append(-g * torch.expm1(clamped))
    if not any(need[2:]):
        return results
    d_z = torch.where((z < -LIMIT) | (z > LIMIT), 0.0, g * (a.x.to(dtype) - a.mu.to(dtype)) * torch.exp(clamped))
    if need.log_mean:
        results.append(d_z.sum((1, 2, 3)))
    if need.log_std:
        results.append((d_z * eps).sum((1, 2, 3)))
    if need.noise:
        results.append(d_z * a.log_std.to(dtype).view(-1, 1, 1, 1))
    return results


def forward(out: Tensor, *inputs: Any) -> None:
    out.copy_(formula(*inputs))


backward = filling(gradients, len(LognormalTransitionGradients._fields))
