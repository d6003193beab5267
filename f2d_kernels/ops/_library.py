"""Register ops with PyTorch. Python owns every schema, so that the library works without a compiled part."""

from collections.abc import Callable, Sequence
from string import ascii_lowercase
from typing import Any

import torch
from torch import Tensor

from f2d_kernels.ops._derivatives import derivatives, second_derivatives
from f2d_kernels.registry import implementation

LIBRARY = torch.library.Library("f2d_kernels", "DEF")
_SCHEMA_TYPES: dict[Any, str] = {
    Tensor: "Tensor",
    Tensor | None: "Tensor?",
    list[Tensor]: "Tensor[]",
    int: "SymInt",
    float: "float",
    bool: "bool",
}


def define(schema: str, kernel: Callable, fake: Callable) -> str:
    """Register `kernel` under `schema` for every device, with `fake` for shapes; returns the qualified name."""
    name = schema.split("(", 1)[0]
    LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag, torch.Tag.needs_fixed_stride_order))
    LIBRARY.impl(name, kernel, "CompositeExplicitAutograd")
    qualified = f"f2d_kernels::{name}"
    torch.library.register_fake(qualified, fake, lib=LIBRARY)
    torch.library.register_vmap(qualified, _vmap_by_loop(name), lib=LIBRARY)
    return qualified


def schema_of(arguments: type) -> str:
    """The arguments of a schema from the NamedTuple that holds them."""
    return ", ".join(f"{_SCHEMA_TYPES[kind]} {name}" for name, kind in arguments.__annotations__.items())


def filled_schema_of(gradients: Any, arguments: type) -> str:
    """The same of gradients that a kernel fills."""
    lists = {name for name, kind in arguments.__annotations__.items() if kind == list[Tensor]}
    return ", ".join(
        f"Tensor({mark}!){'[]' if name in lists else '?'} d_{name}"
        for mark, name in zip(ascii_lowercase, gradients._fields)
    )


def define_compiled(schema: str) -> None:
    """Declare an out-variant whose CPU and CUDA implementations the compiled part supplies when it is loaded."""
    LIBRARY.define(schema.replace("SymInt", "int"))


def define_direct(schema: str) -> Callable:
    """Declare a direct op (see `_direct`), which the compiled part supplies for the CPU; returns what calls it."""
    LIBRARY.define(schema)
    name = schema.split("(", 1)[0]
    overload = getattr(torch.ops.f2d_kernels, name).default
    LIBRARY.impl(name, torch.library.fallthrough_kernel, "Autograd")  # callers know that no gradient is wanted
    count = len(overload._schema.returns)
    for others in ("CompositeExplicitAutograd", "NestedTensorCPU"):  # sparse tensors, other devices: declined
        LIBRARY.impl(name, lambda *_: None if count == 1 else (None,) * count, others)
    return overload._op


def define_derivatives(
    op: str, fake: Callable, fake_backward: Callable, setup_context: Callable, backward: Callable
) -> Callable:
    """Make `op` differentiable by `{op}_backward`, and both of them in every mode; returns `connect` of
    `_derivatives.derivatives`."""
    kernel, connect = derivatives(op, fake, setup_context, backward)
    LIBRARY.impl(op, kernel, "Autograd", with_keyset=True)
    LIBRARY.impl(f"{op}_backward", second_derivatives(op, fake_backward), "Autograd", with_keyset=True)
    return connect


def _wanted(gradients: Sequence[Any], needs: Sequence[bool]) -> list[Tensor]:
    return [t for d in gradients for t in (d if type(d) is list else (d,)) if t is not None]


def backward_kernels(
    op: str, empty_gradients: Callable, check: Callable | None = None, wanted: Callable = _wanted
) -> tuple[Callable, Callable]:
    """(kernel, fake) of the backward op of `op`, whose arguments end in channels_last, needs and backend. PyTorch keeps
    compiled graphs on disk that call these ops, so the meaning of their arguments never changes.

    empty_gradients(*arguments before backend) allocates what a backend fills; check(*arguments before channels_last)
    raises for what is wrong in a call without the public function; wanted(gradients, needs) lists those to return.
    """

    def fake(*arguments: Any) -> list[Tensor]:
        return wanted(empty_gradients(*arguments[:-1]), arguments[-2])

    def kernel(*arguments: Any) -> list[Tensor]:
        *inputs, _, needs, backend = arguments
        if check is not None:
            check(*inputs)
        gradients = empty_gradients(*arguments[:-1])
        results = wanted(gradients, needs)
        image = inputs[0] if inputs[0] is not None else next(t for t in inputs if t is not None)
        if image.numel():
            implementation(op, image.device, backend).backward(*inputs, *gradients)
        else:
            for result in results:
                result.zero_()
        return results

    return kernel, fake


def _vmap_by_loop(name: str) -> Callable:
    """torch.func.vmap by running the op once per slice: exact for every argument mix, seeds included."""

    def rule(info: Any, in_dims: Any, *args: Any) -> Any:
        def slice_of(arg: Any, dim: Any, i: int) -> Any:
            if isinstance(arg, (list, tuple)):
                dims = dim if isinstance(dim, (list, tuple)) else [dim] * len(arg)
                return [slice_of(a, d, i) for a, d in zip(arg, dims, strict=True)]
            if dim is None:
                return arg
            return arg.select(dim, i) if info.batch_size else arg.sum(dim)  # of none: zeros, for the shapes alone

        op = getattr(torch.ops.f2d_kernels, name).default
        count = max(info.batch_size, 1)
        results = [op(*(slice_of(a, d, i) for a, d in zip(args, in_dims, strict=True))) for i in range(count)]
        if isinstance(results[0], torch.Tensor):
            return torch.stack(results)[: info.batch_size], 0
        stacked = [torch.stack(group)[: info.batch_size] for group in zip(*results, strict=True)]
        return stacked, [0] * len(results[0])

    return rule
