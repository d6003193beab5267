"""mu = clamp(anchor + assembly), x_next = transition of x to mu: the two ops of this folder, one after the other."""

import torch
from torch import Tensor

from f2d_kernels.reference import expert_assembly, lognormal_transition
from f2d_kernels.reference.precision import compute_dtype


def _sum(
    x: Tensor, deltas: list[Tensor], gates: Tensor, maps: Tensor | None, base: Tensor | None, anchor: Tensor | None
) -> Tensor:
    """anchor + assembly in mu's dtype, before clamping."""
    dtype = deltas[0].dtype
    for tensor in (*deltas, base):
        dtype = dtype if tensor is None else torch.promote_types(dtype, tensor.dtype)
    assembled = torch.empty(x.shape, dtype=dtype, device=x.device)
    expert_assembly.forward(assembled, deltas, gates, maps, base)
    return (x if anchor is None else anchor) + assembled


def forward(
    x_next: Tensor,
    mu: Tensor,
    x: Tensor,
    deltas: list[Tensor],
    gates: Tensor,
    maps: Tensor | None,
    base: Tensor | None,
    log_mean: Tensor,
    log_std: Tensor,
    anchor: Tensor | None,
    low: float,
    high: float,
    noise: Tensor | None,
    seed: Tensor | None,
    stream: int,
    top: int,
    left: int,
) -> None:
    mu.copy_(_sum(x, deltas, gates, maps, base, anchor).clamp(low, high))
    lognormal_transition.forward(x_next, x, mu, log_mean, log_std, noise, seed, stream, top, left)


def backward(
    grad_x: Tensor | None,
    grad_mu: Tensor | None,
    x: Tensor,
    deltas: list[Tensor],
    gates: Tensor,
    maps: Tensor | None,
    base: Tensor | None,
    log_mean: Tensor,
    log_std: Tensor,
    anchor: Tensor | None,
    low: float,
    high: float,
    noise: Tensor | None,
    seed: Tensor | None,
    stream: int,
    top: int,
    left: int,
    d_x: Tensor | None,
    d_deltas: list[Tensor],
    d_gates: Tensor | None,
    d_maps: Tensor | None,
    d_mu: Tensor | None,
    d_log_mean: Tensor | None,
    d_log_std: Tensor | None,
    d_noise: Tensor | None,
) -> None:
    """v = g_mu + g_x (1 - f) where low <= sum <= high, else 0;  d_x = g_x f (+ v where x is the anchor);  d_mu = v, the
    gradient of base and anchor;  the assembly's gradients from v, those of the exponent from g_x."""
    dtype = compute_dtype(grad_x, grad_mu, x, *deltas, gates, maps, base, log_mean, log_std, anchor, noise)
    total = _sum(x, deltas, gates, maps, base, anchor)
    through_x, v = (torch.zeros(x.shape, dtype=dtype, device=x.device) for _ in range(2))
    if grad_x is not None:
        transition = (x, total.clamp(low, high), log_mean, log_std, noise, seed, stream, top, left)
        lognormal_transition.backward(grad_x, *transition, through_x, v, d_log_mean, d_log_std, d_noise)
    if grad_mu is not None:
        v += grad_mu
    v = torch.where((total >= low) & (total <= high), v, 0.0)
    if d_x is not None:
        d_x.copy_(through_x + v if anchor is None else through_x)
    if d_mu is not None:
        d_mu.copy_(v)
    expert_assembly.backward(v, deltas, gates, maps, d_deltas, d_gates, d_maps)
