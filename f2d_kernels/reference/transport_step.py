"""mu = clamp(anchor + assembly), x_next = transition of x to mu: the two ops of this folder, one after the other."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from f2d_kernels.reference import expert_assembly, lognormal_transition
from f2d_kernels.reference.precision import compute_dtype, fill


def _sum(
    x: Tensor, deltas: list[Tensor], gates: Tensor, maps: Tensor | None, base: Tensor | None, anchor: Tensor | None
) -> Tensor:
    """anchor + assembly in mu's dtype, before clamping."""
    dtype = deltas[0].dtype
    for tensor in (*deltas, base):
        dtype = dtype if tensor is None else torch.promote_types(dtype, tensor.dtype)
    return (x if anchor is None else anchor) + expert_assembly.formula(deltas, gates, maps, base).to(dtype)


def formula(
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
    *source: Any,
) -> tuple[Tensor, Tensor]:
    """(x_next, mu); source: noise, seed, stream, top, left."""
    mu = _sum(x, deltas, gates, maps, base, anchor).clamp(low, high)
    return lognormal_transition.formula(x, mu, log_mean, log_std, *source), mu


def gradients(
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
    needs: Sequence[bool],
) -> list[Tensor]:
    """v = g_mu + g_x (1 - f) where low <= sum <= high, else 0;  d_x = g_x f (+ v where x is the anchor);  the
    assembly's gradients from v;  d_mu = v, the gradient of base and anchor;  those of the exponent from g_x.

    needs: those of x, deltas, gates, maps, base, log_mean, log_std, anchor, noise.
    """
    dtype = compute_dtype(grad_x, grad_mu, x, *deltas, gates, maps, base, log_mean, log_std, anchor, noise)
    needs_x, *needs_experts, needs_base, needs_mean, needs_std, needs_anchor, needs_noise = needs
    total = _sum(x, deltas, gates, maps, base, anchor)
    through_x = v = torch.zeros(x.shape, dtype=dtype, device=x.device)
    of_exponent: list[Tensor] = []
    if grad_x is not None:
        transition = (x, total.clamp(low, high), log_mean, log_std, noise, seed, stream, top, left)
        wanted = [True, True, needs_mean, needs_std, needs_noise]
        through_x, v, *of_exponent = lognormal_transition.gradients(grad_x, *transition, wanted)
    if grad_mu is not None:
        v = v + grad_mu
    v = torch.where((total >= low) & (total <= high), v, 0.0)
    return [
        *([through_x + v if anchor is None else through_x] if needs_x else []),
        *expert_assembly.gradients(v, deltas, gates, maps, needs_experts),
        *([v] if needs_base or needs_anchor else []),
        *of_exponent,
    ]


def forward(x_next: Tensor, mu: Tensor, *inputs: Any) -> None:
    fill([x_next, mu], formula(*inputs))


def backward(grad_x: Tensor | None, grad_mu: Tensor | None, *arguments: Any) -> None:
    """The inputs, then d_x, d_deltas, d_gates, d_maps, d_mu, d_log_mean, d_log_std, d_noise."""
    inputs, (d_x, d_deltas, *others) = arguments[:-8], arguments[-8:]
    d_gates, d_maps, d_mu, d_mean, d_std, d_noise = (d is not None for d in others)
    needs = [d_x is not None, bool(d_deltas), d_gates, d_maps, d_mu, d_mean, d_std, False, d_noise]
    fill([d_x, *d_deltas, *others], gradients(*[grad_x, grad_mu, *inputs, needs]))
