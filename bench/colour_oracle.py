"""How much of a degradation is a mere change of colour: an upper bound that knows the truth."""

import torch
from torch import Tensor


def affine_colour_oracle(image: Tensor, truth: Tensor) -> Tensor:
    """``clamp(A [r g b 1]ᵀ)`` with the 3x4 matrix A that has the least squared error to the truth, one per image.

    image, truth [B, 3, H, W] in [0, 1] -> the same. It undoes light, contrast and casts of the whole image as well as
    any such map can, and nothing local: neither streaks and flakes nor haze that grows with distance.
    """
    pixels = image.double().flatten(2).transpose(1, 2)  # [B, HW, 3]
    pixels = torch.cat([pixels, torch.ones_like(pixels[..., :1])], dim=2)
    target = truth.double().flatten(2).transpose(1, 2)
    # gelsd, because a grey image leaves A undetermined
    matrix = torch.linalg.lstsq(pixels.mT @ pixels, pixels.mT @ target, driver="gelsd").solution
    return (pixels @ matrix).clamp(0, 1).transpose(1, 2).reshape(image.shape).to(image.dtype)
