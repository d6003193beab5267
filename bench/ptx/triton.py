"""Launches of the Triton kernels: compiled for sm_90 without a GPU, specialised by the real tensors.

The launchers choose grids and constants; in place of starting a kernel, its PTX and its parameters go to the executor.
"""

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from bench.ptx.program import Program, program_in

MODULES = ("_reduce", "expert_assembly", "expert_head", "expert_head_backward", "gaussian_transition",
           "group_norm_silu", "group_norm_silu_backward", "lognormal_transition", "transport_step",
           "transport_step_backward")  # fmt: skip
_FORMATS = {"i1": "<i", "i8": "<b", "i16": "<h", "i32": "<i", "i64": "<q", "u32": "<I", "u64": "<Q", "fp32": "<f",
            "f32": "<f", "fp64": "<d"}  # fmt: skip


class Device:
    """A driver that describes an H100 to Triton's just-in-time compiler."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def functions(op: str) -> tuple[Callable, Callable]:
    module = import_module(f"f2d_kernels.triton.{op}")
    return module.forward, module.backward


@contextmanager
def starting(run: Callable[..., None], edited: Callable[[str, str], str]) -> Iterator[None]:
    """Launchers hand their kernels to `run`; `edited(name, PTX)` is what runs."""

    def launch(kernel: Any, programs: int, device: Any, *arguments: Any, tuned: bool = True, **constants: Any) -> None:
        built = kernel.warmup(*arguments, **constants, grid=(programs,), enable_fp_fusion=False)
        program = program_in(edited(built.metadata.name, built.asm["ptx"]), built.metadata.name)
        named = dict(zip(kernel.arg_names, arguments)) | constants
        parameters = _parameters(program, built.src.signature, named)
        run(program, programs, 32 * built.metadata.num_warps, parameters, built.metadata.shared)

    before = driver._active
    driver.set_active(Device())
    try:
        with launching(launch):
            yield
    finally:
        driver._active = before


@contextmanager
def launching(launch: Callable[..., None]) -> Iterator[None]:
    """The launchers call `launch` in place of their own function of that name."""
    modules = [import_module(f"f2d_kernels.triton.{name}") for name in MODULES]
    real = [module.launch for module in modules]
    for module in modules:
        module.launch = launch
    try:
        yield
    finally:
        for module, function in zip(modules, real, strict=True):
            module.launch = function


def _parameters(program: Program, signature: dict[str, Any], arguments: dict[str, Any]) -> bytes:
    """The flattened arguments that are no constants of the compiled kernel, and two empty scratch pointers."""
    kinds: list[tuple[str, Any]] = []
    for name, kind in signature.items():
        _flatten(arguments.get(name), kind, kinds)
    kinds += [("*", 0), ("*", 0)]
    data = bytearray(program.kernel.parameter_bytes)
    if len(kinds) != len(program.kernel.parameters):
        raise ValueError(
            f"{program.kernel.name}: {len(kinds)} arguments for {len(program.kernel.parameters)} parameters"
        )
    for (kind, value), (_, offset, size) in zip(kinds, program.kernel.parameters, strict=True):
        number = value.data_ptr() if isinstance(value, Tensor) else value
        packed = struct.pack("<Q" if kind.startswith("*") else _FORMATS[kind], number)
        if len(packed) != size:
            raise ValueError(f"{program.kernel.name}: a {kind} for a parameter of {size} bytes")
        data[offset : offset + size] = packed
    return bytes(data)


def _flatten(value: Any, kind: Any, out: list[tuple[str, Any]]) -> None:
    """Pairs of a type and its value, tuples opened, constants left out."""
    if isinstance(kind, (list, tuple)):
        for each, each_kind in zip(value, kind):
            _flatten(each, each_kind, out)
    elif kind != "constexpr":
        out.append((kind, value))
