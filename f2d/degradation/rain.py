"""Rain: layers of motion-blurred drops, added to the image."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from f2d.degradation.fields import BatchDraws, Draws, smooth_field
from f2d.degradation.particles import canvas_for, convolve, draw, fall, line_kernel

# ranges that `degrade` accepts; a streak of 500 pixels needs a kernel of 800²
RANGES = {
    "angle": (-math.pi, math.pi),
    "veil": (0.0, 1.0),
    "contrast": (0.0, 10.0),
    "streaks": (0.0, 1.0),
    "density": (0.0, 1.0),
    "length": (0.0, 500.0),
    "width": (0.1, 20.0),
}


def draw_parameters(draws: Draws) -> dict[str, float]:
    """Draw the parameters of a shower.

    angle in radians from vertical; veil: mean of the distant drops; contrast: their standard deviation
    relative to the veil; streaks: brightness of the near drops; density: near drops per pixel; length and width: of a
    streak in pixels, the width from its middle to 1/e of its brightness.
    """
    return {
        "angle": math.radians(draws.uniform(-35, 35)),
        "veil": draws.uniform(0.03, 0.09),
        "contrast": draws.uniform(0.25, 0.7),
        "streaks": draws.uniform(0.05, 0.45) if draws.choice(0.75) else 0.0,
        "density": 10 ** draws.uniform(-3.2, -2.2),
        "length": draws.uniform(8, 36),
        "width": 0.6,
    }


def draw_varied(draws: Draws) -> dict[str, float]:
    """Draw a shower from wider ranges: a few broad streaks to many fine ones, with or without a veil, or sheets.

    Published sets differ in just this: Rain100L (Yang et al., CVPR 2017) has long separate streaks and no veil,
    Outdoor-Rain (Li et al., CVPR 2019) long thin streaks that overlap everywhere. The near streaks cover 0.3 to 25 % of
    the pixels, log-uniformly, so that a network sees the few as often as the many. In 30 % of the showers the distant
    drops are drawn as such sheets: streaks of 40 to 140 pixels with up to the veil's own brightness as their contrast.
    """
    sheets = draws.choice(0.3)
    length = draws.uniform(40, 140) if sheets else draws.uniform(8, 60)
    width = draws.uniform(0.5, 1.2) if sheets else draws.uniform(0.5, 2.2)
    coverage = 10 ** draws.uniform(-2.5, -0.6)
    shower = {
        "angle": math.radians(draws.uniform(-45, 45)),
        "veil": draws.uniform(0.0, 0.08) if draws.choice(0.5) else 0.0,
        "streaks": draws.uniform(0.1, 0.8),
        "density": coverage / (4 * length * width),  # two layers of streaks, each 2 · width across
        "length": length,
        "width": width,
    }
    if sheets:
        shower |= {
            "veil": draws.uniform(0.05, 0.2),
            "contrast": draws.uniform(0.4, 1.0),
            "streaks": draws.uniform(0.0, 0.4),
        }
    return shower


def rain_mask(height: int, width: int, parameters: Sequence[dict[str, float]], draws: BatchDraws) -> Tensor:
    """Build the rain mask R [B,1,H,W] in [0, 1] from the parameters of each sample: showers times smooth gusts."""
    showers = [_shower(height, width, p, stream) for p, stream in zip(parameters, draws.streams, strict=True)]
    gusts = 0.7 + 0.6 * smooth_field(draws, height, width, octaves=2)
    return (torch.stack(showers) * gusts).clamp(0, 1)


def _shower(height: int, width: int, parameters: dict[str, float], draws: Draws) -> Tensor:
    """Build a shower [1,H,W]: a veil of distant drops that blend into each other, and separate near streaks."""
    angle, length, thickness = (parameters[name] for name in ("angle", "length", "width"))
    kernel = line_kernel(length, angle, thickness)
    distant = _standardised(convolve(draws.rand(1, *canvas_for(len(kernel), height, width)), kernel))
    mask = parameters["veil"] * (1 + parameters["contrast"] * distant)
    for scale in (1.0, 1.6):  # two distances of near drops; nearer ones are longer, thicker and fewer
        if parameters["streaks"] == 0.0:
            break
        kernel = line_kernel(scale * length, angle + draws.uniform(-0.06, 0.06), thickness * scale)
        canvas = canvas_for(len(kernel), height, width)
        places, brightness = fall(draws, canvas, parameters["density"] / scale**2)
        near = parameters["streaks"] * draw(places, brightness, kernel / kernel.max(), height, width)
        mask = mask + torch.from_numpy(near).to(mask.device)
    return mask


def add_rain(image: Tensor, mask: Tensor) -> Tensor:
    """x + R, not clipped, because haze or the final step clips."""
    return image + mask


def _standardised(field: Tensor) -> Tensor:
    # row by row, because the rounding of a sum over all pixels depends on the number of threads
    field = field - field.mean(-1, keepdim=True).mean(-2, keepdim=True)
    deviation = field.square().mean(-1, keepdim=True).mean(-2, keepdim=True).sqrt()
    return field / deviation.clamp(min=torch.finfo(field.dtype).tiny)
