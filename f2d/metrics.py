"""Image quality measures on tensors."""

import torch
from torch import Tensor


def psnr(image: Tensor, reference: Tensor) -> Tensor:
    """10 log10(1 / mean((round8(image) - reference)²)) in dB per sample; RGB in [0, 1], after rounding to 8 bits.

    image, reference: [B,3,H,W]; values outside [0, 1] are clamped. Returns [B]; equal pictures give inf.
    """
    rounded = [(t.clamp(0, 1) * 255).round() / 255 for t in (image.double(), reference.double())]
    error = (rounded[0] - rounded[1]).square().mean(dim=(1, 2, 3))
    return -10 * torch.log10(error)
