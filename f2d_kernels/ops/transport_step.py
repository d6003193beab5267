"""One step of factorized stochastic transport: experts assembled to a target, then the log-normal transition to it."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from f2d_kernels._checks import bounds, check_device, check_floating, check_shape, per_sample
from f2d_kernels.noise import check_position, check_source, resolve_noise
from f2d_kernels.ops._allocate import common_dtype, empty, empty_image, is_channels_last, stand_in
from f2d_kernels.ops._derivatives import backward_of
from f2d_kernels.ops._direct import differentiated, in_stream, number_or_tensor, seed_or_tensor
from f2d_kernels.ops._experts import check_experts
from f2d_kernels.ops._library import define, define_compiled, define_derivatives, define_direct
from f2d_kernels.registry import implementation, requested_backend

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

    This is a whole step of F²D-Net's samplers, and of one training loss. It returns the results of `expert_assembly`,
    an addition, `torch.clamp` and `lognormal_transition` without writing intermediate images. Targets and samplers:

        SFLOW, MC     x = the state, no anchor                 the network predicts mu - state
        FLOW          x = the state, anchor = x_0              the network predicts mu - x_0
        NMC           x = x_0, anchor = the state              every step starts from x_0 again

    Args:
        x: [B,C,H,W], where the transition starts. Any strides, as for every tensor here.
        deltas, gates, maps, base: as in `expert_assembly`: [B,K,C,H,W] (or [1,K,C,H,W], or K tensors [B,C,H,W]),
            [B,K] or [B,K,C], [B,K,H,W] or None, [B,C,H,W] or None.
        log_mean, log_std: [B], or scalars for the whole batch.
        anchor: [B,C,H,W], the image to which the experts are added; None means x.
        clamp: (low, high), the range of mu; (-inf, inf) for no limit.
        noise, seed, generator, stream, window: as in `lognormal_transition`.

    Returns:
        (x_next, mu), both [B,C,H,W] in the memory format of x; mu in the promoted dtype of anchor, deltas and base,
        x_next in that of x and mu. Arithmetic is float32, float64 when any argument is float64. As in the two ops, the
        assembly is rounded to the dtype of deltas and base, and mu to its own before the transition starts: the results
        equal those of the two ops bit for bit, 16-bit ones too. (Only where a float64 argument meets narrower images
        can they differ, by the last rounding.) Differentiable in every floating argument; mu's
        gradient ends where it was clamped and stays at the bounds, as that of torch.clamp.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: shapes, devices or ranges do not fit, or two sources of noise are given.

    Example:
        >>> x, deltas, gates = torch.rand(1, 3, 4, 4), torch.randn(1, 2, 3, 4, 4), torch.rand(1, 2)
        >>> x_next, mu = transport_step(x, deltas, gates, None, None, -0.5, 0.1, seed=7)
        >>> torch.equal(mu, (x + expert_assembly(deltas, gates)).clamp(-1, 1))
        True
        >>> torch.equal(x_next, lognormal_transition(x, mu, -0.5, 0.1, seed=7))
        True
    """
    stacked = isinstance(deltas, Tensor)
    listed = [deltas] if isinstance(deltas, Tensor) else list(deltas)
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
    """The results of the compiled part alone, or None where they are to be found the long way."""
    mean, std, key = number_or_tensor(log_mean), number_or_tensor(log_std), seed_or_tensor(seed)
    if mean is None or std is None or key is None or not in_stream(noise, seed, generator, stream, window):
        return None
    tracked = differentiated((x, *listed), gates, maps, base, mean[0], std[0], anchor, noise, key[0])
    if tracked is None:
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


def _forward(*arguments: Any) -> tuple[Tensor, Tensor]:
    check_source(OP, arguments[0], *arguments[10:])
    x_next, mu = _fake(*arguments)
    if x_next.numel():
        implementation(OP, x_next.device).forward(x_next, mu, *arguments)
    return x_next, mu


