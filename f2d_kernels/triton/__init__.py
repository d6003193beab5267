"""Triton backend: NVIDIA and AMD GPUs, or CPU tensors through Triton's interpreter. Kernels load on first use."""

import importlib.util
import os

import torch

_INTERPRET = "set TRITON_INTERPRET=1 to run interpreted on CPU tensors"


def unavailable_reason(device_type: str) -> str | None:
    """Return why the Triton kernels cannot run on tensors of `device_type` ("cuda", "cpu", ...), or None."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed: pip install f2d[triton]"
    if os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "yes", "on", "y"):
        from triton.language import philox
        from triton.runtime.interpreter import InterpretedFunction

        if not isinstance(philox, InterpretedFunction):
            return "TRITON_INTERPRET=1 was set after triton had been imported; set it before Python starts"
        served = device_type in ("cpu", "cuda")
        return None if served else f"the Triton interpreter runs on cpu and cuda tensors, not on {device_type}"
    if device_type == "cpu":
        hint = "use a CUDA or ROCm tensor" if torch.cuda.is_available() else "no GPU is available to PyTorch"
        return f"Triton compiles for GPUs, not for CPU tensors ({hint}); {_INTERPRET}"
    if device_type != "cuda":
        return f"the Triton kernels serve CUDA and ROCm GPUs, not {device_type}"
    return None if torch.cuda.is_available() else f"no GPU is available to PyTorch; {_INTERPRET}"
