"""Gated expert assembly: base + Σ_k gates · maps · deltas."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from f2d_kernels._checks import as_list
from f2d_kernels.ops._allocate import common_dtype, empty_gradient, empty_image, is_channels_last, stand_in
from f2d_kernels.ops._derivatives import backward_of
from f2d_kernels.ops._direct import differentiated
from f2d_kernels.ops._experts import check_experts
from f2d_kernels.ops._library import define_direct, define_op

OP = "expert_assembly"


def expert_assembly(
    deltas: Tensor | Sequence[Tensor], gates: Tensor, maps: Tensor | None = None, base: Tensor | None = None
) -> Tensor:
    """out[b] = base[b] + Σ_k gates[b,k] · maps[b,k] · deltas[b,k], in one pass over memory.

    This is how F²D-Net (v = v_share + Σ_k alpha_k · m_k ⊙ Δ_k) and other gated restorers combine their experts.

    Args:
        deltas: [B,K,C,H,W]; or [1,K,C,H,W], shared by the batch; or a sequence of K tensors [B,C,H,W], which are never
            stacked. Any strides.
        gates: [B,K], one weight per expert, or [B,K,C], one per expert and channel.
        maps: [B,K,H,W], where each expert acts; None means everywhere (1).
        base: [B,C,H,W], the image that the experts correct; None means 0.

    Returns:
        [B,C,H,W] in the promoted dtype of deltas and base (gates and maps do not count) and the memory format of
        deltas. Arithmetic is in float32, or in float64 if any argument is float64. Differentiable in every argument.

    Raises:
        TypeError: an argument is not a floating-point tensor.
        ValueError: shapes or devices do not match.

    Example:
        >>> deltas, gates, maps = torch.randn(2, 4, 3, 8, 8), torch.rand(2, 4), torch.rand(2, 4, 8, 8)
        >>> out = expert_assembly(deltas, gates, maps)
        >>> torch.allclose(out, torch.einsum("bk,bkhw,bkchw->bchw", gates, maps, deltas), atol=1e-6)
        True
    """
    stacked, listed = isinstance(deltas, Tensor), as_list(OP, "deltas", deltas)
    tracked = differentiated(listed, gates, maps, base)
    if tracked is not None:
        out = _DIRECT(listed, stacked, gates, maps, base)
        if out is not None:
            return _CONNECT(out, listed, gates, maps, base) if tracked else out
    check_experts(OP, listed, stacked, gates, maps, base)
    return torch.ops.f2d_kernels.expert_assembly.default(listed, gates, maps, base)


def _empty_result(deltas: list[Tensor], gates: Tensor, maps: Tensor | None, base: Tensor | None) -> Tensor:
    shape = (gates.shape[0], *deltas[0].shape[-3:])
    return empty_image(shape, common_dtype(*deltas, base), gates, is_channels_last(deltas[0]))


def _empty_gradients(grad: Tensor, *arguments: Any) -> tuple[Any, ...]:
    deltas, gates, maps, channels_last, (need_deltas, need_gates, need_maps) = arguments
    d_deltas = [empty_gradient(d, True, channels_last) for d in deltas] if need_deltas else []
    return d_deltas, empty_gradient(gates, need_gates), empty_gradient(maps, need_maps)


def _setup_context(ctx: Any, needs: Sequence[bool], inputs: tuple, output: Tensor) -> None:
    deltas, gates, maps, base = inputs
    ctx.count = len(deltas)
    need_deltas = any(needs[: ctx.count])
    need_gates, need_maps, need_base = needs[ctx.count : ctx.count + 3]
    ctx.needs = [need_deltas, need_gates, need_maps]
    ctx.channels_last = is_channels_last(deltas[0])
    ctx.base_dtype = base.dtype if need_base else None
    # the values of deltas matter only to the gradients of gates and maps, those of gates and maps to the others' too
    kept = deltas if need_gates or need_maps else [stand_in(d, ctx.direct) for d in deltas]
    ctx.save_for_backward(gates, maps, *kept)


def _autograd(ctx: Any, grad: Tensor) -> tuple:
    gates, maps, *deltas = ctx.saved_tensors
    needs = list(ctx.needs)
    results: list[Tensor] = []
    if any(needs):
        op = backward_of(OP, _backward, ctx, grad)
        results = list(op(grad, deltas, gates, maps, ctx.channels_last, needs, ctx.backend))
    d_deltas = [results.pop(0) for _ in range(ctx.count)] if needs[0] else [None] * ctx.count
    d_gates = results.pop(0) if needs[1] else None
    d_maps = results.pop(0) if needs[2] else None
    d_base = grad.to(ctx.base_dtype) if ctx.base_dtype is not None else None
    return d_deltas, d_gates, d_maps, d_base


_READ = "Tensor[] deltas, Tensor gates, Tensor? maps"
_backward, _CONNECT = define_op(
    OP,
    f"{_READ}, Tensor? base",
    "Tensor(a!) out",
    "Tensor grad",
    "Tensor(a!)[] d_deltas, Tensor(b!)? d_gates, Tensor(c!)? d_maps",
    read=_READ,
    empty_results=_empty_result,
    empty_gradients=_empty_gradients,
    setup_context=_setup_context,
    autograd=_autograd,
)
_DIRECT = define_direct(
    "expert_assembly_direct(Tensor[] deltas, bool stacked, Tensor? gates, Tensor? maps, Tensor? base) -> Tensor?"
)
