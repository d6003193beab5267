"""Brightness pre-enhancer: brightens dark images before the rest of the network."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from f2d.nets.residual_block import zeroed

from .config import F2DNetConfig

LUMA = (0.299, 0.587, 0.114)  # BT.601, with which the weights were trained
SHARPNESS = 10.0


class Enhancer(nn.Module):
    """``clamp(x + g · tanh(f(x)), -1, 1)``, g = sigmoid(10 (threshold - mean luma)) · sigmoid(MLP(mean_hw x)).

    x [B, 3, H, W] in [-1, 1] -> (enhanced [B, 3, H, W], g [B, 1, 1, 1] in (0, 1)). f: 3x3, residual blocks
    (3x3, LeakyReLU 0.2, 3x3), 3x3, LeakyReLU, 3x3; its last convolution is zero-initialised, so a new enhancer is the
    identity. With patch p > 1, f runs on the pixel-unshuffled image.
    """

    def __init__(self, config: F2DNetConfig):
        super().__init__()
        width, channels, self.patch = config.enhancer_width, config.image_channels, config.patch
        self.threshold = config.brightness_threshold
        self.conv_in = nn.Conv2d(channels, width, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, width, 3, padding=1), nn.LeakyReLU(0.2), nn.Conv2d(width, width, 3, padding=1)
            )
            for _ in range(config.enhancer_blocks)
        )
        last = zeroed(nn.Conv2d(width, channels, 3, padding=1))
        self.tail = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.LeakyReLU(0.2), last)
        self.gate_mlp = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        gate = self.gate_of(x.mean(dim=(2, 3)))
        h = self.conv_in(F.pixel_unshuffle(x, self.patch))
        for block in self.blocks:
            h = h + block(h)
        delta = F.pixel_shuffle(self.tail(h), self.patch).tanh()
        return (x + gate * delta).clamp(-1, 1), gate

    def gate_of(self, mean: Tensor) -> Tensor:
        """Compute the gate [B, 1, 1, 1] from the image's mean [B, 3]."""
        luma: Any = sum(weight * mean[:, c : c + 1] for c, weight in enumerate(LUMA))  # [B, 1], in [-1, 1]
        return (torch.sigmoid(SHARPNESS * (self.threshold - (luma + 1) / 2)) * self.gate_mlp(mean))[:, :, None, None]
