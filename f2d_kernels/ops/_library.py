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


def _define(schema: str, kernel: Callable, fake: Callable) -> None:
    """Register `kernel` under `schema` for every device, with `fake` for shapes."""
    name = schema.split("(", 1)[0]
    LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag, torch.Tag.needs_fixed_stride_order))
    LIBRARY.impl(name, kernel, "CompositeExplicitAutograd")
    torch.library.register_fake(f"f2d_kernels::{name}", fake, lib=LIBRARY)
    torch.library.register_vmap(f"f2d_kernels::{name}", _vmap_by_loop(name), lib=LIBRARY)


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


def _wanted(gradients: Sequence[Any], needs: Sequence[bool]) -> list[Tensor]:
    return [t for d in gradients for t in (d if type(d) is list else (d,)) if t is not None]


def define_op(
    op: str,
    arguments: str,
    results: str,
    grads: str,
    gradients: str,
    *,
    empty_results: Callable,
    empty_gradients: Callable,
    setup_context: Callable,
    autograd: Callable,
    read: str | None = None,
    flags: str = "",
    layout: str = "bool channels_last",
    check: Callable | None = None,
    wanted: Callable = _wanted,
) -> tuple[Callable, Callable]:
    """Register `op` and its backward op, which make each other differentiable in every mode, and declare the variants
    of both that only fill results, whose CPU and CUDA implementations the compiled part supplies when it is loaded.

    Schemas: arguments: those of a backend, then `flags`, which only the allocation reads; results: what a backend
    fills; grads: the gradients of the results; read: what the backward pass reads (default: all arguments); gradients:
    what a backend fills there. PyTorch keeps compiled graphs on disk that call these ops, so the meaning of their
    arguments never changes.

    empty_results(*arguments, *flags) and empty_gradients(*grads, *read, channels_last, needs) allocate, in tracing too;
    wanted(gradients, needs) lists the gradients to return; check(*arguments) raises for invalid arguments of a call
    without the public function. setup_context and autograd are those of `_derivatives.derivatives`.

    Returns:
        The kernel of the backward op, whose arguments end in channels_last, needs and backend, and `connect` of
        `_derivatives.derivatives`.
    """

    def kernel(*inputs: Any) -> Any:
        if check is not None:
            check(*inputs)
        found = empty_results(*inputs)
        filled = (found,) if isinstance(found, Tensor) else found
        if filled[0].numel():
            read_by_backend = inputs[:-1] if flags else inputs
            fill = implementation(op, filled[0].device).forward
            fill(*(t if t.numel() else None for t in filled), *read_by_backend)
        else:
            for result in filled:
                result.fill_(float("nan"))  # as torch.mean of nothing
        return found

    def fake_backward(*inputs: Any) -> list[Tensor]:
        return wanted(empty_gradients(*inputs[:-1]), inputs[-2])

    def backward(*inputs: Any) -> list[Tensor]:
        *given, _, needs, backend = inputs
        if check is not None:
            check(*given[grads.count("Tensor") :])
        d_inputs = empty_gradients(*inputs[:-1])
        found = wanted(d_inputs, needs)
        image = given[0] if given[0] is not None else next(t for t in given if t is not None)
        if image.numel():
            implementation(op, image.device, backend).backward(*given, *d_inputs)
        else:
            for result in found:
                result.zero_()
        return found

    returned = ", ".join(["Tensor"] * results.count("Tensor"))
    inputs = f"{grads}, {arguments if read is None else read}"
    _define(f"{op}({', '.join(filter(None, (arguments, flags)))}) -> ({returned})", kernel, empty_results)
    _define(f"{op}_backward({inputs}, {layout}, bool[] needs, str backend) -> Tensor[]", backward, fake_backward)
    forward_kernel, connect = derivatives(op, empty_results, setup_context, autograd)
    LIBRARY.impl(op, forward_kernel, "Autograd", with_keyset=True)
    LIBRARY.impl(f"{op}_backward", second_derivatives(op, fake_backward), "Autograd", with_keyset=True)
    for schema in (f"{op}_out({results}, {arguments}) -> ()", f"{op}_backward_out({inputs}, {gradients}) -> ()"):
        LIBRARY.define(schema.replace("SymInt", "int"))
    return backward, connect


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
