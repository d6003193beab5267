"""The log-normal transition: one closed-form step of multiplicative noise around a target."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from f2d_kernels._checks import check_device, check_floating, check_shape, per_sample
from f2d_kernels.arguments import LognormalTransition, LognormalTransitionGradients
from f2d_kernels.noise import check_position, check_source, resolve_noise
from f2d_kernels.ops._allocate import common_dtype, empty_gradient, empty_image, is_channels_last, stand_in
from f2d_kernels.ops._derivatives import backward_of
from f2d_kernels.ops._direct import differentiated, in_stream, number_or_tensor, seed_or_tensor
from f2d_kernels.ops._library import define_direct, define_op, filled_schema_of, schema_of

OP = "lognormal_transition"


def lognormal_transition(
    x: Tensor,
    mu: Tensor,
    log_mean: Tensor | float,
    log_std: Tensor | float,
    *,
    noise: Tensor | None = None,
    seed: int | Tensor | None = None,
    generator: torch.Generator | None = None,
    stream: int = 0,
    window: tuple[int, int] | None = None,
) -> Tensor:
    """mu + (x - mu) · exp(clamp(log_mean + log_std · eps, -20, 20)),  eps ~ N(0, 1) per element, in one pass over
    memory.

    This is the exact solution of dx = theta (mu - x) dt + sigma (x - mu) dw from s to t, with
    log_mean = -∫_s^t (theta + sigma²/2) du and log_std² = ∫_s^t sigma² du (F²D-Net; FoD).

    Args:
        x: state [B,C,H,W]. Any strides.
        mu: target [B,C,H,W].
        log_mean, log_std: [B], or scalars for the whole batch.
        noise: eps itself, [B,C,H,W]. Give at most one of noise, seed and generator.
        seed: int, or int64 tensor [1] or [B] on the device of x: eps comes from Philox 4x32-10 keyed by the seed and
            the element's position, and is computed in registers, forward and backward, so no noise tensor is stored.
            Cropping, padding, tiling, batching, memory layout, backend and device do not change a pixel's noise. With
            one seed, each sample b gets different noise; with one seed per sample, the noise does not depend on b.
        generator: a seed is drawn from it; not for use in an activation checkpoint, where PyTorch restores only its
            default generators before it computes the step again. Without any source, the default generator is used.
        stream: number of the step or sample, 0..65535, so that one seed can serve a whole trajectory.
        window: (top, left) of the tile, if the images are tiles; noise is keyed by the position in the whole image.

    Returns:
        [B,C,H,W] in the promoted dtype of x and mu and the memory format of x. Arithmetic is in float32, or in float64
        if any argument is float64. Differentiable in x, mu, log_mean, log_std and noise; the last three get no gradient
        where the exponent is clamped.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: shapes or devices do not match, a value is out of range, or two sources of noise are given.

    Example:
        >>> x, mu = torch.rand(1, 3, 4, 4), torch.rand(1, 3, 4, 4)
        >>> torch.equal(lognormal_transition(x, mu, 0.0, 0.0, seed=7), x)
        True
    """
    direct = _direct(x, mu, log_mean, log_std, noise, seed, generator, stream, window)
    if direct is not None:
        return direct
    for name, value in (("x", x), ("mu", mu)):
        check_floating(OP, name, value)
    if x.dim() != 4:
        raise ValueError(f"{OP}: x must be [B,C,H,W], got {list(x.shape)}")
    check_device(OP, "mu", mu, x.device)
    check_shape(OP, "mu", mu, x.shape, "the shape of x")
    stream, top, left = check_position(OP, stream, window)
    dtype = torch.float64 if torch.float64 in (x.dtype, mu.dtype) else torch.float32
    mean, std = (per_sample(OP, name, v, x, dtype) for name, v in (("log_mean", log_mean), ("log_std", log_std)))
    noise, key = resolve_noise(OP, x, noise, seed, generator)
    return torch.ops.f2d_kernels.lognormal_transition.default(x, mu, mean, std, noise, key, stream, top, left)


def _direct(
    x: Any, mu: Any, log_mean: Any, log_std: Any, noise: Any, seed: Any, generator: Any, stream: Any, window: Any
) -> Tensor | None:
    """Return the result of the direct op, or None for a call that must take the general path."""
    mean, std, key = number_or_tensor(log_mean), number_or_tensor(log_std), seed_or_tensor(seed)
    if mean is None or std is None or key is None or not in_stream(noise, seed, generator, stream, window):
        return None
    tracked = differentiated((x, mu), mean[0], std[0], noise, key[0])
    if tracked is None or x.dim() != 4:
        return None
    if tracked:  # the backward pass reads tensors
        dtype = torch.float64 if torch.float64 in (x.dtype, mu.dtype) else torch.float32
        mean, std = (
            (per_sample(OP, name, v, x, dtype), 0.0) for name, v in (("log_mean", log_mean), ("log_std", log_std))
        )
        key = resolve_noise(OP, x, noise, seed, None)[1], 0
    out = _DIRECT(x, mu, *mean, *std, noise, *key, stream)
    return _CONNECT(out, x, mu, mean[0], std[0], noise, key[0], stream, 0, 0) if tracked and out is not None else out


def _empty_result(x: Tensor, mu: Tensor, *rest: Any) -> Tensor:
    return empty_image(x.shape, common_dtype(x, mu), x, is_channels_last(x))


def _empty_gradients(grad: Tensor, *arguments: Any) -> LognormalTransitionGradients:
    *inputs, channels_last, needs = arguments
    a, need = LognormalTransition(*inputs), LognormalTransitionGradients(*needs)
    return LognormalTransitionGradients(
        empty_gradient(a.x, need.x, channels_last),
        empty_gradient(a.mu, need.mu, channels_last),
        empty_gradient(a.log_mean, need.log_mean),
        empty_gradient(a.log_std, need.log_std),
        empty_gradient(a.noise, need.noise, channels_last),
    )


def _setup_context(ctx: Any, needs: Sequence[bool], inputs: tuple, output: Tensor) -> None:
    x, mu, log_mean, log_std, noise, seed, *position = inputs
    ctx.needs = list(needs[:5])
    ctx.position = position
    ctx.channels_last = is_channels_last(x)
    # d_x = g f and d_mu = g (1 - f) do not look at x and mu; the other gradients do
    if not any(ctx.needs[2:]):
        x, mu = stand_in(x, ctx.direct), stand_in(mu, ctx.direct)
    ctx.save_for_backward(x, mu, log_mean, log_std, noise, seed)


def _autograd(ctx: Any, grad: Tensor) -> tuple:
    op = backward_of(OP, _backward, ctx, grad)
    results = list(op(grad, *ctx.saved_tensors, *ctx.position, ctx.channels_last, ctx.needs, ctx.backend))
    gradients = [results.pop(0) if need else None for need in ctx.needs]
    return (*gradients, None, None, None, None)


_backward, _CONNECT = define_op(
    OP,
    schema_of(LognormalTransition),
    "Tensor(a!) out",
    "Tensor grad",
    filled_schema_of(LognormalTransitionGradients, LognormalTransition),
    check=lambda *inputs: check_source(OP, inputs[0], *inputs[4:]),
    empty_results=_empty_result,
    empty_gradients=_empty_gradients,
    setup_context=_setup_context,
    autograd=_autograd,
)
_DIRECT = define_direct(
    "lognormal_transition_direct(Tensor x, Tensor mu, Tensor? log_mean, float mean_number, Tensor? log_std, "
    "float std_number, Tensor? noise, Tensor? seed, int seed_number, int stream) -> Tensor?"
)
