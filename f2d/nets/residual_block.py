"""Residual block modulated by the time embedding."""

import torch.nn.functional as F
from torch import Tensor, nn

from f2d_kernels import modules


class ResidualBlock(nn.Module):
    """``skip(x) + conv2(SiLU(GN(conv1(SiLU(GN(x)))) · (1 + scale) + shift))``, (scale, shift) = Linear(SiLU(time)).

    x [B, in_channels, h, w], time [B, time_dim] -> [B, out_channels, h, w]. Both convolutions are 3x3; `skip` is the
    identity, or a 1x1 convolution when the widths differ.
    """

    def __init__(self, in_channels: int, out_channels: int, time_dim: int, groups: int):
        super().__init__()
        self.norm1 = modules.GroupNormSiLU(groups, in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.time_linear = nn.Linear(time_dim, 2 * out_channels)
        self.norm2 = modules.GroupNormSiLU(groups, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.skip = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        scale, shift = self.time_linear(F.silu(time)).chunk(2, dim=1)  # [B, C] each
        h = self.conv1(self.norm1(x))
        return self.skip(x) + self.conv2(self.norm2(h, scale, shift))


def zeroed(layer: nn.Conv2d) -> nn.Conv2d:
    """Set weight and bias of `layer` to zero and return it: the branch that it ends changes nothing at first."""
    assert layer.bias is not None
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
