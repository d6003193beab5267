"""The last layer of every expert and their gated sum in one op: base + Σ_k gates · maps · (W_k (s_k ⊙ F_k) + b_k)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from f2d_kernels._checks import as_list, check_device, check_floating, check_shape
from f2d_kernels.arguments import ExpertHead, ExpertHeadGradients
from f2d_kernels.ops._allocate import common_dtype, empty_gradient, empty_image, is_channels_last, stand_in
from f2d_kernels.ops._derivatives import backward_of
from f2d_kernels.ops._direct import differentiated
from f2d_kernels.ops._library import define_direct, define_op, filled_schema_of, schema_of

OP = "expert_head"


def expert_head(
    features: Tensor | Sequence[Tensor],
    weight: Tensor,
    bias: Tensor | None,
    channel_scale: Tensor | None,
    gates: Tensor,
    maps: Tensor | None = None,
    base: Tensor | None = None,
) -> Tensor:
    """out[b] = base[b] + Σ_k gates[b,k] · maps[b,k] · (weight[k] (channel_scale[b,k] ⊙ features[b,k]) + bias[k]).

    This is the end of F²D-Net's experts: the scale of squeeze-excitation, a 1x1 projection, gate, map and sum. It
    equals `expert_assembly` of 1x1 convolutions, but makes one pass over the features: neither the scaled features nor
    the experts' K·C deltas are ever in memory, forward or backward.

    Args:
        features: [B,K,F,H,W], or a sequence of K tensors [B,F,H,W], which are never stacked. Any strides.
        weight: [K,C,F], one 1x1 projection per expert.
        bias: [K,C]; None means 0.
        channel_scale: [B,K,F], for example from squeeze-excitation; None means 1.
        gates: [B,K], one weight per expert.
        maps: [B,K,H,W], where each expert acts; None means everywhere (1).
        base: [B,C,H,W], the image that the experts correct; None means 0.

    Returns:
        [B,C,H,W] in the promoted dtype of features and base (the others do not count) and the memory format of
        features: channels_last if their F channels lie next to each other. Arithmetic is in float32, or in float64 if
        any argument is float64. Differentiable in every argument.

    Raises:
        TypeError: an argument is not a floating-point tensor.
        ValueError: shapes or devices do not match.

    Example:
        >>> features, weight, bias = torch.randn(2, 4, 16, 8, 8), torch.randn(4, 3, 16), torch.randn(4, 3)
        >>> scale, gates, maps = torch.rand(2, 4, 16), torch.rand(2, 4), torch.rand(2, 4, 8, 8)
        >>> out = expert_head(features, weight, bias, scale, gates, maps)
        >>> deltas = torch.einsum("kcf,bkf,bkfhw->bkchw", weight, scale, features) + bias[:, :, None, None]
        >>> torch.allclose(out, torch.einsum("bk,bkhw,bkchw->bchw", gates, maps, deltas), atol=1e-5)
        True
    """
    stacked, listed = isinstance(features, Tensor), as_list(OP, "features", features)
    tracked = differentiated(listed, weight, bias, channel_scale, gates, maps, base)
    if tracked is not None:
        out = _DIRECT(listed, stacked, weight, bias, channel_scale, gates, maps, base)
        if out is not None:
            return _CONNECT(out, listed, weight, bias, channel_scale, gates, maps, base) if tracked else out
    arguments = ExpertHead(listed, weight, bias, channel_scale, gates, maps, base)
    _check(arguments, stacked)
    return torch.ops.f2d_kernels.expert_head.default(*arguments)


def _check(a: ExpertHead, stacked: bool) -> None:
    features, weight, gates = a.features, a.weight, a.gates
    if not features:
        raise ValueError(f"{OP}: features must hold at least one tensor [B,F,H,W], got an empty sequence")
    named: list[tuple[str, Any]] = [("features" if stacked else f"features[{k}]", f) for k, f in enumerate(features)]
    optional = {"bias": a.bias, "channel_scale": a.channel_scale, "maps": a.maps, "base": a.base}
    for name, value in [*named, ("weight", weight), ("gates", gates), *optional.items()]:
        if value is not None or name not in optional:
            check_floating(OP, name, value)
            check_device(OP, name, value, features[0].device)
    first = features[0]
    if stacked and (first.dim() != 5 or 0 in first.shape[1:3]):
        raise ValueError(f"{OP}: features must be [B,K,F,H,W] with K >= 1, F >= 1, got {list(first.shape)}")
    if not stacked and (first.dim() != 4 or first.shape[1] == 0):
        raise ValueError(f"{OP}: features[0] must be [B,F,H,W] with F >= 1, got {list(first.shape)}")
    for name, value in named[1:]:
        check_shape(OP, name, value, first.shape, "the shape of features[0]")
    batch, experts = first.shape[0], first.shape[1] if stacked else len(features)
    width, *size = first.shape[-3:]
    if weight.dim() != 3 or (weight.shape[0], weight.shape[2]) != (experts, width):
        raise ValueError(
            f"{OP}: weight must be [K,C,F] with K = {experts}, F = {width} as in features, got {list(weight.shape)}"
        )
    channels = weight.shape[1]
    check_shape(OP, "gates", gates, (batch, experts), "[B,K]")
    for name, shape, meaning in (
        ("bias", (experts, channels), "[K,C]"),
        ("channel_scale", (batch, experts, width), "[B,K,F]"),
        ("maps", (batch, experts, *size), "[B,K,H,W]"),
        ("base", (batch, channels, *size), "[B,C,H,W]"),
    ):
        value = optional[name]
        if value is not None:
            check_shape(OP, name, value, shape, meaning)


def _empty_result(*arguments: Any) -> Tensor:
    a = ExpertHead(*arguments)
    first = a.features[0]
    shape = (first.shape[0], a.weight.shape[1], *first.shape[-2:])
    return empty_image(shape, common_dtype(*a.features, a.base), a.weight, is_channels_last(first))


def _empty_gradients(grad: Tensor, *arguments: Any) -> ExpertHeadGradients:
    features, *small, channels_last, (need_features, *needs) = arguments
    d_features = [empty_gradient(f, True, channels_last) for f in features] if need_features else []
    return ExpertHeadGradients(d_features, *(empty_gradient(t, on) for t, on in zip(small, needs, strict=True)))


def _setup_context(ctx: Any, needs: Sequence[bool], inputs: tuple, output: Tensor) -> None:
    features, weight, bias, channel_scale, gates, maps, base = inputs
    ctx.count = len(features)
    need_features = any(needs[: ctx.count])
    *needs, need_base = needs[ctx.count : ctx.count + 6]
    need_weight, _, need_scale, need_gates, need_maps = needs
    ctx.needs = [need_features, *needs]
    ctx.channels_last = is_channels_last(features[0])
    ctx.base_dtype = base.dtype if need_base else None
    # the values of features, by far the largest, matter to every gradient but their own and those of bias and base
    look = need_weight or need_scale or need_gates or need_maps
    kept = features if look else [stand_in(f, ctx.direct) for f in features]
    ctx.save_for_backward(weight, bias, channel_scale, gates, maps, *kept)


def _autograd(ctx: Any, grad: Tensor) -> tuple:
    weight, bias, channel_scale, gates, maps, *features = ctx.saved_tensors
    needs = list(ctx.needs)
    results: list[Tensor] = []
    if any(needs):
        op = backward_of(OP, _backward, ctx, grad)
        small = weight, bias, channel_scale, gates, maps
        results = list(op(grad, features, *small, ctx.channels_last, needs, ctx.backend))
    d_features = [results.pop(0) for _ in range(ctx.count)] if needs[0] else [None] * ctx.count
    rest = [results.pop(0) if need else None for need in needs[1:]]
    d_base = grad.to(ctx.base_dtype) if ctx.base_dtype is not None else None
    return d_features, *rest, d_base


_ARGUMENTS = schema_of(ExpertHead)
_backward, _CONNECT = define_op(
    OP,
    _ARGUMENTS,
    "Tensor(a!) out",
    "Tensor grad",
    filled_schema_of(ExpertHeadGradients, ExpertHead),
    read=_ARGUMENTS.removesuffix(", Tensor? base"),
    empty_results=_empty_result,
    empty_gradients=_empty_gradients,
    setup_context=_setup_context,
    autograd=_autograd,
)
_DIRECT = define_direct(
    "expert_head_direct(Tensor[] features, bool stacked, Tensor? weight, Tensor? bias, Tensor? channel_scale, "
    "Tensor? gates, Tensor? maps, Tensor? base) -> Tensor?"
)
