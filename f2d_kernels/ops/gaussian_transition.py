"""The Gaussian transition: the linear step that most diffusion restorers take."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from f2d_kernels._checks import check_device, check_floating, check_shape, per_sample
from f2d_kernels.arguments import GaussianTransition, GaussianTransitionGradients
from f2d_kernels.noise import check_one_source, check_position, check_source, resolve_noise
from f2d_kernels.ops._allocate import common_dtype, empty, empty_gradient, empty_image, is_channels_last, stand_in
from f2d_kernels.ops._derivatives import backward_of
from f2d_kernels.ops._direct import differentiated, in_stream, number_or_tensor, seed_or_tensor
from f2d_kernels.ops._library import define_direct, define_op, filled_schema_of, schema_of

OP = "gaussian_transition"
MAX_TERMS = 4


def gaussian_transition(
    terms: Sequence[Tensor],
    coefficients: Tensor | Sequence[Tensor | float],
    std: Tensor | float,
    *,
    noise: Tensor | None = None,
    seed: int | Tensor | None = None,
    generator: torch.Generator | None = None,
    stream: int = 0,
    window: tuple[int, int] | None = None,
) -> Tensor:
    """Σ_j coefficients[b,j] · terms[j] + std[b] · eps,  eps ~ N(0, 1) per element, in one pass over memory.

    This is a step of any sampler that is linear in its images: IR-SDE and GOUB (state, target), RDDM and DiffUIR
    (state, residual, predicted noise), ResShift (state, prediction), DDIM (state, predicted noise), ResFlow (state,
    velocity).

    Args:
        terms: one to four tensors [B,C,H,W], which are never stacked. Any strides, any mix of dtypes.
        coefficients: [B,J]; or [J], shared by the batch; or a sequence of J numbers, scalars or tensors [B].
        std: standard deviation of the noise, [B], or a scalar for the whole batch. The number 0 means a deterministic
            step (DDIM with eta = 0): unless `noise` is given, no noise is drawn, and a generator does not advance.
        noise: eps itself, [B,C,H,W]. Give at most one of noise, seed and generator.
        seed: int, or int64 tensor [1] or [B] on the device of the terms: eps comes from Philox 4x32-10 keyed by the
            seed and the element's position, and is computed in registers, so no noise tensor is stored. See
            `lognormal_transition`, which draws the same noise from the same seed.
        generator: a seed is drawn from it; not for use in an activation checkpoint, where PyTorch restores only its
            default generators before it computes the step again. Without any source, the default generator is used.
        stream: number of the step or sample, 0..65535, so that one seed can serve a whole trajectory.
        window: (top, left) of the tile, if the images are tiles; noise is keyed by the position in the whole image.

    Returns:
        [B,C,H,W] in the promoted dtype of the terms and the memory format of terms[0]. Arithmetic is in float32, or in
        float64 if any argument is float64. Differentiable in terms, coefficients, std and noise.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: shapes or devices do not match, a value or the number of terms is out of range, or two sources of
            noise are given.

    Example:
        >>> x, target = torch.rand(1, 3, 4, 4), torch.rand(1, 3, 4, 4)
        >>> step = gaussian_transition([x, target], [0.9, 0.1], 0.0)
        >>> torch.allclose(step, 0.9 * x + 0.1 * target)
        True
    """
    direct = _direct(terms, coefficients, std, noise, seed, generator, stream, window)
    if direct is not None:
        return direct
    terms = _checked_terms(terms)
    first = terms[0]
    stream, top, left = check_position(OP, stream, window)
    dtype = torch.float64 if torch.float64 in [t.dtype for t in terms] else torch.float32
    coefficients = _coefficients(coefficients, terms, dtype)
    deviation = per_sample(OP, "std", std, first, dtype)
    if noise is None and not isinstance(std, Tensor) and std == 0:
        check_one_source(OP, None, seed, generator)  # what is wrong is an error here too
        if seed is not None:
            resolve_noise(OP, first, None, seed, None)
        return torch.ops.f2d_kernels.gaussian_transition.default(
            terms, coefficients, None, None, None, stream, top, left
        )
    noise, key = resolve_noise(OP, first, noise, seed, generator)
    return torch.ops.f2d_kernels.gaussian_transition.default(
        terms, coefficients, deviation, noise, key, stream, top, left
    )


def _direct(
    terms: Any, coefficients: Any, std: Any, noise: Any, seed: Any, generator: Any, stream: Any, window: Any
) -> Tensor | None:
    """Return the result of the direct op, or None for a call that must take the general path."""
    deviation, key = number_or_tensor(std), seed_or_tensor(seed)
    if not isinstance(terms, (list, tuple)) or not terms or deviation is None or key is None:
        return None
    noisy = noise is not None or deviation[0] is not None or deviation[1] != 0
    if not in_stream(noise, 0 if seed is None and not noisy else seed, generator, stream, window):
        return None
    factors, numbers = (coefficients, ()) if isinstance(coefficients, Tensor) else (None, coefficients)
    kinds = set(map(type, numbers)) if isinstance(numbers, (list, tuple)) else {None}
    if not kinds <= {float, int} or (int in kinds and any(abs(n) >= 2**63 for n in numbers)):
        return None
    tracked = differentiated(terms, factors, deviation[0], noise, key[0])
    if tracked is None:
        return None
    if tracked:  # the backward pass reads tensors
        listed = _checked_terms(terms)
        dtype = torch.float64 if torch.float64 in [t.dtype for t in listed] else torch.float32
        factors = _coefficients(coefficients, listed, dtype)
        deviation = (per_sample(OP, "std", std, listed[0], dtype), 0.0)
        key = (resolve_noise(OP, listed[0], noise, seed, None)[1], 0) if noisy else key
    out = _DIRECT(terms, factors, numbers, noisy, *deviation, noise, *key, stream)
    if not tracked or out is None:
        return out
    source = (deviation[0], noise, key[0]) if noisy else (None, None, None)
    return _CONNECT(out, listed, factors, *source, stream, 0, 0)


def _checked_terms(terms: Sequence[Tensor]) -> list[Tensor]:
    if isinstance(terms, Tensor) or not isinstance(terms, Sequence):
        raise TypeError(f"{OP}: terms must be a sequence of tensors [B,C,H,W], got {type(terms).__name__}")
    if not 1 <= len(terms) <= MAX_TERMS:
        raise ValueError(f"{OP}: terms must hold one to {MAX_TERMS} tensors [B,C,H,W], got {len(terms)}")
    for j, term in enumerate(terms):
        check_floating(OP, f"terms[{j}]", term)
        check_device(OP, f"terms[{j}]", term, terms[0].device)
    if terms[0].dim() != 4:
        raise ValueError(f"{OP}: terms[0] must be [B,C,H,W], got {list(terms[0].shape)}")
    for j, term in enumerate(terms[1:], 1):
        check_shape(OP, f"terms[{j}]", term, terms[0].shape, "the shape of terms[0]")
    return list(terms)


def _coefficients(values: Tensor | Sequence[Tensor | float], terms: list[Tensor], dtype: torch.dtype) -> Tensor:
    """`values` as a tensor [B,J]."""
    batch, count = terms[0].shape[0], len(terms)
    if isinstance(values, Tensor):
        check_floating(OP, "coefficients", values)
        check_device(OP, "coefficients", values, terms[0].device)
        # compared in length first: Python would ask whether B is J, which fixes B = 2 in a graph for any batch size
        if tuple(values.shape) != ((batch, count) if values.dim() == 2 else (count,)):
            raise ValueError(
                f"{OP}: coefficients must be [J] or [B,J] with J = {count}, B = {batch}, got {list(values.shape)}"
            )
        if values.dim() == 1:
            # at least float32, so that the sum of the samples' gradients is what gets rounded, not each of them
            values = values.to(torch.promote_types(values.dtype, torch.float32))
        return values.expand(batch, count)
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise TypeError(f"{OP}: coefficients must be a tensor or a sequence of numbers, got {type(values).__name__}")
    if len(values) != count:
        raise ValueError(f"{OP}: coefficients must hold one number per term, {count}, got {len(values)}")
    # numbers become fills on the device, so that no copy from the host stalls the stream
    columns = [per_sample(OP, f"coefficients[{j}]", value, terms[0], dtype) for j, value in enumerate(values)]
    return torch.stack(columns, 1)


def _empty_result(terms: list[Tensor], *rest: Any) -> Tensor:
    return empty_image(terms[0].shape, common_dtype(*terms), terms[0], is_channels_last(terms[0]))


def _empty_gradients(grad: Tensor, *arguments: Any) -> GaussianTransitionGradients:
    """Gradients to fill; one of a term that needs none has no elements."""
    *inputs, channels_last, needs = arguments
    a, (*need_terms, need_coefficients, need_std, need_noise) = GaussianTransition(*inputs), needs
    return GaussianTransitionGradients(
        [
            empty_gradient(t, True, channels_last) if need else empty((0,), t.dtype, t)
            for t, need in zip(a.terms, need_terms, strict=True)
        ],
        empty_gradient(a.coefficients, need_coefficients),
        empty_gradient(a.std, need_std),
        empty_gradient(a.noise, need_noise, channels_last),
    )


def _wanted(gradients: GaussianTransitionGradients, needs: Sequence[bool]) -> list[Tensor]:
    d_terms, *others = gradients
    return [d for d, need in zip((*d_terms, *others), needs, strict=True) if need]


def _setup_context(ctx: Any, needs: Sequence[bool], inputs: tuple, output: Tensor) -> None:
    terms, coefficients, std, noise, seed, *position = inputs
    ctx.needs = list(needs[: len(terms) + 3])
    *_, need_coefficients, need_std, _ = ctx.needs
    ctx.position = position
    ctx.channels_last = is_channels_last(terms[0])
    # only d_coefficients looks at the terms, and only d_std at the noise
    if not need_coefficients:
        terms = [stand_in(t, ctx.direct) for t in terms]
    if noise is not None and not need_std:
        noise = stand_in(noise, ctx.direct)
    ctx.save_for_backward(coefficients, std, noise, seed, *terms)


def _autograd(ctx: Any, grad: Tensor) -> tuple:
    coefficients, std, noise, seed, *terms = ctx.saved_tensors
    op = backward_of(OP, _backward, ctx, grad)
    arguments = (terms, coefficients, std, noise, seed, *ctx.position, ctx.channels_last, ctx.needs, ctx.backend)
    results = list(op(grad, *arguments))
    gradients = [results.pop(0) if need else None for need in ctx.needs]
    return gradients[: len(terms)], *gradients[len(terms) :], None, None, None, None


def _check(terms: list[Tensor], coefficients: Tensor, std: Tensor | None, *source: Any) -> None:
    if std is not None:
        check_source(OP, terms[0], *source)


_backward, _CONNECT = define_op(
    OP,
    schema_of(GaussianTransition),
    "Tensor(a!) out",
    "Tensor grad",
    filled_schema_of(GaussianTransitionGradients, GaussianTransition),
    check=_check,
    wanted=_wanted,
    empty_results=_empty_result,
    empty_gradients=_empty_gradients,
    setup_context=_setup_context,
    autograd=_autograd,
)
_DIRECT = define_direct(
    "gaussian_transition_direct(Tensor[] terms, Tensor? coefficients, float[] numbers, bool noisy, Tensor? std, "
    "float std_number, Tensor? noise, Tensor? seed, int seed_number, int stream) -> Tensor?"
)
