"""base + Σ_k gates · maps · (weight[k] (channel_scale ⊙ features) + bias[k]) in plain PyTorch, and its gradients."""

from collections.abc import Sequence

import torch
from torch import Tensor

from f2d_kernels.reference.precision import compute_dtype, fill


def _experts(features: list[Tensor]) -> list[Tensor]:
    return list(features[0].unbind(1)) if features[0].dim() == 5 else features


def _of_expert(tensor: Tensor | None, k: int, dtype: torch.dtype, otherwise: float) -> Tensor:
    """tensor[:, k] as [B, n, 1, 1] or [B, 1, H, W], a scalar `otherwise` where there is no tensor."""
    if tensor is None:
        return torch.tensor(otherwise, dtype=dtype)
    chosen = tensor[:, k].to(dtype)
    return chosen[:, None] if chosen.dim() == 3 else chosen.reshape(chosen.shape[0], -1, 1, 1)


def _projected(matrix: Tensor, image: Tensor) -> Tensor:
    """matrix [n,m] times every pixel of image [B,m,H,W]; a matrix product, which autograd can batch, unlike einsum."""
    batch, _, height, width = image.shape
    return (matrix @ _rows(image)).reshape(batch, matrix.shape[0], height, width)


def _rows(image: Tensor) -> Tensor:
    batch, channels, height, width = image.shape
    return image.reshape(batch, channels, height * width)


def formula(
    features: list[Tensor],
    weight: Tensor,
    bias: Tensor | None,
    channel_scale: Tensor | None,
    gates: Tensor,
    maps: Tensor | None,
    base: Tensor | None,
) -> Tensor:
    dtype = compute_dtype(*features, weight, bias, channel_scale, gates, maps, base)
    shape = (gates.shape[0], weight.shape[1], *features[0].shape[-2:])
    total = torch.zeros(shape, dtype=dtype, device=gates.device) if base is None else base.to(dtype)
    for k, feature in enumerate(_experts(features)):
        scaled = _of_expert(channel_scale, k, dtype, 1.0) * feature.to(dtype)
        delta = _projected(weight[k].to(dtype), scaled)
        if bias is not None:
            delta = delta + bias[k].to(dtype)[:, None, None]
        total = total + _of_expert(gates, k, dtype, 1.0) * _of_expert(maps, k, dtype, 1.0) * delta
    return total


def gradients(
    grad: Tensor,
    features: list[Tensor],
    weight: Tensor,
    bias: Tensor | None,
    channel_scale: Tensor | None,
    gates: Tensor,
    maps: Tensor | None,
    needs: Sequence[bool],
) -> list[Tensor]:
    """With a = gate·map, S = channel_scale ⊙ features, P = W S + b:  d_S = a Wᵀ g;  d_features = channel_scale ⊙ d_S;
    d_W = Σ_bhw a g Sᵀ;  d_b = Σ_bhw a g;  d_channel_scale = Σ_hw features ⊙ d_S;  d_gate = Σ_hw map Σ_c g P;
    d_map = gate Σ_c g P."""
    dtype = compute_dtype(grad, *features, weight, bias, channel_scale, gates, maps)
    grad = grad.to(dtype)
    need_features, need_weight, need_bias, need_scale, need_gates, need_maps = needs
    d_experts, d_weight, d_bias, d_scale, d_gates, d_maps = ([] for _ in range(6))
    for k, feature in enumerate(_experts(features)):
        projection, feature = weight[k].to(dtype), feature.to(dtype)
        scale, gate, chart = (_of_expert(t, k, dtype, 1.0) for t in (channel_scale, gates, maps))
        weighted = gate * chart * grad
        d_scaled = _projected(projection.T, weighted)
        if need_features:
            d_experts.append(scale * d_scaled)
        if need_weight:
            # a matrix product's running sum over an image would lose a digit in float32
            d_weight.append((_rows(weighted.double()) @ _rows((scale * feature).double()).transpose(1, 2)).sum(0))
        if need_bias:
            d_bias.append(weighted.sum((0, 2, 3)))
        if need_scale:
            d_scale.append((feature * d_scaled).sum((2, 3)))
        if not (need_gates or need_maps):
            continue
        delta = _projected(projection, scale * feature)
        if bias is not None:
            delta = delta + bias[k].to(dtype)[:, None, None]
        correlation = (grad * delta).sum(1, keepdim=True)
        if need_gates:
            d_gates.append((chart * correlation).sum((1, 2, 3)))
        if need_maps:
            d_maps.append((gate * correlation)[:, 0])
    d_features = [torch.stack(d_experts, 1)] if need_features and features[0].dim() == 5 else d_experts
    of_parameters = [torch.stack(d, 0) for d in (d_weight, d_bias) if d]
    return [*d_features, *of_parameters, *(torch.stack(d, 1) for d in (d_scale, d_gates, d_maps) if d)]


def forward(out: Tensor, *inputs: object) -> None:
    out.copy_(formula(*inputs))  # type: ignore[arg-type]


def backward(
    grad: Tensor,
    features: list[Tensor],
    weight: Tensor,
    bias: Tensor | None,
    channel_scale: Tensor | None,
    gates: Tensor,
    maps: Tensor | None,
    d_features: list[Tensor],
    *others: Tensor | None,
) -> None:
    """others: d_weight, d_bias, d_channel_scale, d_gates, d_maps."""
    needs = [bool(d_features), *(d is not None for d in others)]
    fill([*d_features, *others], gradients(grad, features, weight, bias, channel_scale, gates, maps, needs))
