"""Localisation of an expert's map: correlation and average precision with the ground-truth mask."""

from collections.abc import Sequence
from math import fsum, nan, sqrt
from typing import NamedTuple

import numpy as np
from torch import Tensor

# A pixel is degraded where its true mask exceeds this, a tenth of full scale: streaks and flakes exceed it, the veil of
# distant drops mostly does not. On CBSD68 composites 20 % of the pixels with rain and 19 % of those with snow do; above
# 0.05 it would be about 60 % and 40 %.
THRESHOLDS = {"rain": 0.1, "snow": 0.1}


class Located(NamedTuple):
    """One map m of one picture and its true mask t: means, variances and covariance over the pixels, average
    precision, and the share of the pixels that are degraded, which is the average precision of a constant map."""

    map_mean: float
    true_mean: float
    map_variance: float
    true_variance: float
    covariance: float
    average_precision: float
    share: float

    @property
    def correlation(self) -> float:
        """Pearson: cov(m, t) / sqrt(var m · var t) over the pixels, in [-1, 1]; NaN where either is constant."""
        return _correlation(self.covariance, self.map_variance, self.true_variance)


class Localisation(NamedTuple):
    """The maps of one factor over the `images` pictures in which it is present.

    correlation, average_precision, share: means of the pictures' own, over those where they are defined.
    pooled_correlation: Pearson over all pixels of all these pictures at once, so that how strong the degradation is
    from picture to picture counts too. undefined: pictures without a correlation; unranked: those without an average
    precision. NaN for what no picture defines.
    """

    images: int
    correlation: float
    pooled_correlation: float
    average_precision: float
    share: float
    undefined: int
    unranked: int


def located(map_: Tensor, true_mask: Tensor, threshold: float | None = None) -> Located:
    """Correlation and average precision of a map [H,W] with its true mask [H,W], both of any floating type.

    The average precision takes the map as a score for the pixels that are degraded: those whose true mask exceeds
    `threshold`, by default its own mean over the picture. Haze and low light are everywhere, more here and less there;
    the mean splits every mask that is not constant, whereas more than half of the pixels may share a mask's largest
    value, and then none exceeds the median. ValueError for shapes that do not fit.
    """
    if map_.ndim != 2 or map_.shape != true_mask.shape or map_.numel() == 0:
        raise ValueError(
            "localisation: the map and the true mask must both be [H,W], "
            f"got {tuple(map_.shape)} and {tuple(true_mask.shape)}"
        )
    # NumPy, whose sums are the same on any number of threads
    score, truth = (each.detach().cpu().double().numpy().ravel() for each in (map_, true_mask))
    # from the first pixel on, so that a constant has no variance at all
    m, t = score - score[0], truth - truth[0]
    above, beyond = m.mean(), t.mean()
    m -= above
    t -= beyond
    degraded = truth > (truth.mean() if threshold is None else threshold)
    return Located(
        float(score[0] + above),
        float(truth[0] + beyond),
        float(np.square(m).mean()),
        float(np.square(t).mean()),
        float((m * t).mean()),
        average_precision(score, degraded),
        float(degraded.mean()),
    )


def average_precision(score: np.ndarray, positive: np.ndarray) -> float:
    """Σ_n (R_n - R_{n-1}) P_n, the area under precision P and recall R over all thresholds n, in (0, 1].

    Computed as the mean over the positives i of |{positive j: s_j >= s_i}| / |{j: s_j >= s_i}|, which is the same sum
    with equal scores at one threshold, as scikit-learn's `average_precision_score` has it. score: floating, positive:
    bool, of one shape. NaN where all are positive or none is, so that there is nothing to rank, and for scores that
    are NaN.
    """
    ranked, found = np.sort(score, axis=None), np.sort(score[positive])
    if not 0 < found.size < ranked.size or np.isnan(ranked[-1]):
        return nan
    hits = found.size - np.searchsorted(found, found)
    return float((hits / (ranked.size - np.searchsorted(ranked, found))).mean())


def localisation(pictures: Sequence[tuple[int, Located]]) -> Localisation:
    """Over pictures of one factor, each with its number of pixels. ValueError for none."""
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
    """Pool by the law of total covariance: that within the images and that between their means."""
    pixels, first = sum(size for size, _ in pictures), pictures[0][1]

    def over(values: list[float]) -> float:
        return fsum(size * value for (size, _), value in zip(pictures, values)) / pixels

    # from the first picture on, for the same reason as above
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
