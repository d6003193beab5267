"""base + Σ_k gates · maps · deltas in plain PyTorch, and its gradients."""

import torch
from torch import Tensor

from f2d_kernels.reference.precision import compute_dtype


def _experts(deltas: list[Tensor]) -> list[Tensor]:
    return list(deltas[0].unbind(1)) if deltas[0].dim() == 5 else deltas


def _weight(gates: Tensor, maps: Tensor | None, k: int) -> Tensor:
    """gates[b,k] · maps[b,k] as [B, 1 or C, 1 or H, 1 or W]."""
    gate = gates[:, k].reshape(gates.shape[0], -1, 1, 1)
    return gate if maps is None else gate * maps[:, k, None]


def forward(out: Tensor, deltas: list[Tensor], gates: Tensor, maps: Tensor | None, base: Tensor | None) -> None:
    dtype = compute_dtype(*deltas, gates, maps, base)
    gates, maps = gates.to(dtype), None if maps is None else maps.to(dtype)
    total = torch.zeros(out.shape, dtype=dtype, device=out.device) if base is None else base.to(dtype)
    for k, delta in enumerate(_experts(deltas)):
        total = total + _weight(gates, maps, k) * delta.to(dtype)
    out.copy_(total)


def backward(
    grad: Tensor,
    deltas: list[Tensor],
    gates: Tensor,
    maps: Tensor | None,
    d_deltas: list[Tensor],
    d_gates: Tensor | None,
    d_maps: Tensor | None,
) -> None:
    """d_deltas = gate·map·g;  d_maps = Σ_c gate·delta·g;  d_gates = Σ_hw map·delta·g (summed over c for gates
    [B,K])."""
    dtype = compute_dtype(grad, *deltas, gates, maps)
    grad, gates, maps = grad.to(dtype), gates.to(dtype), None if maps is None else maps.to(dtype)
    d_experts = _experts(d_deltas) if d_deltas else []
    for k, delta in enumerate(_experts(deltas)):
        if d_experts:
            d_delta = _weight(gates, maps, k) * grad
            d_experts[k].copy_(d_delta.sum(0, keepdim=True) if delta.shape[0] < grad.shape[0] else d_delta)
        if d_gates is None and d_maps is None:
            continue
        product = delta.to(dtype) * grad
        if d_maps is not None:
            d_maps[:, k] = (gates[:, k].reshape(gates.shape[0], -1, 1, 1) * product).sum(1)
        if d_gates is not None:
            per_channel = (product if maps is None else product * maps[:, k, None]).sum((2, 3))
            d_gates[:, k] = per_channel if gates.dim() == 3 else per_channel.sum(1)
