"""Fused operations for factorized stochastic transport, as autograd ops.

    expert_assembly       base + Σ_k gates · maps · deltas                              one pass over K predictions
    lognormal_transition  mu + (x - mu) · exp(clamp(log_mean + log_std · eps))          noise drawn in registers from
    a seed

Each op has a plain PyTorch reference, a C++ (CPU), a Triton and a CUDA backend; `use_backend` and the environment
variable F2D_KERNELS_BACKEND choose one, `backends()` and `python -m f2d_kernels.info` say which are there and why
others are not.
"""

from f2d_kernels.backends import BackendUnavailableError, backends, selected_backend, use_backend
from f2d_kernels.ops.expert_assembly import expert_assembly
from f2d_kernels.ops.lognormal_transition import lognormal_transition
from f2d_kernels.version import __version__

__all__ = [
    "BackendUnavailableError",
    "__version__",
    "backends",
    "expert_assembly",
    "lognormal_transition",
    "selected_backend",
    "use_backend",
]
