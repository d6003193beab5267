"""Snow: fine flurry and flakes of several sizes, some out of focus, blended over the picture."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from f2d.degradation.fields import BatchDraws, Draws, canvas_for, convolve, convolve_sparse, line_kernel, smooth_field

# what `degrade` takes; the largest flakes are 7 times `size` in radius
RANGES = {
    "angle": (-math.pi, math.pi),
    "flurry": (0.0, 1.0),
    "density": (0.0, 100.0),
    "opacity": (0.0, 1.0),
    "blur": (0.0, 200.0),
    "size": (0.1, 50.0),
}


def draw_parameters(draws: Draws) -> dict[str, float]:
    """What a snowfall looks like.

    angle in radians from vertical; flurry: mean opacity of the finest flakes; density: scale of the number of flakes;
    opacity of the flakes; blur: length of their motion in pixels; size: scale of their radius.
    """
    return {
        "angle": math.radians(draws.uniform(-50, 50)),
        "flurry": draws.uniform(0.005, 0.06),
        "density": 10 ** draws.uniform(-0.55, 0.28),
        "opacity": draws.uniform(0.5, 1.0),
        "blur": draws.uniform(1, 7),
        "size": draws.uniform(0.7, 1.5),
    }


# radius in pixels, flakes per pixel, share of the opacity, softness of the edge in pixels; far to near, the last one
# out of focus
LAYERS = ((0.8, 6e-3, 0.8, 0.5), (1.6, 1.6e-3, 1.0, 0.6), (3.0, 2.5e-4, 0.9, 0.8), (7.0, 2.5e-5, 0.45, 1.0))


def snow_mask(height: int, width: int, parameters: Sequence[dict[str, float]], draws: BatchDraws) -> Tensor:
    """S [B,1,H,W] in [0, 1], with parameters for each sample: how much of each pixel snow covers, drifting."""
    falls = [_snowfall(height, width, p, stream) for p, stream in zip(parameters, draws, strict=True)]
    drift = 0.75 + 0.5 * smooth_field(draws, height, width, octaves=2)
    return (torch.cat(falls) * drift).clamp(0, 1)


def _snowfall(height: int, width: int, parameters: dict[str, float], draws: Draws) -> Tensor:
    """[1,1,H,W] in [0, 1]: the cover of the flurry and of all layers of flakes."""
    device = draws.device
    motion = line_kernel(parameters["blur"], parameters["angle"], 0.7, device)
    flurry = convolve(draws.rand(*canvas_for(motion, height, width)).square().square() * 5, motion)
    clear = 1 - (parameters["flurry"] * flurry).clamp(0, 1)
    for radius, count, share, softness in LAYERS:
        flake = _moving_disc(radius * parameters["size"], softness, motion, parameters["blur"])
        canvas = canvas_for(flake, height, width)
        flakes = (draws.rand(*canvas) < count * parameters["density"]) * (0.4 + 0.6 * draws.rand(*canvas))
        clear = clear * (1 - (parameters["opacity"] * share * convolve_sparse(flakes, flake)).clamp(0, 1))
    return 1 - clear


def add_snow(image: Tensor, mask: Tensor) -> Tensor:
    """x (1 - S) + S, not clipped."""
    return image * (1 - mask) + mask


def _moving_disc(radius: float, softness: float, motion: Tensor, blur: float) -> Tensor:
    """A soft disc smeared along `motion`; smearing a small flake thins it less than its path would."""
    reach = math.ceil(radius + 2 * softness)
    steps = torch.arange(-reach, reach + 1, device=motion.device, dtype=torch.float32)
    disc = ((radius - torch.sqrt(steps[:, None] ** 2 + steps[None] ** 2)) / softness).sigmoid()
    margin = motion.shape[0] - 1
    smeared = convolve(F.pad(disc, (margin, margin, margin, margin))[None, None], motion)[0, 0]
    return smeared * (1 + blur / (4 * radius))
