"""Fidelity to the ground truth, with colour, bits, window and border explicit, which papers often leave unstated.

Everything is computed in NumPy float64 by elementwise operations and single-threaded sums, so results are bit-exact on
any number of cores.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch import Tensor

from f2d.metrics.batch import LUMA, to_levels
from f2d.metrics.measure import About, check_pair


class Window(NamedTuple):
    """weights: [n] along one axis, with sum 1. correction: factor of variances, N / (N - 1) for a sample of N."""

    weights: np.ndarray
    correction: float


def _gaussian(size: int, sigma: float) -> np.ndarray:
    weights = np.exp(-((np.arange(size) - size // 2) ** 2) / (2 * sigma**2))
    return weights / weights.sum()


COLOURS = {"rgb": "RGB", "y": "Y", "y-studio": "Y studio"}
BITS = ("8bit", "float")
WINDOWS = {
    "7x7": Window(np.full(7, 1 / 7), 49 / 48),  # scikit-image's default
    "gaussian11": Window(_gaussian(11, 1.5), 1.0),  # Wang et al. (2004), MATLAB
    "gaussian11-sample": Window(_gaussian(11, 1.5), 121 / 120),  # scikit-image's gaussian_weights=True
}
# offset and weights of R, G, B for values in [0, 1]; y-studio is BT.601 with 16 for black and 235 for white
_LUMAS = {"y": (0.0, LUMA), "y-studio": (16 / 255, (65.481 / 255, 128.553 / 255, 24.966 / 255))}
_ABOUT = {"psnr": ("higher", "dB", 2), "ssim": ("higher", "", 4), "mae": ("lower", "", 4)}  # better, unit, digits


@dataclass(frozen=True)
class Fidelity:
    """PSNR, SSIM or mean absolute error under one convention; a `Measure`.

    measure  "psnr": 10 log10(1 / mean (x - y)²), infinite for equal images
             "ssim": mean of (2 μxμy + C₁)(2 σxy + C₂) / ((μx² + μy² + C₁)(σx² + σy² + C₂)), C₁ = 0.01², C₂ = 0.03²,
                     per channel over the pixels whose window lies inside, then over channels. Wang et al. (2004)
             "mae":  mean |x - y|
    colour   "rgb"; "y": 0.299 R + 0.587 G + 0.114 B, full range; "y-studio": (16 + 65.481 R + 128.553 G + 24.966 B) /
             255, as MATLAB's rgb2ycbcr. The peak of both is 1 (255 levels), although "y-studio" spans 219: its PSNR is
             about 20 log10(255 / 219) = 1.3 dB above that of "y".
    bits     "8bit": both images are clamped and rounded to 8 bits; the luma of these is not rounded again.
             "float": both are only clamped to [0, 1].
    window   for SSIM only. "7x7": uniform, with sample variances, N / (N - 1) = 49/48; "gaussian11": sigma 1.5, with
             weighted variances; "gaussian11-sample": the same, with variances multiplied by 121/120.
    border   number of pixels that are cropped on each side first.

    Raises ValueError for other values.
    """

    measure: str
    colour: str = "rgb"
    bits: str = "8bit"
    window: str | None = None
    border: int = 0

    needs_ground_truth = True

    def __post_init__(self) -> None:
        windows = (*WINDOWS,) if self.measure == "ssim" else (None,)
        for name, allowed in (("measure", _ABOUT), ("colour", COLOURS), ("bits", BITS), ("window", windows)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"fidelity: {name} must be one of {[*allowed]}, got {getattr(self, name)!r}")
        if self.border < 0:
            raise ValueError(f"fidelity: border must be 0 or more pixels, got {self.border}")

    @property
    def about(self) -> About:
        """The description, whose key and title spell the convention out: "ssim rgb 8bit gaussian11 border4"."""
        details = [self.bits, *([self.window] if self.window else []), *([f"border{self.border}"] * (self.border > 0))]
        better, unit, digits = _ABOUT[self.measure]
        key = " ".join([self.measure, self.colour, *details])
        title = " ".join([self.measure.upper(), COLOURS[self.colour], *details])
        return About(key, title, better, unit, digits)

    def __call__(self, restored: Tensor, ground_truth: Tensor | None) -> float:
        """restored, ground_truth: [3,H,W] in [0, 1]. NaN if cropping leaves nothing, or less than one window.

        Raises ValueError for other or different shapes, or if there is no ground truth.
        """
        ground_truth = check_pair(self.about.key, restored, ground_truth)
        left = min(restored.shape[1:]) - 2 * self.border
        if left < (len(WINDOWS[self.window].weights) if self.window else 1):
            return float("nan")
        x, y = (planes(image, self.colour, self.bits, self.border) for image in (restored, ground_truth))
        if self.window:
            return ssim(x, y, WINDOWS[self.window])
        return psnr(x, y) if self.measure == "psnr" else float(np.abs(x - y).mean())


def planes(image: Tensor, colour: str = "rgb", bits: str = "8bit", border: int = 0) -> np.ndarray:
    """Return the values to compare, float64: [3,H,W] for "rgb", [1,H,W] for a luma. Arguments as in `Fidelity`."""
    height, width = image.shape[1:]
    inner = image[:, border : height - border, border : width - border]
    # rounded in float32, as when a file is written, so that an image and its file have the same measures
    inner = to_levels(inner.detach().float()) if bits == "8bit" else inner.detach().clamp(0, 1)
    x = inner.cpu().numpy().astype(np.float64) / (255 if bits == "8bit" else 1)
    if colour == "rgb":
        return x
    offset, (red, green, blue) = _LUMAS[colour]
    return (offset + red * x[0] + green * x[1] + blue * x[2])[None]


def psnr(x: np.ndarray, y: np.ndarray) -> float:
    """10 log10(1 / mean (x - y)²) in dB, infinite if x equals y; values in [0, 1]."""
    error = np.square(x - y).mean()
    return float("inf") if error == 0 else float(10 * np.log10(1 / error))


def ssim(x: np.ndarray, y: np.ndarray, window: Window) -> float:
    """Mean structural similarity of [C,H,W] in [0, 1], H and W at least the window size; formula in `Fidelity`."""
    return float(np.mean([_ssim_map(a, b, window).mean() for a, b in zip(x, y)]))


def _ssim_map(x: np.ndarray, y: np.ndarray, window: Window) -> np.ndarray:
    # one filter for x² + y²: SSIM needs only the sum of the two variances
    weights, correction = window
    mean_x, mean_y, squares, products = (_filtered(z, weights) for z in (x, y, x * x + y * y, x * y))
    mean_squares, mean_products = mean_x * mean_x + mean_y * mean_y, mean_x * mean_y
    variances, covariance = correction * (squares - mean_squares), correction * (products - mean_products)
    c1, c2 = 0.01**2, 0.03**2
    return (2 * mean_products + c1) * (2 * covariance + c2) / ((mean_squares + c1) * (variances + c2))


def _filtered(z: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Filter along both axes and keep the pixels whose window lies inside. By sums of slices, SSIM of 720x480 RGB takes
    about 50 ms (7x7) or 80 ms (Gaussian 11) on one core; scikit-image 131 and 141 ms."""
    for _ in range(2):
        z = _filtered_rows(z, weights).T
    return z


def _filtered_rows(z: np.ndarray, weights: np.ndarray) -> np.ndarray:
    size = len(z) - len(weights) + 1
    total = weights[0] * z[:size]
    for i, weight in enumerate(weights[1:], start=1):
        total += weight * z[i : i + size]
    return total
