"""Size and arithmetic of a configuration, counted rather than estimated."""

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from .models import Config, Network, build


def parameter_count(config: Config) -> int:
    """Return the number of parameters, including the frozen Laplacian (as in the published 23,771,627)."""
    return sum(p.numel() for p in _without_memory(config).parameters())


def multiply_adds_per_pixel(config: Config, size: int = 256) -> float:
    """``multiply-adds of one network call / pixels``, for convolutions and matrix products on a size x size image.

    They are counted on the meta device, without any arithmetic. Per-image work (time and gate MLPs) is included and
    divided by the pixels; elementwise work and normalisations are not counted. Attention is counted over all pairs of
    its pixels, so with attention the number grows with the size. `size` must be a multiple of the stride.
    """
    net, image = _without_memory(config).eval(), torch.zeros(1, 3, size, size, device="meta")
    one_step: dict[str, Any] = {"steps": 1, "sampler": net.transport.samplers[0], "noise": image[None]}
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        x, predict = net.begin(image)
        net.transport.restore(predict, x, **one_step)
    return counter.get_total_flops() / 2 / size**2


def _without_memory(config: Config) -> Network:
    with torch.device("meta"):
        return build(config)
