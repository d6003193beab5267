"""Degradations that are not combined with others: Gaussian noise and JPEG."""

import io

import torch
from PIL import Image
from torch import Tensor

from f2d.data.categories import noise_level
from f2d.degradation.fields import Draws
from f2d.images import to_picture, to_tensor

STRONGEST = 50  # largest sigma that is drawn


def add_noise(clean: Tensor, category: str, seed: int) -> Tensor:
    """x = clip(J + sigma / 255 · N(0, 1)), clean [3,H,W] in [0, 1]; sigma from the category, or ~ U(0, 50) for "noise".

    The noise is drawn on the CPU from the seed alone, so that every device adds the same noise.
    """
    draws = Draws(seed, "noise", clean.device)
    level = noise_level(category)
    sigma = draws.uniform(0, STRONGEST) if level is None else level
    return (clean + sigma / 255 * draws.randn(*clean.shape)).clamp(0, 1)


def compress(clean: Tensor, quality: int) -> Tensor:
    """Round [3,H,W] in [0, 1] to 8 bits, write it as JPEG with Pillow's quality (1 to 100), and read it back."""
    file = io.BytesIO()
    to_picture(clean).save(file, "JPEG", quality=quality)
    with torch.no_grad():
        return to_tensor(Image.open(file)).to(clean.device, clean.dtype)
