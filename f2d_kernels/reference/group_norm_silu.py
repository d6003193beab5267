"""silu(group_norm(x) · (1 + scale) + shift) in plain PyTorch, and its gradients."""

from typing import Any

import torch
from torch import Tensor

from f2d_kernels.reference.precision import compute_dtype, fill, filling


def _per_channel(value: Tensor | None, default: float, like: Tensor) -> Tensor:
    """[C] or [B,C] as [1 or B, C, 1, 1] of the dtype of `like`."""
    if value is None:
        return like.new_full((1, 1, 1, 1), default)
    return value.to(like.dtype).reshape(-1, value.shape[-1], 1, 1)


def _grouped(image: Tensor, num_groups: int) -> Tensor:
    """[B, G, elements of a group]."""
    batch, channels, height, width = image.shape
    return image.reshape(batch, num_groups, channels // num_groups * height * width)  # -1 fails if B = 0


def _normalised(x: Tensor, mean: Tensor, rstd: Tensor, dtype: torch.dtype) -> Tensor:
    """(x - mean) · rstd in the shape of x, subtracted in float64: the mean may be many standard deviations."""
    groups = _grouped(x.double(), mean.shape[1])
    return ((groups - mean[..., None]) * rstd[..., None]).to(dtype).reshape(x.shape)


def _modulated(
    n: Tensor, weight: Tensor | None, bias: Tensor | None, scale: Tensor | None, shift: Tensor | None
) -> Tensor:
    normed = n * _per_channel(weight, 1.0, n) + _per_channel(bias, 0.0, n)
    return normed * (1 + _per_channel(scale, 0.0, n)) + _per_channel(shift, 0.0, n)


def formula(x: Tensor, num_groups: int, *rest: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(result, its means [B,C] or nothing, mean [B,G], 1 / standard deviation [B,G])."""
    *parameters, eps, return_mean = rest
    dtype = compute_dtype(x, *parameters)
    groups = _grouped(x.double(), num_groups)
    variance, mean = torch.var_mean(groups, dim=-1, correction=0)
    rstd = (variance + eps).rsqrt()
    result = torch.nn.functional.silu(_modulated(_normalised(x, mean, rstd, dtype), *parameters))
    return result, result.mean((2, 3)) if return_mean else result.new_empty(0), mean, rstd


def _gradients(
    grad: Tensor, grad_mean: Tensor | None, mean: Tensor, rstd: Tensor, x: Tensor, *rest: Any
) -> list[Tensor]:
    """With g = grad + grad_mean / (H·W), q = sigmoid(u): d_u = g q (1 + u (1 - q)); with d_n = d_u (1 + scale) weight:
    d_x = rstd (d_n - mean(d_n) - n · mean(d_n · n)), means over the group; d_weight and d_bias sum d_u (1 + scale) n
    and d_u (1 + scale) over b, h, w; d_scale = Σ_hw d_u (n·weight + bias); d_shift = Σ_hw d_u."""
    weight, bias, scale, shift, (need_x, *need_parameters) = rest
    dtype = compute_dtype(grad, x, weight, bias, scale, shift)
    n = _normalised(x, mean, rstd, dtype)
    gain, offset = _per_channel(weight, 1.0, n), _per_channel(bias, 0.0, n)
    factor = 1 + _per_channel(scale, 0.0, n)
    u = (n * gain + offset) * factor + _per_channel(shift, 0.0, n)
    g = grad.to(dtype)
    if grad_mean is not None:
        g = g + grad_mean.to(dtype)[..., None, None] / (x.shape[2] * x.shape[3])
    q = torch.sigmoid(u)
    d_u = g * q * (1 + u * (1 - q))
    results = []
    if need_x:
        d_n, n_groups = (_grouped(t, mean.shape[1]) for t in (d_u * factor * gain, n))
        centred = d_n - d_n.mean(-1, keepdim=True) - n_groups * (d_n * n_groups).mean(-1, keepdim=True)
        results.append((rstd[..., None].to(dtype) * centred).reshape(x.shape))
    sums = (
        lambda: (d_u * factor * n).sum((0, 2, 3)),
        lambda: (d_u * factor).sum((0, 2, 3)),
        lambda: (d_u * (n * gain + offset)).sum((2, 3)),
        lambda: d_u.sum((2, 3)),
    )
    return [*results, *(total() for total, need in zip(sums, need_parameters, strict=True) if need)]


def gradients(
    grad: Tensor, grad_mean: Tensor | None, mean: Tensor, rstd: Tensor, x: Tensor, *rest: Any
) -> list[Tensor]:
    """`_gradients` with mean and rstd as functions of x, so that their derivatives reach x; eps is what rstd says."""
    variance, mean = torch.var_mean(_grouped(x.double(), mean.shape[1]), dim=-1, correction=0)
    rstd = (variance + (rstd.pow(-2) - variance).detach()).rsqrt()
    return _gradients(grad, grad_mean, mean, rstd, x, *rest)


def forward(out: Tensor, channel_mean: Tensor | None, mean: Tensor, rstd: Tensor, *inputs: Any) -> None:
    values = formula(*[*inputs, channel_mean is not None])
    fill([out, channel_mean, mean, rstd], [v for v in values if v.numel()])


backward = filling(_gradients, 5)
