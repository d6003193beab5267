"""NIQE a second time: NumPy, SciPy and Pillow in float64, from the paper's equations."""

from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import loadmat
from scipy.ndimage import correlate1d
from scipy.special import gamma

SHAPES = np.arange(0.2, 10.001, 0.001)  # that the authors try; a root finder instead moves NIQE by up to 0.01
RATIOS = gamma(2 / SHAPES) ** 2 / (gamma(1 / SHAPES) * gamma(3 / SHAPES))


def niqe(levels: np.ndarray, parameters: Path) -> float:
    """levels: [H,W,3] uint8. parameters: `frames_modelparameters.mat` as published. Mittal et al. (2013), eq. 1-10."""
    grey = np.rint(levels @ np.array([0.299, 0.587, 0.114]))
    grey = grey[: len(grey) // 96 * 96, : grey.shape[1] // 96 * 96]
    picture = Image.fromarray(grey.astype(np.float32))
    half = np.asarray(picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.BICUBIC), np.float64)
    features = np.hstack([_of_patches(grey, 96), _of_patches(half, 48)])
    published = loadmat(parameters)
    mean, covariance = (published[name] for name in ("mu_prisparam", "cov_prisparam"))
    distance = mean.ravel() - features.mean(axis=0)
    pooled = (covariance + np.cov(features, rowvar=False)) / 2
    return float(np.sqrt(distance @ np.linalg.pinv(pooled) @ distance))


def _of_patches(grey: np.ndarray, size: int) -> np.ndarray:
    kernel = np.exp(-0.5 * (np.arange(-3, 4) * 6 / 7) ** 2)
    kernel /= kernel.sum()

    def blurred(x):
        return correlate1d(correlate1d(x, kernel, axis=0, mode="nearest"), kernel, axis=1, mode="nearest")

    mean = blurred(grey)
    normalised = (grey - mean) / (np.sqrt(np.abs(blurred(grey**2) - mean**2)) + 1)
    rows, columns = (range(0, length, size) for length in grey.shape)
    return np.array([_features(normalised[r : r + size, c : c + size]) for r in rows for c in columns])


def _features(patch: np.ndarray) -> list[float]:
    shape, left, right = _fit(patch)
    found = [shape, (left + right) / 2]
    for neighbour in (
        np.roll(patch, 1, axis=1),
        np.roll(patch, 1, axis=0),
        np.roll(np.roll(patch, 1, axis=0), 1, axis=1),
        np.roll(np.roll(patch, 1, axis=0), -1, axis=1),
    ):
        shape, left, right = _fit(patch * neighbour)
        found += [shape, (right - left) * gamma(2 / shape) / gamma(1 / shape), left, right]
    return found


def _fit(values: np.ndarray) -> tuple[float, float, float]:
    """The shape at which Γ(2/a)² / (Γ(1/a) Γ(3/a)) is nearest to what the moments of the two sides say."""
    negative, positive = values[values < 0], values[values > 0]
    left, right = np.sqrt((negative**2).mean()), np.sqrt((positive**2).mean())
    ratio = left / right
    wanted = np.abs(values).mean() ** 2 / (values**2).mean() * (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    shape = SHAPES[np.abs(RATIOS - wanted).argmin()]
    scale = np.sqrt(gamma(1 / shape) / gamma(3 / shape))
    return shape, left * scale, right * scale
