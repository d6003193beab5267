"""Size and arithmetic of a configuration, counted rather than estimated."""

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from .models import Config, Network, build


def parameter_count(config: Config) -> int:
    """Number of parameters, the frozen Laplacian included (as in the published 23,771,627)."""
    return sum(p.numel() for p in _without_memory(config).parameters())


def multiply_adds_per_pixel(config: Config, size: int = 256) -> float:
    """``multiply-adds of one network call / pixels``: convolutions and matrix products of a size x size image.

    Counted on the meta device, so it costs no arithmetic. Per-image work (time and gate MLPs) is included and divided
    by the pixels too; elementwise work and normalisations are not counted, attention is, of all pairs of its pixels:
    with it the number grows with the size. `size` is a multiple of the stride.
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
