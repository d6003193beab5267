"""The small networks of the tests: every part of the real ones, in sizes that run in milliseconds."""

import torch

from f2d.nets import F2DNetConfig
from f2d.nets.resflow import ResFlowConfig, ResFlowNet


def small_config(**changes) -> F2DNetConfig:
    """A configuration with two of everything; `changes` replace fields."""
    sizes = {
        "stage_widths": (8, 16),
        "blocks_per_stage": (1, 1),
        "bottleneck_blocks": 1,
        "attention_heads": 2,
        "groups": 4,
        "time_dim": 16,
        "frequency_dim": 8,
        "expert_width": 8,
        "enhancer_width": 8,
        "enhancer_blocks": 1,
        "parser_widths": (8, 8),
        "parser_decoder_widths": (8, 8),
    }
    return F2DNetConfig(**{**sizes, **changes})


LIGHT = {
    "design": "light",
    "attention_heads": 0,
    "parser_decoder_widths": (),
    "bottleneck_blocks": 0,
    "enhancer_width": None,
    "patch": 2,
    "head": "affine",
}
# as the presets that ship: light layers, half resolution, gain and offset, no enhancer
TINY = small_config(**LIGHT)


def resflow_net(**changes) -> ResFlowNet:
    """A small ResFlowNet in eval mode whose every tensor counts."""
    sizes = {"channels": 8, "multipliers": (1, 2), "blocks": (1, 1), "groups": 4, "time_dim": 16, "adaptor_width": 4}
    generator = torch.Generator().manual_seed(0)
    net = ResFlowNet(ResFlowConfig(**{**sizes, **changes})).eval().requires_grad_(False)
    for parameter in net.parameters():
        scale = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1
        centre = float(parameter.ndim == 1 and bool((parameter == 1).all()))  # gains of normalisations
        parameter.copy_(centre + scale * torch.randn(parameter.shape, generator=generator))
    return net
