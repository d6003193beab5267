"""Localisation of an expert's map: correlation and average precision with the ground-truth mask."""

from collections.abc import Sequence
from math import fsum, nan, sqrt
from typing import NamedTuple

import numpy as np
from torch import Tensor

# A pixel is degraded if its ground-truth mask exceeds this. Streaks and flakes exceed a tenth of full scale; the veil
# of distant drops mostly does not. On CBSD68 composites 20 % of the pixels with rain and 19 % of those with snow exceed
# it; about 60 % and 40 % would exceed 0.05.
THRESHOLDS = {"rain": 0.1, "snow": 0.1}


class Located(NamedTuple):
    """One map m of one image and its ground-truth mask t: means, variances and covariance over the pixels, average
    precision, and the share of degraded pixels, which is the average precision of a constant map."""

    map_mean: float
    true_mean: float
    map_variance: float
    true_variance: float
    covariance: float
    average_precision: float
    share: float

    @property
    def correlation(self) -> float:
        """Pearson: cov(m, t) / sqrt(var m · var t) over the pixels, in [-1, 1]; NaN if either is constant."""
        return _correlation(self.covariance, self.map_variance, self.true_variance)


class Localisation(NamedTuple):
    """The maps of one factor over the images in which it is present; `images` is their number.

    correlation, average_precision, share: each is the mean over the images where it is defined. pooled_correlation:
    Pearson over all pixels of all these images together, so that it also reflects how the strength of the degradation
    varies between images. undefined: number of images without a correlation. unranked: number of images without an
    average precision. A mean over no image is NaN.
    """

    images: int
    correlation: float
    pooled_correlation: float
    average_precision: float
    share: float
    undefined: int
    unranked: int


def located(map_: Tensor, true_mask: Tensor, threshold: float | None = None) -> Located:
    """Compute correlation and average precision of a map [H,W] with its ground-truth mask [H,W], of any floating dtype.

    The average precision takes the map as a score for the degraded pixels, which are those whose mask exceeds
    `threshold`. The default is the mean of the mask, because haze and low light cover the whole image with varying
    strength. The mean splits every mask that is not constant; the median splits none in which more than half of the
    pixels share the largest value. Raises ValueError unless both are [H,W] of one shape and not empty.
    """
    if map_.ndim != 2 or map_.shape != true_mask.shape or map_.numel() == 0:
        raise ValueError(
            "localisation: the map and its ground-truth mask must both be [H,W], "
            f"got {tuple(map_.shape)} and {tuple(true_mask.shape)}"
        )
    # NumPy's sums do not depend on the number of threads
    score, mask = (each.detach().cpu().double().numpy().ravel() for each in (map_, true_mask))
    # relative to the first pixel, so that the variance of a constant is exactly zero
    m, t = score - score[0], mask - mask[0]
    above, beyond = m.mean(), t.mean()
    m -= above
    t -= beyond
    degraded = mask > (mask.mean() if threshold is None else threshold)
    return Located(
        float(score[0] + above),
        float(mask[0] + beyond),
        float(np.square(m).mean()),
        float(np.square(t).mean()),
        float((m * t).mean()),
        average_precision(score, degraded),
        float(degraded.mean()),
    )


def average_precision(score: np.ndarray, positive: np.ndarray) -> float:
    """Σ_n (R_n - R_{n-1}) P_n, the area under precision P and recall R over all thresholds n, in (0, 1].

    Computed as the mean over the positives i of |{positive j: s_j >= s_i}| / |{j: s_j >= s_i}|, which is the same sum
    with equal scores at one threshold, as in scikit-learn's `average_precision_score`. score: floating; positive: bool
    of the same shape. NaN if all or none are positive, or if a score is NaN.
    """
    ranked, found = np.sort(score, axis=None), np.sort(score[positive])
    if not 0 < found.size < ranked.size or np.isnan(ranked[-1]):
        return nan
    hits = found.size - np.searchsorted(found, found)
    return float((hits / (ranked.size - np.searchsorted(ranked, found))).mean())


def localisation(pictures: Sequence[tuple[int, Located]]) -> Localisation:
    """Combine the images of one factor, each given with its number of pixels. Raises ValueError if there are none."""
    if not pictures:
        raise ValueError("localisation: there must be at least one image")
    of_each = [one for _, one in pictures]
    correlations = [one.correlation for one in of_each if one.correlation == one.correlation]
    ranked = [one for one in of_each if one.average_precision == one.average_precision]
    return Localisation(
        len(pictures),
        _mean(correlations),
        _pooled(pictures),
        _mean([one.average_precision for one in ranked]),
        _mean([one.share for one in ranked]),
        len(pictures) - len(correlations),
        len(pictures) - len(ranked),
    )


def _pooled(pictures: Sequence[tuple[int, Located]]) -> float:
    """Pool by the law of total covariance: the covariance within the images plus that between their means."""
    pixels, first = sum(size for size, _ in pictures), pictures[0][1]

    def over(values: list[float]) -> float:
        return fsum(size * value for (size, _), value in zip(pictures, values)) / pixels

    # relative to the first image, for the same reason as in `located`
    m = [one.map_mean - first.map_mean for _, one in pictures]
    t = [one.true_mean - first.true_mean for _, one in pictures]
    above, beyond = over(m), over(t)
    return _correlation(
        over([one.covariance + (a - above) * (b - beyond) for (_, one), a, b in zip(pictures, m, t)]),
        over([one.map_variance + (a - above) ** 2 for (_, one), a in zip(pictures, m)]),
        over([one.true_variance + (b - beyond) ** 2 for (_, one), b in zip(pictures, t)]),
    )


def _correlation(covariance: float, one: float, other: float) -> float:
    scale = sqrt(one * other)
    return min(1.0, max(-1.0, covariance / scale)) if scale > 0 else nan


def _mean(values: list[float]) -> float:
    return fsum(values) / len(values) if values else nan
