"""Confidence intervals by resampling scenes: of the difference between two methods, and of a ratio of sums."""

from collections import defaultdict
from collections.abc import Mapping
from math import fsum, isfinite, nan
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

RESAMPLES, LEVEL = 10_000, 0.95
_BLOCK = 2**20  # indices drawn at a time: 8 MB, whatever the number of pictures and of resamples


class Interval(NamedTuple):
    """The mean difference, and its confidence interval from low to high (NaN if there is none).

    above is the share of the resamples whose mean is above 0; ties count half.
    """

    difference: float
    low: float
    high: float
    above: float

    @property
    def excludes_zero(self) -> bool:
        """Whether 0 lies outside."""
        return self.low > 0 or self.high < 0


class Estimate(NamedTuple):
    """A value of one method, and its confidence interval from low to high (NaN if there is none)."""

    value: float
    low: float
    high: float


def paired(
    differences: Mapping[str, Mapping[str, float]],
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
    scenes: Mapping[str, str] | None = None,
) -> Interval:
    """``mean over categories c of mean over pictures i of d_ci``, with its BCa bootstrap interval.

    differences maps category -> image -> B's value minus A's. Each category has the same weight, however many images
    it has. scenes maps image -> scene; by default, each name of an image is a scene. A scene is one clean photograph
    with all images made from it: CDD-11 has 200, each in every category, and Rain1400 100 in fourteen rains each. Whole
    scenes are drawn, separately for each set of categories that scenes share; if no two categories share a scene, this
    is a bootstrap stratified by category. Drawing single images instead would treat CDD-11 as 2,200 independent images:
    if half of the variance of the differences came from the scenes, such a 95 % interval would cover only 55 %.

    BCa is bias-corrected and accelerated (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 14;
    acceleration over strata: Davison and Hinkley, Bootstrap Methods and their Application, 1997, eq. 5.28). It is
    second-order correct, unlike the percentile interval: with ten exponential differences the 95 % interval covers 87 %
    (percentile: 85 %), with twenty 91 % (90 %). All bootstrap intervals are too narrow for few images: with ten normal
    differences they cover 90 %.

    There is no interval (NaN) if a difference is infinite or a category has fewer than two scenes. The result does not
    depend on the order of the input. Raises ValueError for missing or NaN differences, fewer than 100 resamples, or a
    level outside (0, 1).
    """
    if not differences or not all(differences.values()):
        raise ValueError("paired: every category must have the difference of at least one image")
    _check("paired", resamples, level)
    values = [value for images in differences.values() for value in images.values()]
    if any(value != value for value in values):
        raise ValueError("paired: a difference is NaN, but images for which a measure is undefined must be excluded")
    infinite = {value for value in values if not isfinite(value)}
    if infinite:
        return Interval(infinite.pop() if len(infinite) == 1 else nan, nan, nan, nan)
    means = {category: fsum(images.values()) / len(images) for category, images in differences.items()}
    mean = fsum(means.values()) / len(means)
    if _fewest_scenes(differences, scenes) < 2:
        return Interval(mean, nan, nan, nan)
    weights = {category: 1 / (len(differences) * len(images)) for category, images in differences.items()}
    # relative to the category's mean, so that it does not matter how many images the drawn scenes have
    strata = _strata(
        {
            c: {image: (weights[c] * (value - means[c]),) for image, value in images.items()}
            for c, images in differences.items()
        },
        scenes,
    )
    influence = _centred([stratum[0] for stratum in strata])
    error = np.sqrt((influence**2).sum())
    if error <= 1e-12 * max(map(abs, values)):  # equal, but for rounding
        return Interval(mean, mean, mean, _share_above(np.array([mean]), 0.0))
    found = mean + _resampled(strata, resamples, np.random.default_rng(seed))[0]
    tie = 1e-9 * error
    return Interval(mean, *_bca(mean, found, influence / error, tie, level), _share_above(found, tie))


