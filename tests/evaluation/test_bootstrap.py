"""Intervals: known answers, coverage of simulated data, SciPy's own bootstrap, and laws."""

from math import inf, isnan, nan

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from f2d.evaluation import bootstrap
from f2d.evaluation.bootstrap import paired


def strata(*values) -> dict[str, dict[str, float]]:
    """Categories that share no scene."""
    return {str(c): {f"{c} {i}": float(value) for i, value in enumerate(category)} for c, category in enumerate(values)}


def test_a_constant_difference_has_no_width():
    assert paired(strata([0.25] * 5, [0.25] * 9)) == (0.25, 0.25, 0.25, 1)
    assert paired(strata([0.0] * 4)) == (0, 0, 0, 0.5)
    assert paired(strata([-1.0] * 4)).excludes_zero and not paired(strata([0.0] * 4)).excludes_zero


def test_each_category_counts_once():
    few, many = [1.0, 3.0], [10.0] * 30
    assert paired(strata(few, many)).difference == 6


def test_one_stratum_is_what_scipy_has():
    random = np.random.default_rng(0)
    a = random.normal(30, 2, 15)
    b = a + random.exponential(0.5, 15) - 0.3
    theirs = scipy.stats.bootstrap(
        (a, b),
        lambda x, y, axis=-1: (y - x).mean(axis),
        paired=True,
        n_resamples=40_000,
        method="BCa",
        rng=np.random.default_rng(1),
    )
    found = paired(strata(b - a), resamples=40_000)
    # quantiles of two bootstraps of 40,000 differ by some 2 % of a standard error, bias and skew are 10 %
    tolerance = 0.06 * theirs.standard_error
    assert found.low == pytest.approx(theirs.confidence_interval.low, abs=tolerance)
    assert found.high == pytest.approx(theirs.confidence_interval.high, abs=tolerance)
    percentile = np.quantile(theirs.bootstrap_distribution, [0.025, 0.975])
    assert abs(percentile[1] - found.high) > tolerance  # that is, it is not the percentile interval


def test_strata_have_the_variance_of_a_stratified_mean():
    random = np.random.default_rng(2)
    values = [random.normal(mean, 1, n) for mean, n in ((0, 20), (5, 40), (-3, 80))]
    found = paired(strata(*values), resamples=20_000)
    error = np.sqrt(sum(value.var() / len(value) for value in values)) / 3
    assert (found.high - found.low) / (2 * 1.96) == pytest.approx(error, rel=0.03)


def coverage(draw, truth: float, trials: int = 500) -> float:
    random = np.random.default_rng(5)
    found = [paired(draw(random), resamples=600, seed=trial) for trial in range(trials)]
    return sum(interval.low <= truth <= interval.high for interval in found) / trials


def test_95_percent_is_95_percent():
    """Of 500 intervals 475 hold; the standard deviation of that number is 5."""
    skewed = coverage(lambda random: strata(random.exponential(1, 60), random.normal(0, 1, 40)), 0.5)
    assert skewed == pytest.approx(0.95, abs=0.03)


def test_scenes_that_return_in_every_category_are_not_independent():
    def draw(random, together: bool):
        scene = random.normal(0, 1, 50)
        return {
            f"{c}": {f"{i}" if together else f"{c} {i}": x for i, x in enumerate(scene + random.normal(0, 1, 50))}
            for c in range(8)
        }

    assert coverage(lambda random: draw(random, True), 0.0) == pytest.approx(0.95, abs=0.03)
    assert coverage(lambda random: draw(random, False), 0.0, 100) < 0.75


def test_the_share_above_zero_is_that_of_a_normal_mean():
    values = np.random.default_rng(3).normal(0.2, 1, 100)
    z = values.mean() / (values.std() / 10)
    assert paired(strata(values), resamples=20_000).above == pytest.approx(scipy.stats.norm.cdf(z), abs=0.01)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.lists(st.floats(-5, 5, allow_subnormal=False), min_size=2, max_size=9), min_size=1, max_size=4).filter(
        lambda values: any(len({*value}) > 1 for value in values)
    ),
    st.randoms(use_true_random=False),
)
def test_order_does_not_matter_and_the_sign_turns_with_the_methods(values, shuffle):
    there = strata(*values)
    found = paired(there, resamples=500)
    categories = [(name, list(scenes.items())) for name, scenes in there.items()]
    shuffle.shuffle(categories)
    for _, scenes in categories:
        shuffle.shuffle(scenes)
    assert paired({name: dict(scenes) for name, scenes in categories}, resamples=500) == found
    turned = paired(strata(*[[-x for x in value] for value in values]), resamples=500)
    assert turned.difference == -found.difference
    assert found.low <= found.high


def test_rounding_of_the_values_does_not_move_the_interval():
    """Of five pictures one resample in 26 draws each once, and has the mean itself but for rounding."""
    random = np.random.default_rng(6)
    for exact in random.exponential(1, (10, 5)):
        first, second = paired(strata(exact)), paired(strata((exact + 31.7) - 31.7))
        assert second == pytest.approx(first, abs=1e-9)


def test_blocks_do_not_show(monkeypatch):
    there = strata(*np.random.default_rng(4).normal(0, 1, (3, 21)))
    whole = paired(there, resamples=999)
    monkeypatch.setattr(bootstrap, "_BLOCK", 50)
    assert paired(there, resamples=999) == whole
    assert paired(there, resamples=999, seed=1) != whole


def test_a_scene_with_a_set_of_its_own_does_not_take_the_interval_away():
    both = {f"{i}": float(i % 5) for i in range(30)}
    without = {name: value for name, value in both.items() if name != "7"}
    found = paired({"low": both, "rain": without})
    whole = paired({"low": both, "rain": both})
    assert found.high - found.low == pytest.approx(whole.high - whole.low, rel=0.15)
    none_alike = paired({"low": {"a": 0.0, "b": 1.0}, "rain": {"b": 1.0, "c": 3.0}, "snow": {"c": 4.0, "a": 2.0}})
    assert none_alike.low < none_alike.difference < none_alike.high


def test_where_there_is_no_interval():
    assert paired(strata([1.0, 2.0], [4.0])).difference == 2.75
    assert isnan(paired(strata([1.0, 2.0], [4.0])).low)
    assert paired(strata([1.0, inf]))[0] == inf and isnan(paired(strata([1.0, inf])).high)
    assert isnan(paired(strata([-inf, inf])).difference)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (({},), "at least one image"),
        (({"low": {}},), "at least one image"),
        ((strata([1.0, nan]),), "NaN"),
        ((strata([1.0, 2.0]), 50), "at least 100"),
        ((strata([1.0, 2.0]), 500, 0, 95), "level"),
    ],
)
def test_what_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        paired(*arguments)
