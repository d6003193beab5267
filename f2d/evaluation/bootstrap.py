"""Confidence intervals of the difference between two methods on the same images."""

from collections import defaultdict
from collections.abc import Mapping
from math import fsum, isfinite, nan
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

RESAMPLES, LEVEL = 10_000, 0.95
_BLOCK = 2**20  # indices drawn at a time: 8 MB, whatever the number of pictures and of resamples


class Interval(NamedTuple):
    """difference: the mean; low, high: its confidence interval, NaN where there is none. above: the share of resamples
    in which the mean is above 0, ties counted half."""

    difference: float
    low: float
    high: float
    above: float

    @property
    def excludes_zero(self) -> bool:
        """Whether 0 lies outside."""
        return self.low > 0 or self.high < 0


def paired(
    differences: Mapping[str, Mapping[str, float]], resamples: int = RESAMPLES, seed: int = 0, level: float = LEVEL
) -> Interval:
    """``mean over categories c of mean over pictures i of d_ci``, with its BCa bootstrap interval.

    differences: category -> scene -> B's value less A's. Each category counts once, however many pictures it has. A
    scene is what the pictures made of one clean photograph have in common, as the 200 of CDD-11, which return in every
    category; scenes are drawn whole, with all their pictures, and apart for each set of categories that scenes share:
    of unrelated categories that is a bootstrap stratified by category. Drawn picture by picture, CDD-11 would seem to
    be 2,200 independent ones: with half the variance of the differences due to the scenes, "95 %" held in 55 %.

    BCa (bias-corrected and accelerated; Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 14;
    acceleration over strata as Davison and Hinkley, Bootstrap Methods and their Application, 1997, eq. 5.28): it is
    second-order correct, which the percentile interval is not: of ten exponential differences "95 %" held in 87 %
    (percentile 85 %), of twenty in 91 % (90 %). All bootstraps are too narrow for few pictures: ten normal ones, 90 %.

    No interval (NaN) where a difference is infinite or a category has fewer than two pictures. The result does not
    depend on the order of what is given. ValueError for no differences, NaN among them, fewer than 100 resamples, or a
    level outside 0..1.
    """
    if not differences or not all(differences.values()):
        raise ValueError("paired: every category must have the difference of at least one image")
    if resamples < 100 or not 0 < level < 1:
        raise ValueError(f"paired: resamples must be at least 100 and level in (0, 1), got {resamples} and {level}")
    values = [value for scenes in differences.values() for value in scenes.values()]
    if any(value != value for value in values):
        raise ValueError("paired: a difference is NaN, but images for which a measure is undefined must be excluded")
    infinite = {value for value in values if not isfinite(value)}
    if infinite:
        return Interval(infinite.pop() if len(infinite) == 1 else nan, nan, nan, nan)
    mean = fsum(fsum(scenes.values()) / len(scenes) for scenes in differences.values()) / len(differences)
    if min(map(len, differences.values())) < 2:
        return Interval(mean, nan, nan, nan)
    strata = _strata(differences)
    influence = np.concatenate([stratum - stratum.mean() for stratum in strata])
    error = np.sqrt((influence**2).sum())
    if error <= 1e-12 * sum(abs(stratum).sum() for stratum in strata):  # equal, but for rounding
        return Interval(mean, mean, mean, _share_above(np.array([mean]), 0.0))
    means = _resampled(strata, resamples, np.random.default_rng(seed))
    return _bca(mean, means, influence / error, 1e-9 * error, level)


def _strata(differences: Mapping[str, Mapping[str, float]]) -> list[np.ndarray]:
    """What each scene adds to the mean, sorted, by the set of categories it is in; the sum over all is the mean.

    Scenes that share their set with no other are one stratum, and a single such scene joins the largest: on its own it
    would be in every resample just once.
    """
    parts: dict[str, list[tuple[str, float]]] = defaultdict(list)
    for category in sorted(differences):
        weight = 1 / (len(differences) * len(differences[category]))
        for scene, value in differences[category].items():
            parts[scene].append((category, weight * value))
    by_set: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for pieces in parts.values():
        by_set[tuple(category for category, _ in pieces)].append(fsum(value for _, value in pieces))
    shared = [by_set[key] for key in sorted(by_set) if len(by_set[key]) > 1]
    single = [value for values in by_set.values() if len(values) == 1 for value in values]
    if len(single) == 1:
        max(shared, key=len).extend(single)
        single = []
    return [np.sort(stratum) for stratum in (*shared, single) if stratum]


def _resampled(strata: list[np.ndarray], resamples: int, random: np.random.Generator) -> np.ndarray:
    """The mean in each resample, [resamples]."""
    means = np.zeros(resamples)
    for stratum in strata:
        rows = max(1, _BLOCK // len(stratum))
        for start in range(0, resamples, rows):
            block = means[start : start + rows]
            block += stratum[random.integers(0, len(stratum), (len(block), len(stratum)))].sum(axis=1)
    return means


def _bca(mean: float, means: np.ndarray, influence: np.ndarray, tie: float, level: float) -> Interval:
    """influence: of each scene, with squares that sum to 1. tie: of six pictures 1.5 % of the resamples draw each once;
    whether those lie above the mean is not for rounding to say."""
    normal = NormalDist()
    acceleration = (influence**3).sum() / 6
    # half a resample from 0 and 1, where the normal quantile is infinite
    half = 0.5 / len(means)
    bias = normal.inv_cdf(min(max(_share_above(mean - means, tie), half), 1 - half))
    shares = []
    for tail in ((1 - level) / 2, (1 + level) / 2):
        z = bias + normal.inv_cdf(tail)
        shares.append(normal.cdf(bias + z / (1 - acceleration * z)))
    low, high = np.quantile(means, shares)
    return Interval(mean, float(low), float(high), _share_above(means, tie))


def _share_above(values: np.ndarray, tie: float) -> float:
    """Return the share of values below 0; values within `tie` of 0 count half."""
    return float(((values > tie) + 0.5 * (abs(values) <= tie)).mean())
