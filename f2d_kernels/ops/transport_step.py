"""One step of factorized stochastic transport: experts assembled to a target, then the log-normal transition to it."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from f2d_kernels._checks import as_list, bounds, check_device, check_floating, check_shape, per_sample
from f2d_kernels.arguments import TransportStep, TransportStepGradients, TransportStepNeeds
from f2d_kernels.noise import check_position, check_source, resolve_noise
from f2d_kernels.ops._allocate import common_dtype, empty_gradient, empty_image, is_channels_last, stand_in
from f2d_kernels.ops._derivatives import backward_of
from f2d_kernels.ops._direct import differentiated, in_stream, number_or_tensor, seed_or_tensor
from f2d_kernels.ops._experts import check_experts
from f2d_kernels.ops._library import define_direct, define_op, filled_schema_of, schema_of

OP = "transport_step"


def transport_step(
    x: Tensor,
    deltas: Tensor | Sequence[Tensor],
    gates: Tensor,
    maps: Tensor | None,
    base: Tensor | None,
    log_mean: Tensor | float,
    log_std: Tensor | float,
    *,
    anchor: Tensor | None = None,
    clamp: tuple[float, float] = (-1.0, 1.0),
    noise: Tensor | None = None,
    seed: int | Tensor | None = None,
    generator: torch.Generator | None = None,
    stream: int = 0,
    window: tuple[int, int] | None = None,
) -> tuple[Tensor, Tensor]:
    """mu = clamp(anchor + base + Σ_k gates[:,k] · maps[:,k] · deltas[:,k], low, high),
    x_next = mu + (x - mu) · exp(clamp(log_mean + log_std · eps, -20, 20)), both in one pass over memory.

    This is a whole step of F²D-Net's samplers, and of one training loss. It computes `expert_assembly`, an addition,
    `torch.clamp` and `lognormal_transition` without writing intermediate images. Use it for these targets and samplers:

        SFLOW, MC     x = the state, no anchor                 the network predicts mu - state
        FLOW          x = the state, anchor = x_0              the network predicts mu - x_0
        NMC           x = x_0, anchor = the state              every step starts from x_0 again

    Args:
        x: [B,C,H,W], where the transition starts. Every tensor may have any strides.
        deltas, gates, maps, base: as in `expert_assembly`: [B,K,C,H,W] (or [1,K,C,H,W], or K tensors [B,C,H,W]),
            [B,K] or [B,K,C], [B,K,H,W] or None, [B,C,H,W] or None.
        log_mean, log_std: [B], or scalars for the whole batch.
        anchor: [B,C,H,W], the image to which the experts are added; None means x.
        clamp: (low, high), the range of mu; (-inf, inf) for no limit.
        noise, seed, generator, stream, window: as in `lognormal_transition`.

    Returns:
        (x_next, mu), both [B,C,H,W] in the memory format of x. mu has the promoted dtype of anchor, deltas and base;
        x_next has that of x and mu. Arithmetic is in float32, or in float64 if any argument is float64. As in the two
        ops, the assembly is rounded to the dtype of deltas and base, and mu to its own dtype before the transition
        starts, so the results equal those of the two ops bit for bit, also in 16 bits. (They can differ by the last
        rounding if a float64 argument is combined with narrower images.) Differentiable in every floating-point
        argument; mu gets no gradient beyond the bounds, but does exactly at them, as in torch.clamp.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: shapes or devices do not match, a value is out of range, or two sources of noise are given.

    Example:
        >>> x, deltas, gates = torch.rand(1, 3, 4, 4), torch.randn(1, 2, 3, 4, 4), torch.rand(1, 2)
        >>> x_next, mu = transport_step(x, deltas, gates, None, None, -0.5, 0.1, seed=7)
        >>> torch.equal(mu, (x + expert_assembly(deltas, gates)).clamp(-1, 1))
        True
        >>> torch.equal(x_next, lognormal_transition(x, mu, -0.5, 0.1, seed=7))
        True
    """
    stacked, listed = isinstance(deltas, Tensor), as_list(OP, "deltas", deltas)
    experts = (listed, stacked, gates, maps, base)
    direct = _direct(x, *experts, log_mean, log_std, anchor, clamp, noise, seed, generator, stream, window)
    if direct is not None:
        return direct
    check_floating(OP, "x", x)
    if x.dim() != 4:
        raise ValueError(f"{OP}: x must be [B,C,H,W], got {list(x.shape)}")
    shape = check_experts(OP, listed, stacked, gates, maps, base)
    check_device(OP, "deltas", listed[0], x.device)
    check_shape(OP, "x", x, shape, "the [B,C,H,W] of deltas and gates")
    if anchor is not None:
        check_floating(OP, "anchor", anchor)
        check_device(OP, "anchor", anchor, x.device)
        check_shape(OP, "anchor", anchor, x.shape, "the shape of x")
    low, high = bounds(OP, "clamp", clamp)
    stream, top, left = check_position(OP, stream, window)
    result = common_dtype(x, anchor, *listed, base)
    dtype = torch.float64 if result == torch.float64 else torch.float32
    mean, std = (per_sample(OP, name, v, x, dtype) for name, v in (("log_mean", log_mean), ("log_std", log_std)))
    noise, key = resolve_noise(OP, x, noise, seed, generator)
    return torch.ops.f2d_kernels.transport_step.default(
        x, listed, gates, maps, base, mean, std, anchor, low, high, noise, key, stream, top, left
    )


def _direct(
    x: Any, listed: list[Any], stacked: bool, gates: Any, maps: Any, base: Any, log_mean: Any, log_std: Any,
    anchor: Any, clamp: Any, noise: Any, seed: Any, generator: Any, stream: Any, window: Any,
) -> tuple[Tensor, Tensor] | None:  # fmt: skip
    """Return the results of the direct op, or None for a call that must take the general path."""
    mean, std, key = number_or_tensor(log_mean), number_or_tensor(log_std), seed_or_tensor(seed)
    if mean is None or std is None or key is None or not in_stream(noise, seed, generator, stream, window):
        return None
    tracked = differentiated((x, *listed), gates, maps, base, mean[0], std[0], anchor, noise, key[0])
    if tracked is None or x.dim() != 4:
        return None
    low, high = bounds(OP, "clamp", clamp)
    if tracked:  # the backward pass reads tensors
        result = common_dtype(x, anchor, *listed, base)
        dtype = torch.float64 if result == torch.float64 else torch.float32
        mean, std = (
            (per_sample(OP, name, v, x, dtype), 0.0) for name, v in (("log_mean", log_mean), ("log_std", log_std))
        )
        key = resolve_noise(OP, x, noise, seed, None)[1], 0
    results = _DIRECT(x, listed, stacked, gates, maps, base, *mean, *std, anchor, low, high, noise, *key, stream)
    if results[0] is None or not tracked:
        return None if results[0] is None else results
    return _CONNECT(
        results, x, listed, gates, maps, base, mean[0], std[0], anchor, low, high, noise, key[0], stream, 0, 0
    )


def _empty_results(*arguments: Any) -> tuple[Tensor, Tensor]:
    a = TransportStep(*arguments)
    dtype, last = _mu_dtype(a), is_channels_last(a.x)
    x_next = empty_image(a.x.shape, torch.promote_types(a.x.dtype, dtype), a.x, last)
    return x_next, empty_image(a.x.shape, dtype, a.x, last)


def _mu_dtype(a: TransportStep) -> torch.dtype:
    return common_dtype(a.x if a.anchor is None else a.anchor, *a.deltas, a.base)


def _empty_gradients(grad_x: Tensor | None, grad_mu: Tensor | None, *arguments: Any) -> TransportStepGradients:
    *inputs, (x_last, deltas_last), needs = arguments
    a, need = TransportStep(*inputs), TransportStepNeeds(*needs)
    wants_mu = need.base or need.anchor
    return TransportStepGradients(
        empty_gradient(a.x, need.x, x_last),
        [empty_gradient(d, True, deltas_last) for d in a.deltas] if need.deltas else [],
        empty_gradient(a.gates, need.gates),
        empty_gradient(a.maps, need.maps),
        empty_image(a.x.shape, _mu_dtype(a), a.x, x_last) if wants_mu else None,
        empty_gradient(a.log_mean, need.log_mean),
        empty_gradient(a.log_std, need.log_std),
        empty_gradient(a.noise, need.noise, x_last),
    )


def _setup_context(ctx: Any, needs: Sequence[bool], inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    x, deltas, gates, maps, base, log_mean, log_std, anchor, low, high, noise, seed, *position = inputs
    ctx.set_materialize_grads(False)
    ctx.count = len(deltas)  # here PyTorch gives one flag per tensor of the list
    need_x, *need_deltas = needs[: 1 + ctx.count]
    *needs, _, _, need_noise = needs[1 + ctx.count : 10 + ctx.count]
    ctx.needs = need = TransportStepNeeds(need_x, any(need_deltas), *needs, need_noise)
    ctx.bounds, ctx.position = (low, high), position
    ctx.channels_last = [is_channels_last(x), is_channels_last(deltas[0])]
    ctx.dtypes = [t.dtype if wanted else None for t, wanted in ((base, need.base), (anchor, need.anchor))]
    has_anchor = anchor is not None
    of_mu = any(need[1:5]) or need.anchor or (need.x and not has_anchor)
    of_exponent = need.log_mean or need.log_std or need.noise
    # only x - mu and the sum under the clamp look at images; d_x = g f alone does not
    if not (of_mu or of_exponent):
        deltas = [stand_in(d, ctx.direct) for d in deltas]
        maps, base, anchor = (None if t is None else stand_in(t, ctx.direct) for t in (maps, base, anchor))
    if not of_exponent and (has_anchor or not of_mu):
        x = stand_in(x, ctx.direct)
    ctx.save_for_backward(x, gates, maps, base, log_mean, log_std, anchor, noise, seed, *deltas)


def _autograd(ctx: Any, grad_x: Tensor | None, grad_mu: Tensor | None) -> tuple:
    x, gates, maps, base, log_mean, log_std, anchor, noise, seed, *deltas = ctx.saved_tensors
    need = ctx.needs
    if grad_x is None:
        need = need._replace(x=need.x and anchor is None, log_mean=False, log_std=False, noise=False)
    results: list[Tensor] = []
    if any(need) and not (grad_x is None and grad_mu is None):
        op = backward_of(OP, _backward, ctx, grad_x, grad_mu)
        arguments = (x, deltas, gates, maps, base, log_mean, log_std, anchor, *ctx.bounds, noise, seed, *ctx.position)
        results = list(op(grad_x, grad_mu, *arguments, ctx.channels_last, list(need), ctx.backend))
    else:
        need = TransportStepNeeds(*[False] * len(need))

    def take(need: bool) -> Tensor | None:
        return results.pop(0) if need else None

    d_x = take(need.x)
    d_deltas = [take(need.deltas) for _ in range(ctx.count)]
    d_gates, d_maps = take(need.gates), take(need.maps)
    d_mu: Any = take(need.base or need.anchor)
    d_base, d_anchor = (d_mu.to(t) if on else None for on, t in zip((need.base, need.anchor), ctx.dtypes, strict=True))
    d_mean, d_std, d_noise = take(need.log_mean), take(need.log_std), take(need.noise)
    gradients = (d_x, d_deltas, d_gates, d_maps, d_base, d_mean, d_std, d_anchor)
    return (*gradients, None, None, d_noise, None, None, None, None)


_backward, _CONNECT = define_op(
    OP,
    schema_of(TransportStep),
    "Tensor(a!) x_next, Tensor(b!) mu",
    "Tensor? grad_x, Tensor? grad_mu",
    filled_schema_of(TransportStepGradients, TransportStep),
    layout="bool[] channels_last",
    check=lambda *inputs: check_source(OP, inputs[0], *inputs[10:]),
    empty_results=_empty_results,
    empty_gradients=_empty_gradients,
    setup_context=_setup_context,
    autograd=_autograd,
)
_DIRECT = define_direct(
    "transport_step_direct(Tensor x, Tensor[] deltas, bool stacked, Tensor? gates, Tensor? maps, Tensor? base, "
    "Tensor? log_mean, float mean_number, Tensor? log_std, float std_number, Tensor? anchor, float low, float high, "
    "Tensor? noise, Tensor? seed, int seed_number, int stream) -> (Tensor?, Tensor?)"
)
