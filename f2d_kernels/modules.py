"""nn.Module twins of the ops, for models that are put together from modules."""

from typing import Any

from torch import Tensor, nn

from f2d_kernels.ops.expert_assembly import expert_assembly
from f2d_kernels.ops.lognormal_transition import lognormal_transition


class ExpertAssembly(nn.Module):
    """base + Σ_k gates · maps · deltas; see `f2d_kernels.expert_assembly` for shapes and errors."""

    def forward(
        self, deltas: Tensor | list[Tensor], gates: Tensor, maps: Tensor | None = None, base: Tensor | None = None
    ) -> Tensor:
        return expert_assembly(deltas, gates, maps, base)


class LogNormalTransition(nn.Module):
    """mu + (x - mu) · exp(clamp(log_mean + log_std · eps, -20, 20)); see `f2d_kernels.lognormal_transition`."""

    def forward(self, x: Tensor, mu: Tensor, log_mean: Tensor | float, log_std: Tensor | float, **noise: Any) -> Tensor:
        """noise: any of noise, seed, generator, stream, window."""
        return lognormal_transition(x, mu, log_mean, log_std, **noise)
