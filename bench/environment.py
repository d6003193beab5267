"""Describe the machine and the versions of a measurement."""

import platform
import subprocess
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import torch

from f2d_kernels import __version__


def environment(device: torch.device | None = None) -> dict[str, str]:
    """Return the GPU, or the processor and its threads, the versions and the commit as text.

    device: the device that was measured; by default a GPU if there is one.
    """
    on_gpu = torch.cuda.is_available() if device is None else device.type == "cuda"
    processor = f"{_processor()}, {torch.get_num_threads()} threads"
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else processor,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": metadata.version("triton") if find_spec("triton") else "not installed",
        "f2d": __version__,
        "commit": _commit(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent, check=False)
    except OSError:
        return "unknown (no git)"
    return found.stdout.strip() or "not a checkout"
