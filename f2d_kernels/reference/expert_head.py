"""base + Σ_k gates · maps · (weight[k] (channel_scale ⊙ features) + bias[k]) in plain PyTorch, and its gradients."""

import torch
from torch import Tensor

from f2d_kernels.reference.precision import compute_dtype


def _experts(features: list[Tensor]) -> list[Tensor]:
    return list(features[0].unbind(1)) if features[0].dim() == 5 else features


def _of_expert(tensor: Tensor | None, k: int, dtype: torch.dtype, otherwise: float) -> Tensor:
    """tensor[:, k] as [B, n, 1, 1] or [B, 1, H, W], a scalar `otherwise` where there is no tensor."""
    if tensor is None:
        return torch.tensor(otherwise, dtype=dtype)
    chosen = tensor[:, k].to(dtype)
    return chosen[:, None] if chosen.dim() == 3 else chosen.reshape(chosen.shape[0], -1, 1, 1)


def forward(
    out: Tensor,
    features: list[Tensor],
    weight: Tensor,
    bias: Tensor | None,
    channel_scale: Tensor | None,
    gates: Tensor,
    maps: Tensor | None,
    base: Tensor | None,
) -> None:
    dtype = compute_dtype(*features, weight, bias, channel_scale, gates, maps, base)
    total = torch.zeros(out.shape, dtype=dtype, device=out.device) if base is None else base.to(dtype)
    for k, feature in enumerate(_experts(features)):
        scaled = _of_expert(channel_scale, k, dtype, 1.0) * feature.to(dtype)
        delta = torch.einsum("cf,bfhw->bchw", weight[k].to(dtype), scaled)
        if bias is not None:
            delta = delta + bias[k].to(dtype)[:, None, None]
        total = total + _of_expert(gates, k, dtype, 1.0) * _of_expert(maps, k, dtype, 1.0) * delta
    out.copy_(total)


def backward(
    grad: Tensor,
    features: list[Tensor],
    weight: Tensor,
    bias: Tensor | None,
    channel_scale: Tensor | None,
    gates: Tensor,
    maps: Tensor | None,
    d_features: list[Tensor],
    d_weight: Tensor | None,
    d_bias: Tensor | None,
    d_channel_scale: Tensor | None,
    d_gates: Tensor | None,
    d_maps: Tensor | None,
) -> None:
    """With a = gate·map, S = channel_scale ⊙ features, P = W S + b:  d_S = a Wᵀ g;  d_features = channel_scale ⊙ d_S;
    d_channel_scale = Σ_hw features ⊙ d_S;  d_W = Σ_bhw a g Sᵀ;  d_b = Σ_bhw a g;  d_map = gate Σ_c g P;
    d_gate = Σ_hw map Σ_c g P."""
    dtype = compute_dtype(grad, *features, weight, bias, channel_scale, gates, maps)
    grad = grad.to(dtype)
    d_experts = _experts(d_features) if d_features else []
    for k, feature in enumerate(_experts(features)):
        projection, feature = weight[k].to(dtype), feature.to(dtype)
        scale, gate, chart = (_of_expert(t, k, dtype, 1.0) for t in (channel_scale, gates, maps))
        weighted = gate * chart * grad
        d_scaled = torch.einsum("cf,bchw->bfhw", projection, weighted)
        if d_experts:
            d_experts[k].copy_(scale * d_scaled)
        if d_channel_scale is not None:
            d_channel_scale[:, k] = (feature * d_scaled).sum((2, 3))
        if d_weight is not None:
            # a matrix product's running sum over an image would lose a digit in float32
            d_weight[k] = torch.einsum("bchw,bfhw->cf", weighted.double(), (scale * feature).double())
        if d_bias is not None:
            d_bias[k] = weighted.sum((0, 2, 3))
        if d_gates is None and d_maps is None:
            continue
        delta = torch.einsum("cf,bfhw->bchw", projection, scale * feature)
        if bias is not None:
            delta = delta + bias[k].to(dtype)[:, None, None]
        correlation = (grad * delta).sum(1, keepdim=True)
        if d_maps is not None:
            d_maps[:, k] = (gate * correlation)[:, 0]
        if d_gates is not None:
            d_gates[:, k] = (chart * correlation).sum((1, 2, 3))
