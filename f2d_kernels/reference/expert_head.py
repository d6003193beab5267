"""base + Σ_k gates · maps · (weight[k] (channel_scale ⊙ features) + bias[k]) in plain PyTorch, and its gradients."""

from typing import Any

import torch
from torch import Tensor

from f2d_kernels.arguments import ExpertHead, ExpertHeadGradients
from f2d_kernels.reference.expert_assembly import experts_of
from f2d_kernels.reference.precision import compute_dtype, filling


def _of_expert(tensor: Tensor | None, k: int, dtype: torch.dtype, otherwise: float) -> Tensor:
    """tensor[:, k] as [B, n, 1, 1] or [B, 1, H, W], a scalar `otherwise` where there is no tensor."""
    if tensor is None:
        return torch.tensor(otherwise, dtype=dtype)
    chosen = tensor[:, k].to(dtype)
    chosen = chosen if chosen.dim() == 2 else chosen[:, None]
    return chosen if chosen.dim() == 4 else chosen[..., None, None]


def _projected(matrix: Tensor, image: Tensor) -> Tensor:
    """matrix [n,m] times every pixel of image [B,m,H,W]; a matrix product, which autograd can batch, unlike einsum."""
    batch, _, height, width = image.shape
    # autocast would round float32 factors to 16 bits, and nothing switches it off inside torch.func.jvp
    dtype = torch.float64 if torch._C._is_any_autocast_enabled() else image.dtype
    product = matrix.to(dtype) @ _rows(image).to(dtype)
    return product.to(image.dtype).reshape(batch, matrix.shape[0], height, width)


def _rows(image: Tensor) -> Tensor:
    batch, channels, height, width = image.shape
    return image.reshape(batch, channels, height * width)


def _delta(a: ExpertHead, k: int, scaled: Tensor) -> Tensor:
    """weight[k] · scaled + bias[k]."""
    delta = _projected(a.weight[k].to(scaled.dtype), scaled)
    return delta if a.bias is None else delta + a.bias[k].to(scaled.dtype)[:, None, None]


def formula(*arguments: Any) -> Tensor:
    a = ExpertHead(*arguments)
    dtype = compute_dtype(*a.features, *a[1:])
    shape = (a.gates.shape[0], a.weight.shape[1], *a.features[0].shape[-2:])
    total = torch.zeros(shape, dtype=dtype, device=a.gates.device) if a.base is None else a.base.to(dtype)
    for k, feature in enumerate(experts_of(a.features)):
        scaled = _of_expert(a.channel_scale, k, dtype, 1.0) * feature.to(dtype)
        total = total + _of_expert(a.gates, k, dtype, 1.0) * _of_expert(a.maps, k, dtype, 1.0) * _delta(a, k, scaled)
    return total


def gradients(grad: Tensor, *arguments: Any) -> list[Tensor]:
    """With a = gate·map, S = channel_scale ⊙ features, P = W S + b:  d_S = a Wᵀ g;  d_features = channel_scale ⊙ d_S;
    d_W = Σ_bhw a g Sᵀ;  d_b = Σ_bhw a g;  d_channel_scale = Σ_hw features ⊙ d_S;  d_gate = Σ_hw map Σ_c g P;
    d_map = gate Σ_c g P."""
    *inputs, needs = arguments
    a, need = ExpertHead(*inputs), ExpertHeadGradients(*needs)
    dtype = compute_dtype(grad, *a.features, *a[1:])
    grad = grad.to(dtype)
    d_experts, d_weight, d_bias, d_scale, d_gates, d_maps = ([] for _ in range(6))
    for k, feature in enumerate(experts_of(a.features)):
        feature = feature.to(dtype)
        scale, gate, chart = (_of_expert(t, k, dtype, 1.0) for t in (a.channel_scale, a.gates, a.maps))
        weighted = gate * chart * grad
        d_scaled = _projected(a.weight[k].to(dtype).T, weighted)
        if need.features:
            d_experts.append(scale * d_scaled)
        if need.weight:
            # a matrix product's running sum over an image would lose a digit in float32
            d_weight.append((_rows(weighted.double()) @ _rows((scale * feature).double()).transpose(1, 2)).sum(0))
        if need.bias:
            d_bias.append(weighted.sum((0, 2, 3)))
        if need.channel_scale:
            d_scale.append((feature * d_scaled).sum((2, 3)))
        if not (need.gates or need.maps):
            continue
        correlation = (grad * _delta(a, k, scale * feature)).sum(1, keepdim=True)
        if need.gates:
            d_gates.append((chart * correlation).sum((1, 2, 3)))
        if need.maps:
            d_maps.append((gate * correlation)[:, 0])
    d_features = [torch.stack(d_experts, 1)] if need.features and a.features[0].dim() == 5 else d_experts
    of_parameters = [torch.stack(d, 0) for d in (d_weight, d_bias) if d]
    return [*d_features, *of_parameters, *(torch.stack(d, 1) for d in (d_scale, d_gates, d_maps) if d)]


def forward(out: Tensor, *inputs: Any) -> None:
    out.copy_(formula(*inputs))


backward = filling(gradients, len(ExpertHeadGradients._fields))
