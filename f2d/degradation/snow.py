"""Snow: fine flurry and flakes of several sizes, some out of focus, blended over the image."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from f2d.degradation.fields import BatchDraws, Draws, smooth_field
from f2d.degradation.particles import Array, around, canvas_for, convolve, draw, fall, line_kernel, sigmoid

# ranges that `degrade` accepts; the largest flakes are 7 times `size` in radius
RANGES = {
    "angle": (-math.pi, math.pi),
    "flurry": (0.0, 1.0),
    "density": (0.0, 100.0),
    "opacity": (0.0, 1.0),
    "blur": (0.0, 200.0),
    "size": (0.1, 50.0),
}


def draw_parameters(draws: Draws) -> dict[str, float]:
    """Draw the parameters of a snowfall.

    angle in radians from vertical; flurry: mean opacity of the finest flakes; density: scale of the number of flakes;
    opacity: of the flakes; blur: length of their motion in pixels; size: scale of their radius.
    """
    return {
        "angle": math.radians(draws.uniform(-50, 50)),
        "flurry": draws.uniform(0.005, 0.06),
        "density": 10 ** draws.uniform(-0.55, 0.28),
        "opacity": draws.uniform(0.5, 1.0),
        "blur": draws.uniform(1, 7),
        "size": draws.uniform(0.7, 1.5),
    }


def draw_varied(draws: Draws) -> dict[str, float]:
    """Draw a snowfall from wider ranges: smaller and larger, thinner and faster flakes."""
    return {
        "angle": math.radians(draws.uniform(-75, 75)),
        "flurry": draws.uniform(0.0, 0.06),
        "density": 10 ** draws.uniform(-1, 0.2),
        "opacity": draws.uniform(0.3, 1.0),
        "blur": draws.uniform(1, 12),
        "size": draws.uniform(0.6, 2.5),
    }


# (radius in pixels, flakes per pixel, share of the opacity, softness of the edge in pixels), from far to near; the last
# layer is out of focus
LAYERS = ((0.8, 6e-3, 0.8, 0.5), (1.6, 1.6e-3, 1.0, 0.6), (3.0, 2.5e-4, 0.9, 0.8), (7.0, 2.5e-5, 0.45, 1.0))


def snow_mask(height: int, width: int, parameters: Sequence[dict[str, float]], draws: BatchDraws) -> Tensor:
    """Build the snow mask S [B,1,H,W] in [0, 1], the covered share of a pixel, from the parameters of each sample."""
    falls = [_snowfall(height, width, p, stream) for p, stream in zip(parameters, draws.streams, strict=True)]
    drift = 0.75 + 0.5 * smooth_field(draws, height, width, octaves=2)
    return (torch.stack(falls) * drift).clamp(0, 1)


def _snowfall(height: int, width: int, parameters: dict[str, float], draws: Draws) -> Tensor:
    """Build the cover [1,H,W] in [0, 1] of the flurry and of all layers of flakes."""
    blur, opacity = parameters["blur"], parameters["opacity"]
    motion = line_kernel(blur, parameters["angle"], 0.7)
    flurry = convolve(draws.rand(1, *canvas_for(len(motion), height, width)).square().square() * 5, motion)
    clear = np.ones((height, width), np.float32)
    for radius, count, share, softness in LAYERS:
        radius *= parameters["size"]
        reach = math.ceil(radius + 2 * softness)
        canvas = canvas_for(2 * reach + len(motion), height, width)
        places, brightness = fall(draws, canvas, count * parameters["density"])
        if len(places):
            flake = _moving_disc(radius, softness, reach, motion, blur)
            cover = draw(places, opacity * share * (0.4 + 0.6 * brightness), flake, height, width)
            clear *= 1 - np.minimum(cover, 1)
    return 1 - (1 - (parameters["flurry"] * flurry).clamp(0, 1)) * torch.from_numpy(clear).to(flurry.device)


def add_snow(image: Tensor, mask: Tensor) -> Tensor:
    """x (1 - S) + S, not clipped."""
    return image * (1 - mask) + mask


def _moving_disc(radius: float, softness: float, reach: int, motion: Array, blur: float) -> Array:
    """Smear a soft disc along `motion`; a small flake is thinned less than in proportion to its path."""
    rows, columns = around(reach)
    disc = sigmoid((radius - np.sqrt(rows**2 + columns**2)) / softness)
    # draw the disc at each pixel of the motion kernel, placed in the middle of a canvas
    side = len(disc) + len(motion) - 1
    middle = np.arange(len(disc) - 1, side)
    places = (middle[:, None] * (side + len(disc) - 1) + middle).ravel()
    return draw(places, motion.ravel(), disc, side, side) * (1 + blur / (4 * radius))
