"""Each op as an nn.Module, for models built from modules."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from f2d_kernels.ops.expert_assembly import expert_assembly
from f2d_kernels.ops.expert_head import expert_head
from f2d_kernels.ops.gaussian_transition import gaussian_transition
from f2d_kernels.ops.group_norm_silu import group_norm_silu
from f2d_kernels.ops.lognormal_transition import lognormal_transition
from f2d_kernels.ops.transport_step import transport_step


class ExpertAssembly(nn.Module):
    """base + Σ_k gates · maps · deltas; see `f2d_kernels.expert_assembly` for shapes and errors."""

    def forward(
        self, deltas: Tensor | Sequence[Tensor], gates: Tensor, maps: Tensor | None = None, base: Tensor | None = None
    ) -> Tensor:
        return expert_assembly(deltas, gates, maps, base)


class LogNormalTransition(nn.Module):
    """mu + (x - mu) · exp(clamp(log_mean + log_std · eps, -20, 20)); see `f2d_kernels.lognormal_transition`."""

    def forward(self, x: Tensor, mu: Tensor, log_mean: Tensor | float, log_std: Tensor | float, **noise: Any) -> Tensor:
        """Return the next state. noise: the op's noise, seed, generator, stream and window, by name."""
        return lognormal_transition(x, mu, log_mean, log_std, **noise)


class TransportStep(nn.Module):
    """mu = clamp(anchor + assembly), x_next = log-normal transition of x around mu; see `f2d_kernels.transport_step`.

    clamp: bounds of mu, in the images' own units.
    """

    def __init__(self, clamp: tuple[float, float] = (-1.0, 1.0)):
        super().__init__()
        self.clamp = clamp

    def forward(
        self,
        x: Tensor,
        deltas: Tensor | Sequence[Tensor],
        gates: Tensor,
        maps: Tensor | None,
        base: Tensor | None,
        log_mean: Tensor | float,
        log_std: Tensor | float,
        anchor: Tensor | None = None,
        **noise: Any,
    ) -> tuple[Tensor, Tensor]:
        """Return (x_next, mu). noise: the op's noise, seed, generator, stream and window, by name."""
        return transport_step(x, deltas, gates, maps, base, log_mean, log_std, anchor=anchor, clamp=self.clamp, **noise)

    def extra_repr(self) -> str:
        return f"clamp={self.clamp}"


class GaussianTransition(nn.Module):
    """Σ_j coefficients[b,j] · terms[j] + std[b] · eps; see `f2d_kernels.gaussian_transition`."""

    def forward(
        self,
        terms: Sequence[Tensor],
        coefficients: Tensor | Sequence[Tensor | float],
        std: Tensor | float,
        **noise: Any,
    ) -> Tensor:
        """Return the next state. noise: the op's noise, seed, generator, stream and window, by name."""
        return gaussian_transition(terms, coefficients, std, **noise)


class ExpertHead(nn.Module):
    """base + Σ_k gates · maps · (weight[k] (channel_scale ⊙ features[:,k]) + bias[k]), the last layers of K experts.

    weight [K,C,F] and bias [K,C] start at zero, so that a new expert corrects nothing; see `f2d_kernels.expert_head`.
    """

    def __init__(self, experts: int, channels: int, features: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(experts, channels, features))
        self.bias = nn.Parameter(torch.zeros(experts, channels))

    def forward(
        self,
        features: Tensor | Sequence[Tensor],
        gates: Tensor,
        maps: Tensor | None = None,
        base: Tensor | None = None,
        channel_scale: Tensor | None = None,
    ) -> Tensor:
        return expert_head(features, self.weight, self.bias, channel_scale, gates, maps, base)


class GroupNormSiLU(nn.GroupNorm):
    """silu(group_norm(x) · (1 + scale) + shift) with the parameters (and state dict) of nn.GroupNorm; see
    `f2d_kernels.group_norm_silu`."""

    def forward(  # type: ignore[override]  # its argument is called input there
        self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None, return_mean: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        return group_norm_silu(x, self.num_groups, self.weight, self.bias, scale, shift, self.eps, return_mean)
