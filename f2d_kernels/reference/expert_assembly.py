"""base + Σ_k gates · maps · deltas in plain PyTorch, and its gradients."""

from collections.abc import Sequence

import torch
from torch import Tensor

from f2d_kernels.reference.precision import compute_dtype, filling


def experts_of(deltas: list[Tensor]) -> list[Tensor]:
    return list(deltas[0].unbind(1)) if deltas[0].dim() == 5 else deltas


def _gate(gates: Tensor, k: int) -> Tensor:
    """gates[b,k] as [B, 1 or C, 1, 1]."""
    return (gates[:, k, None] if gates.dim() == 2 else gates[:, k])[..., None, None]


def _weight(gates: Tensor, maps: Tensor | None, k: int) -> Tensor:
    """gates[b,k] · maps[b,k] as [B, 1 or C, 1 or H, 1 or W]."""
    gate = _gate(gates, k)
    return gate if maps is None else gate * maps[:, k, None]


def formula(deltas: list[Tensor], gates: Tensor, maps: Tensor | None, base: Tensor | None) -> Tensor:
    dtype = compute_dtype(*deltas, gates, maps, base)
    gates, maps = gates.to(dtype), None if maps is None else maps.to(dtype)
    shape = (gates.shape[0], *deltas[0].shape[-3:])
    total = torch.zeros(shape, dtype=dtype, device=gates.device) if base is None else base.to(dtype)
    for k, delta in enumerate(experts_of(deltas)):
        total = total + _weight(gates, maps, k) * delta.to(dtype)
    return total


def gradients(
    grad: Tensor, deltas: list[Tensor], gates: Tensor, maps: Tensor | None, needs: Sequence[bool]
) -> list[Tensor]:
    """d_deltas = gate·map·g;  d_gates = Σ_hw map·delta·g (summed over c for gates [B,K]);
    d_maps = Σ_c gate·delta·g."""
    dtype = compute_dtype(grad, *deltas, gates, maps)
    grad, gates, maps = grad.to(dtype), gates.to(dtype), None if maps is None else maps.to(dtype)
    need_deltas, need_gates, need_maps = needs
    d_experts, d_gates, d_maps = [], [], []
    for k, delta in enumerate(experts_of(deltas)):
        if need_deltas:
            d_delta = _weight(gates, maps, k) * grad
            d_experts.append(d_delta.sum(0, keepdim=True) if len(delta) != len(grad) else d_delta)
        if not (need_gates or need_maps):
            continue
        product = delta.to(dtype) * grad
        if need_gates:
            per_channel = (product if maps is None else product * maps[:, k, None]).sum((2, 3))
            d_gates.append(per_channel if gates.dim() == 3 else per_channel.sum(1))
        if need_maps:
            d_maps.append((_gate(gates, k) * product).sum(1))
    d_deltas = [torch.stack(d_experts, 1)] if need_deltas and deltas[0].dim() == 5 else d_experts
    return [*d_deltas, *(torch.stack(d, 1) for d in (d_gates, d_maps) if d)]


def forward(out: Tensor, deltas: list[Tensor], gates: Tensor, maps: Tensor | None, base: Tensor | None) -> None:
    out.copy_(formula(deltas, gates, maps, base))


backward = filling(gradients, 3)
