"""Gate: the weight of each expert for one image at one time."""

import torch
from torch import Tensor, nn

from .config import F2DNetConfig


class Gate(nn.Module):
    """``alpha = softmax(MLP[time, w / Σw, mean_hw m, frequency] - c + n)``, n = gate_noise · ε in training, else 0.

    time [B, time_dim], weights w [B, K], map_means [B, K], frequency [B, frequency_dim] -> alpha [B, K], rows summing
    to 1. c is the "complexity bias", an expert's relative cost. It is all ones for equal experts, which softmax
    cancels; it is kept so that checkpoints with unequal experts load. noise [B, K] is ε ~ N(0, 1), by default drawn
    from PyTorch's generator.
    """

    def __init__(self, config: F2DNetConfig):
        super().__init__()
        factors = len(config.factors)
        inputs = config.time_dim + 2 * factors + config.frequency_dim
        self.mlp = nn.Sequential(nn.Linear(inputs, inputs // 2), nn.SiLU(), nn.Linear(inputs // 2, factors))
        self.noise = config.gate_noise
        self.register_buffer("complexity_bias", torch.ones(factors))

    def forward(
        self, time: Tensor, weights: Tensor, map_means: Tensor, frequency: Tensor, noise: Tensor | None = None
    ) -> Tensor:
        shares = weights / weights.sum(dim=1, keepdim=True).clamp_min(1e-8)
        logits = self.mlp(torch.cat([time, shares, map_means, frequency], dim=1)) - self.complexity_bias
        if self.training and self.noise > 0:
            logits = logits + self.noise * (torch.randn_like(logits) if noise is None else noise)
        return logits.softmax(dim=1)
