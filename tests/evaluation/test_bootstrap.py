"""Intervals: known answers, coverage of simulated data, SciPy's own bootstrap, and laws."""

from math import inf, isnan, nan

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from f2d.evaluation import bootstrap
from f2d.evaluation.bootstrap import paired, ratio


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


def clusters(random, sizes) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """(differences, scenes) of one category: as many images of each scene as `sizes` says, all with the mean 1."""
    values, scenes = {}, {}
    for scene, size in enumerate(sizes):
        strength = random.normal(1, 1)
        for i in range(size):
            values[f"{scene}_{i}"], scenes[f"{scene}_{i}"] = strength + random.normal(0, 0.5), str(scene)
    return {"rain": values}, scenes


@pytest.mark.parametrize("sizes", [[8] * 40, range(1, 41)])
def test_images_of_one_scene_in_one_category_are_not_independent(sizes):
    """Rain1400 has fourteen rains of each photograph; numbers of images that no two scenes share change nothing."""
    random, held, alone = np.random.default_rng(8), 0, 0
    for trial in range(200):
        values, scenes = clusters(random, sizes)
        found, single = (paired(values, 600, trial, scenes=s) for s in (scenes, None))
        held += found.low <= 1 <= found.high
        alone += single.low <= 1 <= single.high
    assert held / 200 == pytest.approx(0.95, abs=0.05) and alone / 200 < 0.75


def test_copies_of_all_images_make_no_interval_narrower():
    once = np.random.default_rng(9).exponential(1, 20)
    values = {f"{i} {copy}": float(value) for i, value in enumerate(once) for copy in range(5)}
    scenes = {name: name.split()[0] for name in values}
    assert paired({"rain": values}, scenes=scenes) == pytest.approx(paired(strata(once)))
    tens = {name: (value, 1.0) for name, value in values.items()}
    assert ratio({"rain": tens}, scenes=scenes) == pytest.approx(ratio(pairs(once, np.ones(20))))
    one = dict.fromkeys(values, "0")
    assert isnan(paired({"rain": values}, scenes=one).low) and isnan(ratio({"rain": tens}, scenes=one).low)


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


def pairs(a, b) -> dict[str, dict[str, tuple[float, float]]]:
    """One category."""
    return {"low": {str(i): (float(x), float(y)) for i, (x, y) in enumerate(zip(a, b))}}


def test_a_ratio_by_hand():
    """Two scenes with 3/1 and 1/1: one resample in four is 3, one is 1, the others are 2; nothing is skewed."""
    assert ratio(pairs([3, 1], [1, 1])) == (2, 1, 3)
    # both sums are of the scenes drawn: 9/1 and 1/3 give 10/4, and 9 or a third where one is drawn twice
    assert ratio(pairs([9, 1], [1, 3])) == pytest.approx((2.5, 1 / 3, 9))


def test_proportional_pairs_have_no_width():
    assert ratio(pairs([3, 6, 9], [1, 2, 3])) == (3, 3, 3)


def test_a_ratio_is_what_scipy_has():
    random = np.random.default_rng(0)
    a, b = random.exponential(2, 30), random.exponential(0.3, 30) + 0.05
    theirs = scipy.stats.bootstrap(
        (a, b),
        lambda x, y, axis=-1: x.sum(axis) / y.sum(axis),
        paired=True,
        n_resamples=40_000,
        method="BCa",
        rng=np.random.default_rng(1),
    )
    found = ratio(pairs(a, b), resamples=40_000)
    assert found.value == pytest.approx(a.sum() / b.sum())
    # quantiles of two bootstraps of 40,000, and SciPy's acceleration by the jackknife, differ by some 3 % of an error
    tolerance = 0.08 * theirs.standard_error
    assert found.low == pytest.approx(theirs.confidence_interval.low, abs=tolerance)
    assert found.high == pytest.approx(theirs.confidence_interval.high, abs=tolerance)
    percentile = np.quantile(theirs.bootstrap_distribution, [0.025, 0.975])
    assert abs(percentile[1] - found.high) > tolerance


def test_with_denominators_of_one_a_ratio_is_a_mean():
    values = np.random.default_rng(1).exponential(1, 25)
    found, mean = ratio(pairs(values, np.ones(25))), paired(strata(values))
    assert found == pytest.approx((mean.difference, mean.low, mean.high))


def test_the_categories_of_a_scene_are_drawn_together():
    a, b = np.random.default_rng(2).exponential(1, (2, 20))
    once = pairs(a, b)
    assert ratio(once | {"rain": once["low"]}) == pytest.approx(ratio(once))
    apart = {f"other {scene}": pair for scene, pair in once["low"].items()}
    independent = ratio(once | {"rain": apart})
    assert independent.high - independent.low < 0.8 * (ratio(once).high - ratio(once).low)


def test_95_percent_of_the_intervals_of_a_ratio_hold_it():
    """Of 400 intervals 380 hold; the standard deviation of that number is 4.4. Both depend on the scene's strength."""
    random, held = np.random.default_rng(7), 0
    for trial in range(400):
        strength = random.gamma(4, 1, 60)
        found = ratio(pairs(strength * random.exponential(3, 60), strength + random.exponential(1, 60)), 600, trial)
        held += found.low <= 12 / 5 <= found.high
    assert held / 400 == pytest.approx(0.95, abs=0.03)


def test_where_a_ratio_has_no_interval():
    assert ratio(pairs([3], [2]))[0] == 1.5 and isnan(ratio(pairs([3], [2])).low)
    assert all(map(isnan, ratio(pairs([3, nan], [1, 1]))))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (({"low": {}},), "at least one image"),
        ((pairs([1, 2], [1, 0]),), "above 0, got 0"),
        ((pairs([1, 2], [1, 1]), 50), "ratio: resamples must be at least 100"),
    ],
)
def test_what_a_ratio_refuses(arguments, words):
    with pytest.raises(ValueError, match=words):
        ratio(*arguments)
