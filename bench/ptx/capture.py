"""Stand in for a GPU: the launchers of an op run as they are, and each kernel they start is executed here.

    with captured("triton") as capture:
        expert_assembly(...)            # every launch, forward and backward, runs in the executor
    capture.counts                      # what each of them did

The ops' own schemas say which tensors a backend may write. These are filled with NaN and count as never written; all
others may only be read. What a launcher allocates on its way is a workspace: writable, and never written either.
"""

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from bench.providers import tensors
from bench.ptx.counts import Counts
from bench.ptx.machine import launch
from bench.ptx.memory import Memory
from bench.ptx.program import Program
from f2d_kernels import registry


@dataclass
class Launch:
    op: str  # "expert_assembly", or "expert_assembly backward"
    kernel: str
    grid: int
    block: int
    counts: Counts


@dataclass
class Capture:
    """The memory that the kernels see, and what they did."""

    counting: bool = False
    sample: int | None = None  # at most so many blocks of a launch run, evenly spaced, and are counted for all of them
    edited: Callable[[str, str], str] = lambda name, ptx: ptx  # what runs in place of a kernel's PTX
    memory: Memory = field(default_factory=Memory)
    launches: list[Launch] = field(default_factory=list)
    op: str = ""
    kept: list[Tensor] = field(default_factory=list)  # alive as long as the memory writes to them

    def run(self, program: Program, grid: int, block: int, parameters: bytes, shared: int = 0) -> None:
        blocks: Sequence[int] = range(grid)
        if self.sample is not None and self.sample < grid:
            blocks = sorted({i * grid // self.sample for i in range(self.sample)})
        counts = launch(program, grid, block, parameters, self.memory, shared, blocks, self.counting)
        if blocks:
            counts = counts.scaled(grid / len(blocks))
        self.launches.append(Launch(self.op, program.kernel.name, grid, block, counts))

    def add(self, name: str, tensor: Tensor, *, written: bool, writable: bool) -> None:
        """Make the tensor's storage known; of a storage too large to copy, the parts that the tensor occupies."""
        self.kept.append(tensor.detach())
        for address, size in _extents(tensor):
            real = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))
            if not written:
                real[:] = 0xFF  # a NaN in every floating-point type
            self.memory.add(name, address, real, written=written, writable=writable)


LARGE = 2**28  # bytes


def _extents(tensor: Tensor) -> Iterator[tuple[int, int]]:
    """(address, bytes) of the storage, or, where it is large, of its parts along the dimension of largest stride."""
    storage, size = tensor.untyped_storage(), tensor.element_size()
    if storage.nbytes() <= LARGE:
        if storage.nbytes():
            yield storage.data_ptr(), storage.nbytes()
        return
    reach = 1 + sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.stride()))
    if reach * size <= LARGE:
        yield tensor.data_ptr(), reach * size
        return
    for part in tensor.unbind(max(range(tensor.dim()), key=tensor.stride)):
        yield from _extents(part)


class _Allocations(TorchDispatchMode):
    """Tells the memory what PyTorch allocates and fills while a launcher runs."""

    def __init__(self, capture: Capture):
        super().__init__()
        self.capture = capture

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        name = function.overloadpacket.__name__
        for tensor in tensors(result):
            address = tensor.untyped_storage().data_ptr()
            if name.startswith(("empty", "new_empty")):
                # of a sample of blocks, what later launches read was not written by all
                self.capture.add("a workspace", tensor, written=self.capture.sample is not None, writable=True)
            elif not self.capture.memory.known(address):
                self.capture.add(f"the result of {name}", tensor, written=True, writable=True)
            elif name.endswith("_"):
                self.capture.memory.mark_written(address)
        return result


def _watched(capture: Capture, op: str, variant: str, function: Callable) -> Callable:
    """The backend's `function`, with its arguments known to the memory as the op's schema describes them."""
    arguments = getattr(torch.ops.f2d_kernels, variant).default._schema.arguments

    def run(*values: Any) -> None:
        capture.op = op
        for may_write in (False, True):  # results last: what was freed may have lain where they are
            for argument, value in zip(arguments, values, strict=True):
                info = argument.alias_info
                if may_write == (info is not None and info.is_write):
                    for tensor in tensors(value):
                        written = not may_write or capture.sample is not None
                        capture.add(argument.name, tensor, written=written, writable=may_write)
        with _Allocations(capture):
            function(*values)

    return run


@contextmanager
def captured(backend: str, **options: Any) -> Iterator[Capture]:
    """Within the block the ops run on `backend` ("triton" or "cuda"), whose kernels are executed here."""
    from bench.ptx import cuda, triton

    capture = Capture(**options)
    source = {"triton": triton, "cuda": cuda}[backend]

    def implementation(op: str) -> registry.Implementation:
        forward, backward = source.functions(op)
        return registry.Implementation(
            _watched(capture, op, f"{op}_out", forward),
            _watched(capture, f"{op} backward", f"{op}_backward_out", backward),
        )

    real = registry.REGISTRY[backend]
    registry.REGISTRY[backend] = registry.Backend(backend, lambda device: None, implementation, real.ops)
    registry._resolve.cache_clear()
    try:
        with registry.use_backend(backend), source.starting(capture.run, capture.edited):
            yield capture
    finally:
        registry.REGISTRY[backend] = real
        registry._resolve.cache_clear()
