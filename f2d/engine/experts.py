"""The experts of the engine: their convolutions, then one kernel for the last layers of all of them."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from f2d.nets.f2dnet.experts import Expert, LightExpert
from f2d_kernels import expert_head

from .folding import fold_projection
from .layers import Conv, Norm, wide_copy
from .skipping import ExpertBound


class FastExpert(nn.Module):
    """An expert before its last 1x1: features [B, F, h, w] and their channel scales [B, F], ones for a `LightExpert`.

    layers are pairs of a convolution and a normalisation. The input of an `Expert` has an additional channel of ones
    (`with_ones`), see `folding.fold_projection`.
    """

    def __init__(self, expert: Expert | LightExpert, dtype: torch.dtype):
        super().__init__()
        if isinstance(expert, LightExpert):
            layers = [(Conv.of(expert.conv, dtype), Norm(expert.norm))]
        else:
            folded = Conv(fold_projection(expert), expert.conv1.bias, expert.conv1, dtype)
            layers = [(folded, Norm(expert.norm1)), (Conv.of(expert.conv2, dtype), Norm(expert.norm2))]
        self.layers = nn.ModuleList(map(nn.ModuleList, layers))
        light = isinstance(expert, LightExpert)
        self.squeeze_excitation = None if light else wide_copy(expert.squeeze_excitation.fc)

    def scales(self, mean: Tensor) -> Tensor:
        """Compute the scales [B, F] from the features' means [B, F]."""
        return torch.ones_like(mean) if self.squeeze_excitation is None else self.squeeze_excitation(mean)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        *inner, (conv, norm) = self.layers
        for first, first_norm in inner:
            x = first_norm(first(x))
        if self.squeeze_excitation is None:
            h = norm(conv(x))
            return h, norm.weight.new_ones(h.shape[:2])
        h, mean = norm(conv(x), return_mean=True)
        return h, self.scales(mean.to(norm.weight.dtype))


class FastExperts(nn.Module):
    """``base + Σ_k gates_k · maps_k · (W_k (s_k ⊙ F_k) + b_k)`` over the experts that run."""

    weight: Tensor  # [K, C, F]
    bias: Tensor  # [K, C]

    def __init__(self, experts: Any, dtype: torch.dtype):
        super().__init__()
        self.wide = torch.promote_types(dtype, torch.float32)
        self.light = isinstance(experts[0], LightExpert)
        self.experts = nn.ModuleList(FastExpert(expert, dtype) for expert in experts)
        self.bounds = [ExpertBound.of(expert) for expert in experts]
        weight = torch.stack([expert.project_out.weight.flatten(1) for expert in experts])
        self.register_buffer("weight", weight.detach().to(self.wide))
        self.register_buffer("bias", torch.stack([e.project_out.bias for e in experts]).detach().to(self.wide))

    def forward(self, x: Tensor, gates: Tensor, maps: Tensor | None, base: Tensor, run: Sequence[int]) -> Tensor:
        """Return [B, C, h, w] in float32 or wider; run holds the indices of the experts that are not skipped."""
        base = base.to(self.wide)
        if not run:
            return base
        x = self.prepared(x)
        features, scales = zip(*(self.experts[k](x) for k in run), strict=True)
        if len(run) < len(self.experts):
            index = torch.tensor(run, device=x.device)
            weight, bias, gates = self.weight[index], self.bias[index], gates[:, index]
            maps = None if maps is None else maps[:, index]
        else:
            weight, bias = self.weight, self.bias
        return expert_head(features, weight, bias, torch.stack(scales, dim=1), gates, maps, base)

    def prepared(self, x: Tensor) -> Tensor:
        """Prepare the experts' input from the backbone's features."""
        return x if self.light else with_ones(x)


def with_ones(x: Tensor) -> Tensor:
    """Append a channel of ones to x: [B, C + 1, h, w] in channels_last."""
    return F.pad(x, (0, 0, 0, 0, 0, 1), value=1.0).contiguous(memory_format=torch.channels_last)
