"""Real photographs for the tests of measures."""

import numpy as np
import torch
from torch import Tensor

from f2d.demo import sample_photograph
from f2d.images import image_to_tensor


def photograph(name: str, size: tuple[int, int] | None = None) -> Tensor:
    """[3, H, W] in [0, 1] of one of the demo's photographs; the middle of it where a size is given."""
    image = image_to_tensor(sample_photograph(name))
    if size is None:
        return image
    top, left = ((whole - part) // 2 for whole, part in zip(image.shape[1:], size))
    return image[:, top : top + size[0], left : left + size[1]].contiguous()


def noisy(image: Tensor, sigma: float, seed: int = 0) -> Tensor:
    """With Gaussian noise of `sigma` levels out of 255, neither rounded nor clamped."""
    noise = np.random.default_rng(seed).standard_normal(tuple(image.shape))
    return (image.double() + torch.from_numpy(noise) * sigma / 255).float()
