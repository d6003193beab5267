"""mu + (x - mu) · exp(clamp(log_mean + log_std · eps, -20, 20)) in plain PyTorch, and its gradients."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from f2d_kernels.reference.philox import normal
from f2d_kernels.reference.precision import compute_dtype, fill

LIMIT = 20.0
SMALL = math.log(2) / 2


def _exponent(
    shape: torch.Size,
    dtype: torch.dtype,
    log_mean: Tensor,
    log_std: Tensor,
    noise: Tensor | None,
    seed: Tensor | None,
    position: tuple[int, int, int],
) -> tuple[Tensor, Tensor]:
    """(z, eps) with z = log_mean + log_std · eps before clamping."""
    if noise is None:
        assert seed is not None
        # rounded to float32 first: a seed means the same noise in every precision
        noise = normal(shape, seed, *position).float()
    eps = noise.to(dtype)
    return log_mean.to(dtype).view(-1, 1, 1, 1) + log_std.to(dtype).view(-1, 1, 1, 1) * eps, eps


def formula(
    x: Tensor,
    mu: Tensor,
    log_mean: Tensor,
    log_std: Tensor,
    noise: Tensor | None,
    seed: Tensor | None,
    stream: int,
    top: int,
    left: int,
) -> Tensor:
    dtype = compute_dtype(x, mu, log_mean, log_std, noise)
    z, _ = _exponent(x.shape, dtype, log_mean, log_std, noise, seed, (stream, top, left))
    z = z.clamp(-LIMIT, LIMIT)
    x, mu = x.to(dtype), mu.to(dtype)
    # mu + d = x: where exp(z) is near 1, x + d·expm1(z) keeps the digits of x, and z = 0 returns x itself
    return torch.where(z.abs() < SMALL, x + (x - mu) * torch.expm1(z), mu + (x - mu) * torch.exp(z))


def gradients(
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
    needs: Sequence[bool],
) -> list[Tensor]:
    """With f = exp(z), d = x - mu: d_x = g f; d_mu = g (1 - f); d_log_mean = Σ g d f; d_log_std = Σ g d f eps;
    d_noise = g d f log_std; the last three zero where |z| > 20."""
    dtype = compute_dtype(grad, x, mu, log_mean, log_std, noise)
    z, eps = _exponent(grad.shape, dtype, log_mean, log_std, noise, seed, (stream, top, left))
    clamped = z.clamp(-LIMIT, LIMIT)
    g = grad.to(dtype)
    needs_x, needs_mu, needs_mean, needs_std, needs_noise = needs
    results = []
    if needs_x:
        results.append(g * torch.exp(clamped))
    if needs_mu:
        results.append(-g * torch.expm1(clamped))
    if not (needs_mean or needs_std or needs_noise):
        return results
    d_z = torch.where((z < -LIMIT) | (z > LIMIT), 0.0, g * (x.to(dtype) - mu.to(dtype)) * torch.exp(clamped))
    if needs_mean:
        results.append(d_z.sum((1, 2, 3)))
    if needs_std:
        results.append((d_z * eps).sum((1, 2, 3)))
    if needs_noise:
        results.append(d_z * log_std.to(dtype).view(-1, 1, 1, 1))
    return results


def forward(out: Tensor, *inputs: Any) -> None:
    out.copy_(formula(*inputs))


def backward(grad: Tensor, *arguments: Any) -> None:
    """The inputs, then d_x, d_mu, d_log_mean, d_log_std, d_noise."""
    inputs, results = arguments[:-5], arguments[-5:]
    fill(results, gradients(*[grad, *inputs, [d is not None for d in results]]))
