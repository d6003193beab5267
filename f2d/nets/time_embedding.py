"""Sinusoidal embedding of the integer time step."""

import math

import torch
from torch import Tensor, nn


class TimeEmbedding(nn.Module):
    """``MLP([sin(t ω_j), cos(t ω_j)])``, ω_j = 10000^(-j / (half - 1)), j = 0..half-1, half = dim / 2.

    t [B] integer or float steps -> [B, dim]; the MLP is dim -> 4 dim -> dim with SiLU between.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.dim = dim
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.SiLU(), nn.Linear(4 * dim, dim))

    def forward(self, t: Tensor) -> Tensor:
        half = self.dim // 2
        # computed here, because casting the network to bf16 would round a buffer and with it the angles
        index = torch.arange(half, dtype=torch.float32, device=t.device)
        angles = t.float()[:, None] * torch.exp(index * (-math.log(10000.0) / (half - 1)))  # [B, half]
        return self.mlp(torch.cat([angles.sin(), angles.cos()], dim=1).to(self.mlp[0].weight.dtype))
