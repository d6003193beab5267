"""The affine colour map that fits the ground truth best, which separates errors of the overall colour from others."""

import numpy as np
import torch
from torch import Tensor

from f2d.metrics.fidelity import planes, psnr
from f2d.metrics.measure import About, FunctionMeasure


def affine_colour_oracle(image: Tensor, ground_truth: Tensor) -> Tensor:
    """``clamp(A [r g b 1]ᵀ)`` with the 3x4 matrix A that has the least squared error to the ground truth.

    image, ground_truth and the result are [3, H, W] in [0, 1]. The map corrects the light, contrast and colour cast of
    the whole image as well as any affine map can. It corrects nothing local: no streaks or flakes, and no haze that
    grows with distance.
    """
    x, y = (each.detach().cpu().double().flatten(1).numpy() for each in (image, ground_truth))
    x = np.concatenate([x, np.ones_like(x[:1])])  # [4, HW]
    # NumPy's sums do not depend on the number of threads; lstsq, because a grey image leaves A undetermined
    products, targets = (np.array([[(a * b).sum() for b in other] for a in x]) for other in (x, y))
    matrix = np.linalg.lstsq(products, targets, rcond=None)[0]  # [4, 3]
    fitted = torch.from_numpy(np.einsum("ij,ic->cj", x, matrix))
    return fitted.clamp(0, 1).reshape(image.shape).to(image.dtype)


def affine_psnr(restored: Tensor, ground_truth: Tensor) -> float:
    """PSNR (RGB after 8 bits) of `affine_colour_oracle`.

    For a degraded input, it is an oracle, since the colour map is fitted to the ground truth: a restoration with a
    higher PSNR has done more than an affine colour correction of the whole image can. For a restored output, it
    ignores errors of the overall colour.
    """
    return psnr(planes(affine_colour_oracle(restored.clamp(0, 1), ground_truth)), planes(ground_truth))


AFFINE_PSNR = FunctionMeasure(About("psnr affine", "PSNR affine colour oracle", "higher", "dB", 2), affine_psnr)
