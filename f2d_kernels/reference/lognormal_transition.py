"""mu + (x - mu) · exp(clamp(log_mean + log_std · eps, -20, 20)) in plain PyTorch, and its gradients."""

import math

import torch
from torch import Tensor

from f2d_kernels.reference.philox import normal
from f2d_kernels.reference.precision import compute_dtype

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
    dtype = compute_dtype(x, mu, log_mean, log_std, noise)
    z, _ = _exponent(x.shape, dtype, log_mean, log_std, noise, seed, (stream, top, left))
    z = z.clamp(-LIMIT, LIMIT)
    x, mu = x.to(dtype), mu.to(dtype)
    # mu + d = x: where exp(z) is near 1, x + d·expm1(z) keeps the digits of x, and z = 0 returns x itself
    out.copy_(torch.where(z.abs() < SMALL, x + (x - mu) * torch.expm1(z), mu + (x - mu) * torch.exp(z)))


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
    """With f = exp(z), d = x - mu: d_x = g f; d_mu = g (1 - f); d_log_mean = Σ g d f; d_log_std = Σ g d f eps;
    d_noise = g d f log_std; the last three zero where |z| > 20."""
    dtype = compute_dtype(grad, x, mu, log_mean, log_std, noise)
    z, eps = _exponent(grad.shape, dtype, log_mean, log_std, noise, seed, (stream, top, left))
    clamped = z.clamp(-LIMIT, LIMIT)
    g = grad.to(dtype)
    if d_x is not None:
        d_x.copy_(g * torch.exp(clamped))
    if d_mu is not None:
        d_mu.copy_(-g * torch.expm1(clamped))
    if d_log_mean is None and d_log_std is None and d_noise is None:
        return
    d_z = torch.where((z < -LIMIT) | (z > LIMIT), 0.0, g * (x.to(dtype) - mu.to(dtype)) * torch.exp(clamped))
    if d_log_mean is not None:
        d_log_mean.copy_(d_z.sum((1, 2, 3)))
    if d_log_std is not None:
        d_log_std.copy_((d_z * eps).sum((1, 2, 3)))
    if d_noise is not None:
        d_noise.copy_(d_z * log_std.to(dtype).view(-1, 1, 1, 1))
