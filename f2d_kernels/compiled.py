"""Load the compiled part, once and only on demand, and keep the reason if it is missing.

The shared objects use PyTorch's stable ABI: one binary serves every PyTorch from `minimum_torch` on. The CPU and the
CUDA part are separate, since the CUDA part resolves symbols that only a CUDA PyTorch has.
"""

import importlib
import re
from functools import cache
from pathlib import Path

import torch

from f2d_kernels.version import __version__

FOLDER = Path(__file__).resolve().parent
HOW_TO_BUILD = "build it with `pip install --no-build-isolation .` where PyTorch and {needs} are installed"


@cache
def load_cpu() -> str | None:
    """Load the C++ implementations for CPU tensors; return None on success, otherwise a one-line reason."""
    return _load(FOLDER / "_cpu.so", "C++", needs="a C++ compiler")


@cache
def load_cuda() -> str | None:
    """Load the CUDA implementations; return None on success, otherwise a one-line reason."""
    if (FOLDER / "_cuda.so").exists() and torch.version.cuda is None:
        return f"the CUDA part is there, but PyTorch {torch.__version__} has no CUDA"
    return _load(FOLDER / "_cuda.so", "CUDA", needs="nvcc")


def build_info() -> dict | None:
    """Return how the compiled part was built (version, compiler, torch, cuda, architectures, simd), or None if there is
    none."""
    try:
        module = importlib.import_module("f2d_kernels._build_info")
    except ImportError:
        return None
    return module.build_info()


def _load(path: Path, part: str, needs: str) -> str | None:
    if not path.exists():
        return f"the {part} part is not built; {HOW_TO_BUILD.format(needs=needs)}"
    reason = misfit(build_info(), torch.__version__)
    if reason is not None:
        return f"{path.name}: {reason}"
    try:
        torch.ops.load_library(str(path))
    except (OSError, RuntimeError) as error:
        return f"{path.name} does not load: {' '.join(str(error).split())}"
    return None


def misfit(info: dict | None, running_torch: str) -> str | None:
    """Return why a binary built as `info` says does not fit this f2d_kernels and `running_torch`, or None."""
    if info is None:
        return "its build record (_build_info) is missing or was built for another Python; build it again"
    if info["version"] != __version__:
        return f"it was built from f2d_kernels {info['version']}, this is {__version__}; build it again"
    if _release(running_torch) < _release(info["minimum_torch"]):
        return f"it needs PyTorch {info['minimum_torch']} or newer (stable ABI), this is {running_torch}"
    return None


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])
