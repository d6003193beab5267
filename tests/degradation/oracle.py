"""The published formulas a second time: NumPy and SciPy, float64, nothing shared with the package.

Images are [H,W,3], maps [H,W].
"""

import numpy as np
from scipy.ndimage import uniform_filter

TINY = 1e-7


def box(image: np.ndarray, size: int) -> np.ndarray:
    """Window sum with zeros outside, over how many pixels of the window are inside."""
    image = image.astype(np.float64)
    inside = uniform_filter(np.ones_like(image), size, mode="constant")
    return uniform_filter(image, size, mode="constant") / inside


def guided_filter(guide: np.ndarray, image: np.ndarray, size: int, eps: float) -> np.ndarray:
    guide, image = guide.astype(np.float64), image.astype(np.float64)
    covariance = box(guide * image, size) - box(guide, size) * box(image, size)
    variance = box(guide**2, size) - box(guide, size) ** 2
    slope = covariance / (variance + eps)
    offset = box(image, size) - slope * box(guide, size)
    return box(slope, size) * guide + box(offset, size)


def low(clean: np.ndarray, light: np.ndarray, gamma: float, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    grey = clean.astype(np.float64) @ [0.114, 0.587, 0.299]
    level = np.maximum(guided_filter(light, grey, 3, 0.01), 0)[..., None] + TINY
    return np.clip(clean / level * level**gamma + noise, 0, 1), np.clip(1 - level[..., 0] ** (gamma - 1), 0, 1)


def haze(image: np.ndarray, depth: np.ndarray, beta: float, airlight: float) -> tuple[np.ndarray, np.ndarray]:
    t = np.exp(-beta * np.minimum(1 - box(depth, 22), 0.7))[..., None]
    return np.clip(image * t + airlight * (1 - t), 0, 1), 1 - t[..., 0]


def degrade(clean, category, parameters, noise, *, light, rain, snow, depth, clip_between=False):
    """Image and maps [4,H,W] of one category, all random quantities given."""
    clean = clean.astype(np.float64)
    x, maps, factors = clean, np.zeros((4, *clean.shape[:2])), category.split("_")
    if "low" in factors:
        x, maps[0] = low(clean, light, parameters["low"]["gamma"], noise)
    if "rain" in factors:
        x, maps[2] = x + rain[..., None], rain
    if "snow" in factors:
        x, maps[3] = x * (1 - snow[..., None]) + snow[..., None], snow
    if clip_between:
        x = x.clip(0, 1)
    if "haze" in factors:
        x, maps[1] = haze(x, depth, parameters["haze"]["beta"], parameters["haze"]["airlight"])
    return np.clip(x, 0, 1), maps
