"""Measure the peak memory of a process."""

import re
import sys
from pathlib import Path

import torch


def peak_memory() -> int:
    """Return the peak memory of this process in bytes: that of PyTorch's allocator on a GPU, otherwise main memory.

    It is read from /proc if possible, since getrusage's figure includes the peak of the parent process.
    """
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if status.is_file():
        return 1024 * int(re.findall(r"VmHWM:\s*(\d+) kB", status.read_text())[0])
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
