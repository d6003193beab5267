"""The memory ceiling: a loop that moves exactly the least traffic of an op over as many read and write streams.

On a CPU it is `ceiling.cpp`, compiled at first use, with plain and with non-temporal stores, of which the faster
counts; on a GPU it is a Triton kernel. `copies` moves the same number of bytes with `Tensor.copy_`.
"""

import ctypes
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch

from bench.registry import Traffic

LINE = 64
SOURCE = Path(__file__).with_name("ceiling.cpp")
FLAGS = ("-O3", "-march=native", "-std=c++17", "-fopenmp", "-shared", "-fPIC")

Thunk = Callable[[], object]


def ceilings(traffic: Traffic, sets: int, device: torch.device) -> dict[str, list[Thunk]]:
    """Map each name to one thunk per set of buffers.

    Raises RuntimeError with the compiler's message if the build fails.
    """
    read_lines = -(-traffic.read // traffic.reads // LINE)
    write_lines = -(-traffic.written // traffic.writes // LINE)
    buffers = [
        (_lines(traffic.reads * read_lines, device), _lines(traffic.writes * write_lines, device)) for _ in range(sets)
    ]
    if device.type == "cuda":
        from bench.ceiling_triton import sweep

        shape = (traffic.reads, read_lines, traffic.writes, write_lines)
        return {"triton": [lambda b=b: sweep(*b, *shape) for b in buffers]}
    library = _library()

    def thunk(source: torch.Tensor, target: torch.Tensor, past_the_cache: int) -> Thunk:
        where = source.data_ptr(), traffic.reads, read_lines, target.data_ptr(), traffic.writes, write_lines

        def run(keep: object = (source, target)) -> None:
            library.f2d_bench_sweep(*where, past_the_cache)

        return run

    return {name: [thunk(*b, flag) for b in buffers] for name, flag in (("stores", 0), ("non-temporal stores", 1))}


def copies(traffic: Traffic, sets: int, device: torch.device) -> list[Thunk]:
    """Copy half the traffic with `Tensor.copy_`, so that reads and writes together are as many bytes."""
    lines = -(-traffic.total // 2 // LINE)
    buffers = [(_lines(lines, device), _lines(lines, device)) for _ in range(sets)]
    return [lambda b=b: b[1].copy_(b[0]) for b in buffers]


def _lines(count: int, device: torch.device) -> torch.Tensor:
    """Allocate `count` lines of 64 bytes, written once so that the pages exist; PyTorch aligns to at least 64 bytes."""
    return torch.ones(max(count, 1) * LINE // 4, dtype=torch.int32, device=device)


@cache
def _library() -> ctypes.CDLL:
    code = SOURCE.read_bytes()
    model = Path("/proc/cpuinfo").read_bytes().split(b"\n\n")[0] if Path("/proc/cpuinfo").exists() else b""
    # because of -march=native, another processor needs another build
    flags = b"".join(line for line in model.splitlines() if line.startswith((b"model name", b"flags")))
    key = hashlib.sha256(code + repr(FLAGS).encode() + flags).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "f2d-bench"
    built = folder / f"ceiling-{key}.so"
    if not built.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            made = Path(scratch) / built.name
            command = [os.environ.get("CXX", "c++"), *FLAGS, str(SOURCE), "-o", str(made)]
            try:
                subprocess.run(command, check=True, capture_output=True, text=True)
            except (OSError, subprocess.CalledProcessError) as error:
                words = getattr(error, "stderr", None) or str(error)
                raise RuntimeError(f"the ceiling loop cannot be compiled: {words.strip()}") from None
            made.replace(built)
    library = ctypes.CDLL(str(built))
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    library.f2d_bench_sweep.argtypes = [pointer, number, number, pointer, number, number, ctypes.c_int]
    library.f2d_bench_sweep.restype = None
    return library
