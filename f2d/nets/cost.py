"""Size and arithmetic of a configuration, counted rather than estimated."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from .config import F2DNetConfig
from .f2dnet import F2DNet


def parameter_count(config: F2DNetConfig) -> int:
    """Number of parameters, the frozen Laplacian included (as in the published 23,771,627)."""
    with torch.device("meta"):
        return sum(p.numel() for p in F2DNet(config).parameters())


def multiply_adds_per_pixel(config: F2DNetConfig, size: int = 256) -> float:
    """``multiply-adds of one network call / pixels``: convolutions and matrix products of a size x size image.

    Counted on the meta device, so it costs no arithmetic. Per-image work (time and gate MLPs) is included and divided
    by the pixels too; elementwise work and normalisations are not counted. `size` is a multiple of the stride.
    """
    with torch.device("meta"):
        net, image = F2DNet(config).eval(), torch.zeros(1, 3, size, size)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            net(image, image, torch.zeros(1))
    return counter.get_total_flops() / 2 / size**2
