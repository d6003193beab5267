"""silu(group_norm(x) · (1 + scale) + shift) in plain PyTorch, and its gradients."""

import torch
from torch import Tensor

from f2d_kernels.reference.precision import compute_dtype


def _per_channel(value: Tensor | None, default: float, like: Tensor) -> Tensor:
    """[C] or [B,C] as [1 or B, C, 1, 1] of the dtype of `like`."""
    if value is None:
        return like.new_full((1, 1, 1, 1), default)
    return value.to(like.dtype).reshape(-1, value.shape[-1], 1, 1)


def _normalised(x: Tensor, mean: Tensor, rstd: Tensor, dtype: torch.dtype) -> Tensor:
    """(x - mean) · rstd in the shape of x, subtracted in float64: the mean may be many standard deviations."""
    groups = x.double().reshape(*mean.shape, -1)
    return ((groups - mean[..., None]) * rstd[..., None]).to(dtype).reshape(x.shape)


def forward(
    out: Tensor,
    channel_mean: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    x: Tensor,
    num_groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    eps: float,
) -> None:
    dtype = compute_dtype(x, weight, bias, scale, shift)
    variance, average = torch.var_mean(x.double().reshape(*mean.shape, -1), dim=-1, correction=0)
    mean.copy_(average)
    rstd.copy_((variance + eps).rsqrt())
    n = _normalised(x, mean, rstd, dtype)
    normed = n * _per_channel(weight, 1.0, n) + _per_channel(bias, 0.0, n)
    u = normed * (1 + _per_channel(scale, 0.0, n)) + _per_channel(shift, 0.0, n)
    result = torch.nn.functional.silu(u)
    out.copy_(result)
    if channel_mean is not None:
        channel_mean.copy_(result.mean((2, 3)))


def backward(
    grad: Tensor,
    grad_mean: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    d_x: Tensor | None,
    d_weight: Tensor | None,
    d_bias: Tensor | None,
    d_scale: Tensor | None,
    d_shift: Tensor | None,
) -> None:
    """With g = grad + grad_mean / (H·W), q = sigmoid(u): d_u = g q (1 + u (1 - q)); d_shift = Σ_hw d_u;
    d_scale = Σ_hw d_u (n·weight + bias); d_bias and d_weight sum d_u (1 + scale) and d_u (1 + scale) n over b, h, w;
    with d_n = d_u (1 + scale) weight: d_x = rstd (d_n - mean(d_n) - n · mean(d_n · n)), means over the group."""
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
    if d_shift is not None:
        d_shift.copy_(d_u.sum((2, 3)))
    if d_scale is not None:
        d_scale.copy_((d_u * (n * gain + offset)).sum((2, 3)))
    if d_bias is not None:
        d_bias.copy_((d_u * factor).sum((0, 2, 3)))
    if d_weight is not None:
        d_weight.copy_((d_u * factor * n).sum((0, 2, 3)))
    if d_x is not None:
        groups = (*mean.shape, -1)
        d_n, n = (d_u * factor * gain).reshape(groups), n.reshape(groups)
        centred = d_n - d_n.mean(-1, keepdim=True) - n * (d_n * n).mean(-1, keepdim=True)
        d_x.copy_((rstd[..., None].to(dtype) * centred).reshape(x.shape))
