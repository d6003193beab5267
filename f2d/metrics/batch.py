"""Measures of whole batches on any device, for training and benchmarks; use `f2d.metrics.fidelity` for tables."""

import torch
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)  # BT.601


def eight_bits(image: Tensor) -> Tensor:
    """round(255 clamp(image, 0, 1)) / 255: the image as an 8-bit file stores it. Any shape and floating dtype."""
    return to_levels(image) / 255


def to_levels(image: Tensor) -> Tensor:
    """round(255 clamp(image, 0, 1)): whole numbers from 0 to 255, in the dtype of the image."""
    return (image.clamp(0, 1) * 255).round()


def psnr(image: Tensor, reference: Tensor) -> Tensor:
    """10 log10(1 / mean((round8(image) - round8(reference))²)) in dB per sample; round8 rounds to 8 bits.

    image and reference are [B,C,H,W] in [0, 1]; values outside are clamped. Returns [B]; equal images give inf.
    """
    rounded = [eight_bits(t.double()) for t in (image, reference)]
    error = (rounded[0] - rounded[1]).square().mean(dim=(1, 2, 3))
    return -10 * torch.log10(error)


def ssim(image: Tensor, reference: Tensor) -> Tensor:
    """Compute the structural similarity of each sample with an 11x11 Gaussian window, sigma 1.5.

    image, reference: [B,C,H,W] in [0, 1], H and W at least 6. Returns [B], means over channels and all pixels. Wang et
    al. (2004), computed by torchmetrics, which mirrors the image at its borders; MATLAB and scikit-image exclude 5
    pixels at each border, as `f2d.metrics.fidelity` does. Raises ModuleNotFoundError if torchmetrics is not installed.
    """
    try:
        from torchmetrics.functional.image import structural_similarity_index_measure
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            'ssim is computed by torchmetrics, which is not installed: pip install "f2d[eval]"', name="torchmetrics"
        ) from None

    with torch.autocast(image.device.type, enabled=False):  # its variances are differences: bf16 is off by 0.02
        values = structural_similarity_index_measure(image.float(), reference.float(), data_range=1.0, reduction="none")
    assert isinstance(values, Tensor)  # a pair only if its map is requested too
    return values


def luma(image: Tensor) -> Tensor:
    """0.299 R + 0.587 G + 0.114 B, [B,3,H,W] -> [B,1,H,W]; full range, as in F²D-Net's evaluation."""
    return (image * image.new_tensor(LUMA).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)


def sharpness(image: Tensor, reference: Tensor) -> Tensor:
    """mean |∇Y(image)|² / mean |∇Y(reference)|² per sample: below 1 if detail was averaged away, above 1 for noise.

    Forward differences of the luma; image, reference: [B,3,H,W] in [0, 1], H and W at least 2. Returns [B]; NaN where
    the reference is constant.
    """

    def energy(x: Tensor) -> Tensor:
        y = luma(x.double())
        across, down = (y.diff(dim=axis).square().mean(dim=(1, 2, 3)) for axis in (2, 3))
        return across + down

    of_reference = energy(reference)
    return energy(image) / of_reference.where(of_reference > 0, torch.nan)
