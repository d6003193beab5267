"""Measure the peak memory of one call beyond the memory in use before it: results and temporaries.

On a GPU PyTorch's allocator reports it. On a CPU it is the running sum of the profiler's allocation events, which cover
PyTorch's allocator (thus every tensor) but not memory that C++ code allocates elsewhere.
"""

import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch.profiler import ProfilerActivity, profile

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # as in malloc.h


def peak_bytes(call: Callable[[], object], device: torch.device) -> int:
    """Return the peak of the memory in use during `call`, minus the memory in use before it."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated(device) - before
    with _silent(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        call()
    events = [e for e in recorded.profiler.kineto_results.events() if e.name() == "[memory]"]
    used = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        used += event.nbytes()
        peak = max(peak, used)
    return peak


@contextmanager
def _silent() -> Iterator[None]:
    """Silence the process's standard error, to which the profiler writes two lines that no log level suppresses."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def keep_freed_memory() -> bool:
    """Make the C library reuse freed memory instead of returning it to the system; False if it cannot (no glibc).

    Otherwise large results pay for page faults, which cost several times the op in some calls and nothing in others. On
    a GPU PyTorch's allocator keeps memory in the same way.
    """
    mallopt = _mallopt()
    return bool(mallopt and mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1))


def return_freed_memory() -> bool:
    """Make the C library return each block of 128 KiB or more when it is freed, so that every large result is new
    memory; False if it cannot. By default it always returns blocks above 32 MiB, and smaller ones now and then."""
    mallopt = _mallopt()
    return bool(mallopt and mallopt(M_MMAP_MAX, 65536) and mallopt(M_MMAP_THRESHOLD, 2**17))  # 65536: the default


def _mallopt() -> Callable[[int, int], int] | None:
    try:
        return ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return None
