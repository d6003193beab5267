"""mu = clamp(anchor + assembly), x_next = transition of x to mu: the two ops of this folder, one after the other."""

from typing import Any

import torch
from torch import Tensor

from f2d_kernels.arguments import TransportStep, TransportStepGradients, TransportStepNeeds
from f2d_kernels.reference import expert_assembly, lognormal_transition
from f2d_kernels.reference.precision import compute_dtype, fill, filling, representable


def _sum(a: TransportStep) -> tuple[Tensor, float, float]:
    """(anchor + assembly in mu's dtype before clamping, the bounds of the clamp)."""
    dtype = a.deltas[0].dtype
    for tensor in (*a.deltas, a.base):
        dtype = dtype if tensor is None else torch.promote_types(dtype, tensor.dtype)
    assembly = expert_assembly.formula(a.deltas, a.gates, a.maps, a.base)
    total = (a.x if a.anchor is None else a.anchor) + assembly.to(dtype)
    return total, representable(a.low, total.dtype), representable(a.high, total.dtype)


def formula(*arguments: Any) -> tuple[Tensor, Tensor]:
    """(x_next, mu)."""
    a = TransportStep(*arguments)
    total, low, high = _sum(a)
    mu = total.clamp(low, high)
    return lognormal_transition.formula(a.x, mu, a.log_mean, a.log_std, *a[10:]), mu


def gradients(grad_x: Tensor | None, grad_mu: Tensor | None, *arguments: Any) -> list[Tensor]:
    """v = g_mu + g_x (1 - f) where low <= sum <= high, else 0;  d_x = g_x f (+ v where x is the anchor);  the
    assembly's gradients from v;  d_mu = v, the gradient of base and anchor;  those of the exponent from g_x."""
    *inputs, needs = arguments
    a, need = TransportStep(*inputs), TransportStepNeeds(*needs)
    dtype = compute_dtype(grad_x, grad_mu, a.x, *a.deltas, *a[2:8], a.noise)
    total, low, high = _sum(a)
    through_x = v = torch.zeros(a.x.shape, dtype=dtype, device=a.x.device)
    of_exponent: list[Tensor] = []
    if grad_x is not None:
        transition = (a.x, total.clamp(low, high), a.log_mean, a.log_std, *a[10:])
        wanted = [True, True, need.log_mean, need.log_std, need.noise]
        through_x, v, *of_exponent = lognormal_transition.gradients(grad_x, *transition, wanted)
    if grad_mu is not None:
        v = v + grad_mu
    v = torch.where((total >= low) & (total <= high), v, 0.0)
    return [
        *([through_x + v if a.anchor is None else through_x] if need.x else []),
        *expert_assembly.gradients(v, a.deltas, a.gates, a.maps, needs[1:4]),
        *([v] if need.base or need.anchor else []),
        *of_exponent,
    ]


def forward(x_next: Tensor, mu: Tensor, *inputs: Any) -> None:
    fill([x_next, mu], formula(*inputs))


def _gradients(*arguments: Any) -> list[Tensor]:
    """`gradients` with one flag for mu instead of those of base and anchor."""
    *others, needs = arguments
    return gradients(*others, [*needs[:7], False, needs[7]])


backward = filling(_gradients, len(TransportStepGradients._fields))
