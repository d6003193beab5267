"""The part of a difference that is a mere change of colour: the best affine colour map to the ground truth."""

import numpy as np
import torch
from torch import Tensor

from f2d.metrics.fidelity import planes, psnr
from f2d.metrics.measure import About, check_pair


def affine_colour_oracle(image: Tensor, truth: Tensor) -> Tensor:
    """``clamp(A [r g b 1]ᵀ)`` with the 3x4 matrix A that has the least squared error to the ground truth.

    image, truth [3, H, W] in [0, 1] -> the same. It undoes light, contrast and casts of the whole image as well as
    any such map can, and nothing local: neither streaks and flakes nor haze that grows with distance.
    """
    x, y = (each.detach().cpu().double().flatten(1).numpy() for each in (image, truth))
    x = np.concatenate([x, np.ones_like(x[:1])])  # [4, HW]
    # NumPy's own sums, which no number of threads changes; lstsq, because a grey image leaves A undetermined
    products, targets = (np.array([[(a * b).sum() for b in other] for a in x]) for other in (x, y))
    matrix = np.linalg.lstsq(products, targets, rcond=None)[0]  # [4, 3]
    fitted = torch.from_numpy(np.einsum("ij,ic->cj", x, matrix))
    return fitted.clamp(0, 1).reshape(image.shape).to(image.dtype)


class AffinePsnr:
    """PSNR, RGB after 8 bits, of `affine_colour_oracle`; a `Measure`.

    Of a degraded picture it is what knowing the truth and one colour map would reach: what a restoration has beyond it
    is local. Of a restoration it leaves out errors of its colours as a whole.
    """

    about = About("psnr affine", "PSNR affine colour oracle", "higher", "dB", 2)
    needs_truth = True

    def __call__(self, restored: Tensor, truth: Tensor | None) -> float:
        """restored, truth: [3,H,W]. ValueError for different shapes."""
        truth = check_pair(self.about.key, restored, truth)
        return psnr(planes(affine_colour_oracle(restored.clamp(0, 1), truth)), planes(truth))
