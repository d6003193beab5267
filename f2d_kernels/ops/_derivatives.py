"""Derivatives of an op in every mode of PyTorch: reverse mode by its backward op, all others by its formula.

The dispatcher calls the functions registered here once per level of `torch.func`, as it calls those of PyTorch's own
ops. Tangents (forward mode) and second derivatives run the plain PyTorch of `f2d_kernels.reference`, which PyTorch
differentiates by itself.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._C import _are_functorch_transforms_active, _has_storage
from torch._functorch.utils import enable_single_level_autograd_function
from torch._guards import TracingContext
from torch.autograd import forward_ad
from torch.compiler import is_dynamo_compiling

from f2d_kernels.ops._direct import differentiated
from f2d_kernels.registry import formulas, requested_backend

_BY_FORMULA: dict[str, Callable] = {}  # gradients of each op by its formula


def derivatives(op: str, fake: Callable, setup_context: Callable, backward: Callable) -> tuple[Callable, Callable]:
    """(the autograd kernel of `op`, connect), where connect(output, *arguments) returns an output that was computed
    beforehand as part of autograd's graph.

    setup_context(ctx, needs, inputs, output) and backward(ctx, *grads) are those of an autograd.Function; needs has one
    flag per tensor of a list, then one per further argument.
    """
    overload = getattr(torch.ops.f2d_kernels, op).default

    class Node(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, found: Any, keyset: Any, *flat: Any) -> Any:
            # The backward pass runs where this one does; "" in a graph, which serves other choices and later processes
            ctx.direct, ctx.backend = keyset is None, "" if TracingContext.try_get() else requested_backend()
            if ctx.direct:
                arguments, output = found
            else:
                arguments = _nested(flat, found)
                # apply turned both modes off, which is right for this level and would hide the levels below
                with torch.enable_grad(), forward_ad._set_fwd_grad_enabled(True):
                    output = _below(overload, keyset, arguments)
            setup_context(ctx, ctx.needs_input_grad[2:], arguments, output)
            return output

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> tuple:
            dense = (g if g is None or g.layout == torch.strided else g.to_dense() for g in grads)
            return None, None, *_flat(backward(ctx, *dense))

    Node.__name__ = Node.__qualname__ = f"{op}_node"
    # torch.autograd.Function.apply without its detour for torch.func: this is one level, as for PyTorch's ops
    apply = super(torch.autograd.Function, Node).apply

    def connect(output: Any, *arguments: Any) -> Any:
        return apply((arguments, output), None, *_flat(arguments))

    def kernel(keyset: Any, *arguments: Any) -> Any:
        if _has_tangent(arguments):
            return _like(fake(*arguments), formulas(op).formula(*arguments))
        if torch.is_grad_enabled() and torch._C._any_requires_grad(*arguments):
            if not _are_functorch_transforms_active():
                return apply(_lengths(arguments), keyset, *_flat(arguments))
            with enable_single_level_autograd_function():
                return apply(_lengths(arguments), keyset, *_flat(arguments))
        return _below(overload, keyset, arguments)

    return kernel, connect


def backward_of(op: str, kernel: Callable, ctx: Any, *grads: Tensor | None) -> Callable:
    """Return the function that computes the gradients of `op`: its backward op, or the kernel if the op adds nothing.

    It adds nothing if the forward call was direct, nothing is recorded, and `_direct` accepts the gradients.
    Many gradients at once (`is_grads_batched`) take the formula, whose operations PyTorch can batch.
    """
    if is_dynamo_compiling():  # compiled autograd traces the backward pass: one op, no break
        return getattr(torch.ops.f2d_kernels, f"{op}_backward").default
    if not _are_functorch_transforms_active() and not all(g is None or _has_storage(g) for g in grads):
        return _BY_FORMULA[op]
    if ctx.direct and not torch.is_grad_enabled() and differentiated((), *grads) is not None:
        return kernel
    return getattr(torch.ops.f2d_kernels, f"{op}_backward").default


def second_derivatives(op: str, fake: Callable) -> Callable:
    """The autograd kernel of the backward op of `op`, whose arguments end in (channels_last,) needs, backend."""
    overload = getattr(torch.ops.f2d_kernels, f"{op}_backward").default
    names = [argument.name for argument in overload._schema.arguments]
    needs_at = names.index("needs")
    inputs = names.index("channels_last") if "channels_last" in names else needs_at

    def by_formula(*arguments: Any) -> Any:
        return _like(fake(*arguments), formulas(op).gradients(*arguments[:inputs], arguments[needs_at]))

    _BY_FORMULA[op] = by_formula

    def kernel(keyset: Any, *arguments: Any) -> Any:
        tracked = torch.is_grad_enabled() and torch._C._any_requires_grad(*arguments)
        if tracked or _has_tangent(arguments):
            return by_formula(*arguments)
        return _below(overload, keyset, arguments)

    return kernel


def _below(overload: Any, keyset: Any, arguments: Sequence[Any]) -> Any:
    with torch._C._AutoDispatchBelowAutograd():
        return overload.redispatch(keyset & torch._C._after_autograd_keyset, *arguments)


def _has_tangent(arguments: Sequence[Any]) -> bool:
    if forward_ad._current_level < 0:
        return False
    return any(forward_ad.unpack_dual(t).tangent is not None for t in _flat(arguments) if isinstance(t, Tensor))


def _like(results: Any, values: Any) -> Any:
    """`values` in the dtypes of `results`, which the fake kernel allocated."""
    if isinstance(results, Tensor):
        return values.to(results.dtype)
    return type(results)(v.to(r.dtype) for r, v in zip(results, values, strict=True))


def _lengths(arguments: Sequence[Any]) -> list[int | None]:
    return [len(a) if isinstance(a, (list, tuple)) else None for a in arguments]


def _flat(arguments: Sequence[Any]) -> list[Any]:
    """The arguments with the tensors of lists in their place."""
    flat: list[Any] = []
    for argument in arguments:
        flat.extend(argument) if isinstance(argument, (list, tuple)) else flat.append(argument)
    return flat


def _nested(flat: Sequence[Any], lengths: Sequence[int | None]) -> list[Any]:
    rest = iter(flat)
    return [next(rest) if n is None else [next(rest) for _ in range(n)] for n in lengths]
