"""Peak memory of one call, beyond what was there before it: results and temporaries.

On a GPU what PyTorch's allocator says; on a processor the running sum of the profiler's allocation events, which sees
PyTorch's allocator (so every tensor), not what C++ code takes elsewhere.
"""

import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch.profiler import ProfilerActivity, profile

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # of malloc.h


def peak_bytes(call: Callable[[], object], device: torch.device) -> int:
    """Most memory in use at one time during `call`, minus that before it."""
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
    """Standard error of the process closed: the profiler writes two lines there each time, at no level of its log."""
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
    """Have the C library reuse freed memory instead of returning it to the system; False where it cannot (no glibc).

    Otherwise large results pay for page faults, in some calls several times what the op costs, in others nothing. On a
    GPU, PyTorch's allocator keeps memory in just this way.
    """
    mallopt = _mallopt()
    return bool(mallopt and mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1))


def return_freed_memory() -> bool:
    """Have the C library give each block of 128 KiB and more back when it is freed, so that every large result is new
    memory; False where it cannot. Without this, that is so for blocks above 32 MiB, and for others now and then."""
    mallopt = _mallopt()
    return bool(mallopt and mallopt(M_MMAP_THRESHOLD, 2**17))


def _mallopt() -> Callable[[int, int], int] | None:
    try:
        return ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return None