def ratio(
    pairs: Mapping[str, Mapping[str, tuple[float, float]]],
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
    scenes: Mapping[str, str] | None = None,
) -> Estimate:
    """``Σ a / Σ b`` over all images, with its BCa bootstrap interval; the mean of a where every b is 1.

    pairs maps category -> image -> (a, b), b > 0. Scenes are drawn as in `paired`, and both sums are recomputed from
    the scenes drawn, since numerator and denominator vary together. Images have equal weight, so a category counts by
    its number of images. The acceleration is that of the ratio's influence function ``(a - b Σa/Σb) / Σb`` (Davison and
    Hinkley, 1997, section 2.7), which a logarithm would not change: the interval of log(Σa/Σb) is the logarithm of this
    one.

    There is no interval (NaN) if a category has fewer than two scenes, and no value either if a number is NaN or
    infinite. The result does not depend on the order of the input. Raises ValueError for missing images, b <= 0, fewer
    than 100 resamples, or a level outside (0, 1).
    """
    if not pairs or not all(pairs.values()):
        raise ValueError("ratio: every category must have at least one image")
    _check("ratio", resamples, level)
    a, b = zip(*(pair for images in pairs.values() for pair in images.values()))
    if not all(map(isfinite, (*a, *b))):
        return Estimate(nan, nan, nan)
    if min(b) <= 0:
        raise ValueError(f"ratio: every b must be above 0, got {min(b)}")
    above, below = fsum(a), fsum(b)
    value = above / below
    if _fewest_scenes(pairs, scenes) < 2:
        return Estimate(value, nan, nan)
    strata = _strata(pairs, scenes)
    influence = _centred([(one - value * other) / below for one, other in strata])
    error = np.sqrt((influence**2).sum())
    if error <= 1e-12 * fsum(map(abs, a)) / below:  # equal, but for rounding
        return Estimate(value, value, value)
    numerators, denominators = _resampled(strata, resamples, np.random.default_rng(seed))
    return Estimate(value, *_bca(value, numerators / denominators, influence / error, 1e-9 * error, level))


def _check(caller: str, resamples: int, level: float) -> None:
    if resamples < 100 or not 0 < level < 1:
        raise ValueError(f"{caller}: resamples must be at least 100 and level in (0, 1), got {resamples} and {level}")


def _centred(strata: list[np.ndarray]) -> np.ndarray:
    """Subtract its mean from each stratum, and join them."""
    return np.concatenate([stratum - stratum.mean() for stratum in strata])


def _fewest_scenes(values: Mapping[str, Mapping[str, object]], scenes: Mapping[str, str] | None) -> int:
    return min(len({(scenes or {}).get(image, image) for image in images}) for images in values.values())


def _strata(
    values: Mapping[str, Mapping[str, tuple[float, ...]]], scenes: Mapping[str, str] | None
) -> list[np.ndarray]:
    """Sum each scene's tuples over its images, and group the scenes by their images' categories: arrays [d, scenes].

    Scenes that share their set with no other scene form one stratum. If there is only one such scene, it joins the
    largest stratum, since a stratum of one would be drawn exactly once in every resample.
    """
    parts: dict[str, list[tuple[str, tuple[float, ...]]]] = defaultdict(list)
    for category in sorted(values):
        for image, value in values[category].items():
            parts[(scenes or {}).get(image, image)].append((category, value))
    by_set: dict[tuple[str, ...], list[tuple[float, ...]]] = defaultdict(list)
    for pieces in parts.values():
        categories, of_scene = zip(*pieces)
        by_set[categories].append(tuple(map(fsum, zip(*of_scene))))
    shared = [by_set[key] for key in sorted(by_set) if len(by_set[key]) > 1]
    single = [value for values in by_set.values() if len(values) == 1 for value in values]
    if len(single) == 1:
        max(shared, key=len).extend(single)
        single = []
    return [np.array(sorted(stratum)).T for stratum in (*shared, single) if stratum]


def _resampled(strata: list[np.ndarray], resamples: int, random: np.random.Generator) -> np.ndarray:
    """Return the sums of each resample, [d, resamples]."""
    sums = np.zeros((len(strata[0]), resamples))
    for stratum in strata:
        scenes = stratum.shape[1]
        rows = max(1, _BLOCK // scenes)
        for start in range(0, resamples, rows):
            block = sums[:, start : start + rows]
            block += stratum[:, random.integers(0, scenes, (block.shape[1], scenes))].sum(axis=-1)
    return sums


def _bca(value: float, values: np.ndarray, influence: np.ndarray, tie: float, level: float) -> tuple[float, float]:
    """Compute the interval of a value from those of the resamples.

    influence holds each scene's influence, with squares that sum to 1. Differences within `tie` count as equal: 1.5 %
    of the resamples of six images draw each image once, and rounding must not decide whether their mean is above.
    """
    normal = NormalDist()
    acceleration = (influence**3).sum() / 6
    # half a resample from 0 and 1, where the normal quantile is infinite
    half = 0.5 / len(values)
    bias = normal.inv_cdf(min(max(_share_above(value - values, tie), half), 1 - half))
    shares = []
    for tail in ((1 - level) / 2, (1 + level) / 2):
        z = bias + normal.inv_cdf(tail)
        shares.append(normal.cdf(bias + z / (1 - acceleration * z)))
    low, high = np.quantile(values, shares)
    return float(low), float(high)


def _share_above(values: np.ndarray, tie: float) -> float:
    """Return the share of values above 0; values within `tie` of 0 count half."""
    return float(((values > tie) + 0.5 * (abs(values) <= tie)).mean())
