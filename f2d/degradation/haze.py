"""Haze: transmission from depth and a veil, and airlight of a colour."""

from collections.abc import Sequence

import torch
from torch import Tensor

from f2d.degradation.fields import BatchDraws, Draws, box, column, grey, guided_filter, power, smooth_field, stretch

# ranges that `degrade` accepts
RANGES = {
    "beta": (0.0, 10.0),
    "airlight": (0.0, 1.0),
    "red": (-1.0, 1.0),
    "blue": (-1.0, 1.0),
    "veil": (0.0, 10.0),
}


def draw_parameters(draws: Draws) -> dict[str, float]:
    """beta ~ U(1, 2), airlight A ~ U(0.6, 0.9), the published ranges; grey: red = blue = 0; no veil."""
    return {"beta": draws.uniform(1, 2), "airlight": draws.uniform(0.6, 0.9), "red": 0.0, "blue": 0.0, "veil": 0.0}


def draw_varied(draws: Draws, raining: bool = False) -> dict[str, float]:
    """beta ~ U(0.3, 3.5); A ~ U(0.7, 1), or U(0.3, 1) in a quarter of the scenes, but U(0.3, 0.85) when raining;
    veil = max(0, U(-1, 1)); red ~ U(-0.12, 0.12), blue = -red + U(-0.05, 0.05): wider ranges than the published ones.

    The indoor images of RESIDE (Li et al., TIP 2019) have A ~ U(0.7, 1) and transmissions down to a few hundredths. A
    darker airlight is that of dusk and of rain clouds (0.34 to 0.79 in four images of Outdoor-Rain), and real airlight
    has a colour, from warm dust to blue distance. A veil is the optical depth in front of the nearest object. The
    published formula has none, so something in every picture is almost clear; indoors, and across a valley, nothing is.
    """
    warmth = draws.uniform(-0.12, 0.12)
    darkest = 0.7 if draws.choice(0.75) else 0.3
    return {
        "beta": draws.uniform(0.3, 3.5),
        "airlight": draws.uniform(0.3, 0.85) if raining else draws.uniform(darkest, 1.0),
        "red": warmth,
        "blue": -warmth + draws.uniform(-0.05, 0.05),
        "veil": max(0.0, draws.uniform(-1.0, 1.0)),
    }


def depth_map(clean: Tensor, draws: BatchDraws) -> Tensor:
    """Build a depth map [B,1,H,W] in [0, 1], near = large: ground up to a horizon, and objects along image edges."""
    height, width = clean.shape[-2:]
    down = torch.linspace(0, 1, height, dtype=torch.float32, device=clean.device).view(1, 1, -1, 1)
    across = torch.linspace(-0.5, 0.5, width, dtype=torch.float32, device=clean.device).view(1, 1, 1, -1)
    horizon = draws.uniform(-0.2, 0.6)
    ground = power(((down - horizon) / (1 - horizon)).clamp(min=0), draws.uniform(0.7, 2.0))
    plane = ground + draws.uniform(-0.4, 0.4) * across
    depth = plane + draws.uniform(0.3, 1.0) * smooth_field(draws, height, width)
    # dark regions are more often near objects than sky; the guided filter puts depth edges on image edges
    luminance = grey(clean)
    depth = depth - draws.uniform(0.0, 0.5) * luminance
    size = max(3, min(height, width) // 8)
    depth = guided_filter(luminance, depth, size, 1e-3)
    nearest, farthest = draws.uniform(0.8, 1.0), draws.uniform(0.25, 0.55)
    return farthest + (nearest - farthest) * stretch(depth)


def add_haze(image: Tensor, depth: Tensor, parameters: Sequence[dict[str, float]]) -> tuple[Tensor, Tensor]:
    """x = clip(x t + A (1 + c) (1 - t)), t = exp(-beta · min(1 - box22(D), 0.7) - veil), c = (red, 0, blue).

    image: [B,3,H,W], not clipped before. depth D: [B,1,H,W], near = large. parameters: one dict per sample. Returns x
    and the map 1 - t, [B,1,H,W].
    """
    distance = (1 - box(depth, 22)).clamp(max=0.7)
    beta, airlight, red, blue, veil = (column([p[name] for p in parameters], image.device) for name in RANGES)
    transmission = torch.exp(-beta * distance - veil)
    colour = (airlight * (1 + torch.cat([red, torch.zeros_like(red), blue], dim=1))).clamp(max=1)
    return (image * transmission + colour * (1 - transmission)).clamp(0, 1), 1 - transmission
