"""The change that a restoration makes to its input, and its difference from another restoration of the same image."""

import numpy as np
from torch import Tensor

from f2d.metrics.measure import About

CHANGE = About("change", "Change", "", "grey levels", 1)
SPREAD = About("spread", "Spread over seeds", "", "grey levels", 2)


def change(restored: Tensor, degraded: Tensor) -> float:
    """255 · mean |clamp(restored, 0, 1) - degraded| in grey levels, for images [3, H, W] in [0, 1]."""
    return 255 * float(np.abs(_numbers(restored.clamp(0, 1)) - _numbers(degraded)).mean())


def spread(first: Tensor, second: Tensor) -> float:
    """255 · √(mean (first - second)² / 2): the standard deviation over seeds in grey levels, estimated from two."""
    return 255 * float(np.sqrt(np.square(_numbers(first) - _numbers(second)).mean() / 2))


def _numbers(image: Tensor) -> np.ndarray:
    return image.detach().cpu().double().numpy()