def _fake(
    x: Tensor, deltas: list[Tensor], gates: Tensor, maps: Tensor | None, base: Tensor | None,
    log_mean: Tensor, log_std: Tensor, anchor: Tensor | None, *rest: Any,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    mu_dtype = common_dtype(x if anchor is None else anchor, *deltas, base)
    last = is_channels_last(x)
    x_next = empty_image(x.shape, torch.promote_types(x.dtype, mu_dtype), x, last)
    return x_next, empty_image(x.shape, mu_dtype, x, last)


# The differentiable arguments in the order of `needs`; the gradients of base and anchor are both `d_mu`, the gradient
# that reaches the sum under the clamp.
_X, _DELTAS, _GATES, _MAPS, _BASE, _MEAN, _STD, _ANCHOR, _NOISE = range(9)


def _empty_gradients(
    x: Tensor,
    deltas: list[Tensor],
    gates: Tensor,
    maps: Tensor | None,
    base: Tensor | None,
    log_mean: Tensor,
    log_std: Tensor,
    anchor: Tensor | None,
    noise: Tensor | None,
    channels_last: Sequence[bool],
    needs: Sequence[bool],
) -> tuple[Any, ...]:
    """d_x, d_deltas, d_gates, d_maps, d_mu, d_log_mean, d_log_std, d_noise; None (or []) where not needed."""
    x_last, deltas_last = channels_last
    mu_dtype = common_dtype(x if anchor is None else anchor, *deltas, base)
    wants_mu = needs[_BASE] or needs[_ANCHOR]

    def plain(t: Tensor | None, need: bool) -> Tensor | None:
        return empty(t.shape, t.dtype, x) if need and t is not None else None

    return (
        empty_image(x.shape, x.dtype, x, x_last) if needs[_X] else None,
        [empty_image(d.shape, d.dtype, x, deltas_last) for d in deltas] if needs[_DELTAS] else [],
        plain(gates, needs[_GATES]),
        plain(maps, needs[_MAPS]),
        empty_image(x.shape, mu_dtype, x, x_last) if wants_mu else None,
        plain(log_mean, needs[_MEAN]),
        plain(log_std, needs[_STD]),
        empty_image(x.shape, noise.dtype, x, x_last) if needs[_NOISE] and noise is not None else None,
    )


def _gradients_of(arguments: Sequence[Any]) -> tuple[tuple, list[Tensor]]:
    """The gradients to fill, and the same as a flat list without what is not needed."""
    *inputs, channels_last, needs, _ = arguments
    # without low, high, seed and the position
    gradients = _empty_gradients(*inputs[:8], inputs[10], channels_last, needs)
    return gradients, [g for g in (gradients[0], *gradients[1], *gradients[2:]) if g is not None]


def _backward(grad_x: Tensor | None, grad_mu: Tensor | None, *arguments: Any) -> list[Tensor]:
    gradients, results = _gradients_of(arguments)
    *inputs, _, _, backend = arguments
    check_source(OP, inputs[0], *inputs[10:])
    if inputs[0].numel():
        implementation(OP, inputs[0].device, backend).backward(grad_x, grad_mu, *inputs, *gradients)
    else:
        for result in results:
            result.zero_()
    return results


def _fake_backward(grad_x: Tensor | None, grad_mu: Tensor | None, *arguments: Any) -> list[Tensor]:
    return _gradients_of(arguments)[1]


def _setup_context(ctx: Any, needs: Sequence[bool], inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    x, deltas, gates, maps, base, log_mean, log_std, anchor, low, high, noise, seed, *position = inputs
    ctx.set_materialize_grads(False)
    ctx.count = len(deltas)
    flags = list(needs)  # here PyTorch gives one flag per tensor of the list
    rest = flags[1 + ctx.count :]
    ctx.needs = [flags[0], any(flags[1 : 1 + ctx.count]), *rest[:6], rest[8]]
    ctx.bounds, ctx.position = (low, high), position
    ctx.channels_last = [is_channels_last(x), is_channels_last(deltas[0])]
    ctx.backend = requested_backend()
    ctx.dtypes = [None if t is None else t.dtype for t in (base, anchor)]
    has_anchor = anchor is not None
    of_mu = any(ctx.needs[i] for i in (_DELTAS, _GATES, _MAPS, _BASE, _ANCHOR)) or (ctx.needs[_X] and not has_anchor)
    of_exponent = any(ctx.needs[i] for i in (_MEAN, _STD, _NOISE))
    # only x - mu and the sum under the clamp look at images; d_x = g f alone does not
    if not (of_mu or of_exponent):
        deltas = [stand_in(d, ctx.direct) for d in deltas]
        maps, base, anchor = (None if t is None else stand_in(t, ctx.direct) for t in (maps, base, anchor))
    if not of_exponent and (has_anchor or not of_mu):
        x = stand_in(x, ctx.direct)
    ctx.save_for_backward(x, gates, maps, base, log_mean, log_std, anchor, noise, seed, *deltas)


def _autograd(ctx: Any, grad_x: Tensor | None, grad_mu: Tensor | None) -> tuple:
    x, gates, maps, base, log_mean, log_std, anchor, noise, seed, *deltas = ctx.saved_tensors
    needs = list(ctx.needs)
    if grad_x is None:
        needs[_MEAN] = needs[_STD] = needs[_NOISE] = False
        needs[_X] &= anchor is None
    results: list[Tensor] = []
    if any(needs) and not (grad_x is None and grad_mu is None):
        op = backward_of(OP, _backward, ctx, grad_x, grad_mu)
        arguments = (x, deltas, gates, maps, base, log_mean, log_std, anchor, *ctx.bounds, noise, seed, *ctx.position)
        results = list(op(grad_x, grad_mu, *arguments, ctx.channels_last, needs, ctx.backend))
    else:
        needs = [False] * len(needs)

    def take(need: bool) -> Tensor | None:
        return results.pop(0) if need else None

    d_x = take(needs[_X])
    d_deltas = [take(needs[_DELTAS]) for _ in range(ctx.count)]
    d_gates, d_maps = take(needs[_GATES]), take(needs[_MAPS])
    d_mu: Any = take(needs[_BASE] or needs[_ANCHOR])
    d_base, d_anchor = (
        d_mu.to(dtype) if needs[i] else None for i, dtype in zip((_BASE, _ANCHOR), ctx.dtypes, strict=True)
    )
    d_mean, d_std, d_noise = take(needs[_MEAN]), take(needs[_STD]), take(needs[_NOISE])
    gradients = (d_x, d_deltas, d_gates, d_maps, d_base, d_mean, d_std, d_anchor)
    return (*gradients, None, None, d_noise, None, None, None, None)


_ARGUMENTS = (
    "Tensor x, Tensor[] deltas, Tensor gates, Tensor? maps, Tensor? base, Tensor log_mean, Tensor log_std, "
    "Tensor? anchor, float low, float high, Tensor? noise, Tensor? seed, SymInt stream, SymInt top, SymInt left"
)
_COMPILED_ARGUMENTS = _ARGUMENTS.replace("SymInt", "int")
define(f"transport_step({_ARGUMENTS}) -> (Tensor, Tensor)", _forward, _fake)
define(
    f"transport_step_backward(Tensor? grad_x, Tensor? grad_mu, {_ARGUMENTS}, bool[] channels_last, bool[] needs, "
    "str backend) -> Tensor[]",
    _backward,
    _fake_backward,
)
_CONNECT = define_derivatives(OP, _fake, _fake_backward, _setup_context, _autograd)
define_compiled(f"transport_step_out(Tensor(a!) x_next, Tensor(b!) mu, {_COMPILED_ARGUMENTS}) -> ()")
define_compiled(
    f"transport_step_backward_out(Tensor? grad_x, Tensor? grad_mu, {_COMPILED_ARGUMENTS}, Tensor(a!)? d_x, "
    "Tensor(b!)[] d_deltas, Tensor(c!)? d_gates, Tensor(d!)? d_maps, Tensor(e!)? d_mu, Tensor(f!)? d_log_mean, "
    "Tensor(g!)? d_log_std, Tensor(h!)? d_noise) -> ()"
)
_DIRECT = define_direct(
    "transport_step_direct(Tensor x, Tensor[] deltas, bool stacked, Tensor? gates, Tensor? maps, Tensor? base, "
    "Tensor? log_mean, float mean_number, Tensor? log_std, float std_number, Tensor? anchor, float low, float high, "
    "Tensor? noise, Tensor? seed, int seed_number, int stream) -> (Tensor?, Tensor?)"
)
