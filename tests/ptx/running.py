"""Running PTX that a test writes itself: arrays in, arrays out."""

import numpy as np

from bench.ptx.counts import Counts
from bench.ptx.machine import launch
from bench.ptx.memory import Memory
from bench.ptx.parser import parse
from bench.ptx.program import program_of

HEAD = ".version 8.0\n.target sm_90\n.address_size 64\n"
REGISTERS = ".reg .pred %p<9>;\n.reg .b16 %h<9>;\n.reg .b32 %r<29>;\n.reg .b64 %d<29>;\n"


def aligned(array: np.ndarray) -> np.ndarray:
    """A copy whose address is a multiple of 64."""
    room = np.zeros(array.nbytes + 64, np.uint8)
    start = -room.ctypes.data % 64
    copy = room[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def run(text: str, *arrays: np.ndarray, outputs: int = 1, grid: int = 1, block: int = 32, shared: int = 0) -> Counts:
    """Execute the only kernel in `text`, whose parameters are the addresses of `arrays`, the last `outputs` of which it
    may write."""
    (kernel,) = parse(text).values()
    memory = Memory()
    for i, array in enumerate(arrays):
        result = i >= len(arrays) - outputs
        real = array.reshape(-1).view(np.uint8)
        memory.add(f"array {i}", array.ctypes.data, real, written=not result, writable=result)
    parameters = np.array([array.ctypes.data for array in arrays], np.uint64).tobytes()
    return launch(program_of(kernel), grid, block, parameters, memory, shared, counting=True)


def kernel(body: str, arrays: int = 2, name: str = "k") -> str:
    """A kernel whose parameters %d0, %d1, ... are addresses and whose thread number is %r0."""
    parameters = ", ".join(f".param .u64 a{i}" for i in range(arrays))
    loads = "".join(f"ld.param.u64 %d{i}, [a{i}];\n" for i in range(arrays))
    shared = ".extern .shared .align 16 .b8 smem[];\n"
    head = f"{HEAD}{shared}.visible .entry {name}({parameters})\n{{\n{REGISTERS}{loads}"
    return f"{head}mov.u32 %r0, %tid.x;\n{body}\nret;\n}}\n"
