"""Group normalisation, feature-wise modulation and SiLU in one op."""

from collections.abc import Sequence
from typing import Any, Literal, overload

import torch
from torch import Tensor

from f2d_kernels._checks import check_device, check_floating, check_shape, real, whole
from f2d_kernels.ops._allocate import empty, empty_gradient, empty_image, is_channels_last
from f2d_kernels.ops._derivatives import backward_of
from f2d_kernels.ops._direct import differentiated
from f2d_kernels.ops._library import define_direct, define_op

OP = "group_norm_silu"


@overload
def group_norm_silu(
    x: Tensor,
    num_groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    eps: float = 1e-5,
    return_mean: Literal[False] = False,
) -> Tensor: ...
@overload
def group_norm_silu(
    x: Tensor,
    num_groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    eps: float = 1e-5,
    *,
    return_mean: Literal[True],
) -> tuple[Tensor, Tensor]: ...
@overload
def group_norm_silu(
    x: Tensor,
    num_groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    eps: float = 1e-5,
    return_mean: bool = False,
) -> Tensor | tuple[Tensor, Tensor]: ...
def group_norm_silu(
    x: Tensor,
    num_groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    eps: float = 1e-5,
    return_mean: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """silu(group_norm(x) · (1 + scale) + shift),  silu(u) = u / (1 + exp(-u)), reading x twice and writing once.

    The normalised tensor is never written; the backward pass only needs x and two numbers per group. A group that fits
    into the cache is read from memory once. (Wu and He, Group Normalization, 2018; FiLM: Perez et al., 2018.)

    Args:
        x: [B,C,H,W] or [B,C,L]. Any strides.
        num_groups: G, a divisor of C; each group is C/G neighbouring channels of one sample.
        weight, bias: [C], the affine part of group_norm; None means 1 and 0.
        scale, shift: [B,C], for example from a time embedding; None means 0.
        eps: added to the variance, at least 0. The variance is the biased one (divided by N), from sums about a
            shifted origin, so it is accurate even if the mean is a thousand standard deviations or more.
        return_mean: also return each channel's spatial mean of the result before it is rounded to the dtype of x, which
            squeeze-excitation needs. It costs no further read of memory.

    Returns:
        A tensor with the dtype, shape and memory format of x; with return_mean, a pair of this tensor and the means
        [B,C]. Arithmetic is in float32, or in float64 if any argument is float64. Differentiable in x, weight, bias,
        scale and shift, through both results.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: shapes or devices do not match, or a value is out of range.

    Example:
        >>> x, scale, shift = torch.randn(2, 8, 4, 4), torch.randn(2, 8), torch.randn(2, 8)
        >>> out, mean = group_norm_silu(x, 4, None, None, scale, shift, return_mean=True)
        >>> u = torch.nn.functional.group_norm(x, 4) * (1 + scale[..., None, None]) + shift[..., None, None]
        >>> torch.allclose(out, torch.nn.functional.silu(u), atol=1e-6)
        True
        >>> torch.allclose(mean, out.mean((2, 3)), atol=1e-6)
        True
    """
    direct = _direct(x, num_groups, weight, bias, scale, shift, eps, return_mean)
    if direct is not None:
        return direct
    check_floating(OP, "x", x)
    if x.dim() == 3:
        result = group_norm_silu(x.unsqueeze(2), num_groups, weight, bias, scale, shift, eps, return_mean)
        return (result[0].squeeze(2), result[1]) if isinstance(result, tuple) else result.squeeze(2)
    if x.dim() != 4:
        raise ValueError(f"{OP}: x must be [B,C,H,W] or [B,C,L], got {list(x.shape)}")
    num_groups, eps = whole(OP, "num_groups", num_groups), real(OP, "eps", eps)
    if not isinstance(return_mean, bool):
        raise TypeError(f"{OP}: return_mean must be True or False, got {type(return_mean).__name__}")
    _check(x, num_groups, (weight, bias, scale, shift), eps)
    out, channel_mean, _, _ = torch.ops.f2d_kernels.group_norm_silu.default(
        x, num_groups, weight, bias, scale, shift, eps, return_mean
    )
    return (out, channel_mean) if return_mean else out


def _direct(x: Any, num_groups: Any, weight: Any, bias: Any, scale: Any, shift: Any, eps: Any, return_mean: Any) -> Any:
    """Return the result of the direct op, or None for a call that must take the general path."""
    if type(num_groups) is not int or num_groups >= 2**63 or type(eps) is not float or type(return_mean) is not bool:
        return None
    tracked = differentiated((x,), weight, bias, scale, shift)
    if tracked is None:
        return None
    results = _DIRECT(x, num_groups, weight, bias, scale, shift, eps, return_mean, tracked)
    out, channel_mean, _, _ = results
    if out is None:
        return None
    if tracked:
        out, channel_mean, *_ = _CONNECT(results, x, num_groups, weight, bias, scale, shift, eps, return_mean)
    return (out, channel_mean) if return_mean else out


def _check(x: Tensor, num_groups: int, parameters: Sequence[Tensor | None], eps: float) -> None:
    batch, channels = x.shape[:2]
    if num_groups < 1 or channels % num_groups != 0:
        raise ValueError(f"{OP}: num_groups must be a divisor of the {channels} channels of x, got {num_groups}")
    if not eps >= 0:
        raise ValueError(f"{OP}: eps must be at least 0, got {eps}")
    expected = {"[C]": (channels,), "[B,C]": (batch, channels)}
    kinds = (("weight", "[C]"), ("bias", "[C]"), ("scale", "[B,C]"), ("shift", "[B,C]"))
    for (name, meaning), value in zip(kinds, parameters, strict=True):
        if value is not None:
            check_floating(OP, name, value)
            check_device(OP, name, value, x.device)
            check_shape(OP, name, value, expected[meaning], meaning)


def _empty_results(x: Tensor, num_groups: int, *rest: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(out, channel means or nothing, mean [B,G], 1 / standard deviation [B,G]).

    The statistics are float64: a float32 mean of 1e3 standard deviations would move every normalised value by 6e-5.
    """
    batch, channels = x.shape[:2]
    return (
        empty_image(x.shape, x.dtype, x, is_channels_last(x)),
        empty((batch, channels) if rest[-1] else (0,), x.dtype, x),  # rest ends in return_mean
        empty((batch, num_groups), torch.float64, x),
        empty((batch, num_groups), torch.float64, x),
    )


def _empty_gradients(
    grad: Tensor, grad_mean: Tensor | None, mean: Tensor, rstd: Tensor, x: Tensor, *rest: Any
) -> list[Tensor | None]:
    """d_x, d_weight, d_bias, d_scale, d_shift; None for those that are not needed."""
    *parameters, channels_last, (need_x, *needs) = rest
    d_x = empty_gradient(x, need_x, channels_last)
    return [d_x, *(empty_gradient(t, need) for t, need in zip(parameters, needs, strict=True))]


def _direct_backward(*arguments: Any) -> list[Tensor]:
    """`_backward` of a direct call, with the gradients allocated by the compiled part unless it declines."""
    *inputs, _, needs, _ = arguments
    return [d for d in _DIRECT_BACKWARD(*inputs, *needs) if d is not None] or _backward(*arguments)


def _setup_context(ctx: Any, needs: Sequence[bool], inputs: tuple, output: tuple[Tensor, ...]) -> None:
    x, _, weight, bias, scale, shift, _, return_mean = inputs
    _, _, mean, rstd = output
    ctx.mark_non_differentiable(mean, rstd)
    ctx.set_materialize_grads(False)
    need_x, _, *need_parameters = needs[:6]
    ctx.needs = [need_x, *need_parameters]
    ctx.return_mean = return_mean
    ctx.channels_last = is_channels_last(x)
    ctx.save_for_backward(mean, rstd, x, weight, bias, scale, shift)  # d_u looks at all of them


def _autograd(ctx: Any, grad: Tensor | None, grad_mean: Tensor | None, *_: Any) -> tuple:
    if grad is None and grad_mean is None:
        return (None,) * 8
    saved = ctx.saved_tensors
    grad = torch.zeros_like(saved[2]) if grad is None else grad  # saved[2] is x
    op = backward_of(OP, _direct_backward, ctx, grad, grad_mean)
    results = list(op(grad, grad_mean if ctx.return_mean else None, *saved, ctx.channels_last, ctx.needs, ctx.backend))
    d_x, *d_parameters = [results.pop(0) if need else None for need in ctx.needs]
    return d_x, None, *d_parameters, None, None


_PARAMETERS = "Tensor? weight, Tensor? bias, Tensor? scale, Tensor? shift"
_READ = f"Tensor mean, Tensor rstd, Tensor x, {_PARAMETERS}"
_backward, _CONNECT = define_op(
    OP,
    f"Tensor x, SymInt num_groups, {_PARAMETERS}, float eps",
    "Tensor(a!) out, Tensor(b!)? channel_mean, Tensor(c!) mean, Tensor(d!) rstd",
    "Tensor grad, Tensor? grad_mean",
    "Tensor(a!)? d_x, Tensor(b!)? d_weight, Tensor(c!)? d_bias, Tensor(d!)? d_scale, Tensor(e!)? d_shift",
    read=_READ,
    flags="bool return_mean",
    empty_results=_empty_results,
    empty_gradients=_empty_gradients,
    setup_context=_setup_context,
    autograd=_autograd,
)
_DIRECT = define_direct(
    f"group_norm_silu_direct(Tensor x, int num_groups, {_PARAMETERS}, float eps, bool return_mean, bool keep) -> "
    "(Tensor?, Tensor?, Tensor?, Tensor?)"
)
_DIRECT_BACKWARD = define_direct(
    f"group_norm_silu_backward_direct(Tensor grad, Tensor? grad_mean, {_READ}, bool need_x, bool need_weight, "
    "bool need_bias, bool need_scale, bool need_shift) -> "
    "(Tensor?, Tensor?, Tensor?, Tensor?, Tensor?)"
)
