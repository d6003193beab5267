"""Fused operations for factorized stochastic transport, as autograd ops.

    expert_assembly       base + Σ_k gates · maps · deltas                              one pass over K predictions
    lognormal_transition  mu + (x - mu) · exp(clamp(log_mean + log_std · eps))          noise drawn in registers
    transport_step        both, with mu = clamp(anchor + assembly) between them         one pass, x and mu as results
    gaussian_transition   Σ_j coefficients · terms + std · eps                          IR-SDE, RDDM, DDIM, ... steps
    expert_head           base + Σ_k gates · maps · (W (scale ⊙ features) + bias)       no expert's delta in memory
    group_norm_silu       silu(group_norm(x) · (1 + scale) + shift)                     and its mean, if requested

Each op has a reference backend in plain PyTorch, a C++ backend (CPU) and a Triton backend; the first three also have a
CUDA backend. `use_backend` and the environment variable F2D_KERNELS_BACKEND choose one; `backends()` and
`python -m f2d_kernels.info` show which are available, and why the others are not. `f2d_kernels.modules` has each op as
an nn.Module, and `f2d_kernels.integrations` has the steps and mixtures of other methods. `accelerate(module)` replaces
group norm and SiLU in any network by group_norm_silu.
"""

from f2d_kernels.fusing.accelerate import accelerate
from f2d_kernels.ops.expert_assembly import expert_assembly
from f2d_kernels.ops.expert_head import expert_head
from f2d_kernels.ops.gaussian_transition import gaussian_transition
from f2d_kernels.ops.group_norm_silu import group_norm_silu
from f2d_kernels.ops.lognormal_transition import lognormal_transition
from f2d_kernels.ops.transport_step import transport_step
from f2d_kernels.registry import BackendUnavailableError, backends, selected_backend, use_backend
from f2d_kernels.version import __version__

__all__ = [
    "BackendUnavailableError",
    "__version__",
    "accelerate",
    "backends",
    "expert_assembly",
    "expert_head",
    "gaussian_transition",
    "group_norm_silu",
    "lognormal_transition",
    "selected_backend",
    "transport_step",
    "use_backend",
]
