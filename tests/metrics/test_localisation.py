"""Correlation and average precision of maps with ground-truth masks: against other libraries and by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr

from f2d.metrics.localisation import Localisation, average_precision, localisation, located

SCORES = np.array([0.1, 0.4, 0.35, 0.8])


def by_definition(score: np.ndarray, positive: np.ndarray) -> float:
    """Σ_n (R_n - R_{n-1}) P_n, threshold by threshold."""
    area, before = 0.0, 0.0
    for threshold in sorted(set(score.tolist()), reverse=True):
        chosen = score >= threshold
        recall = (chosen & positive).sum() / positive.sum()
        area += (recall - before) * (chosen & positive).sum() / chosen.sum()
        before = recall
    return area


def random_pair(seed: int, shape=(23, 31), levels: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(seed)
    mask = torch.rand(shape, generator=draws)
    score = 0.4 * mask + 0.6 * torch.rand(shape, generator=draws)
    return score if levels is None else (score * levels).floor() / levels, mask


def test_average_precision_of_scikit_learns_own_example():
    """Its documentation: scores (0.1, 0.4, 0.35, 0.8) of (0, 0, 1, 1) give 0.83."""
    assert average_precision(SCORES, np.array([False, False, True, True])) == pytest.approx(0.5 + 0.5 * 2 / 3)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=40))
def test_average_precision_is_its_definition_with_ties(pixels):
    score, positive = (np.array(column) for column in zip(*pixels))
    found = average_precision(score.astype(float), positive)
    if positive.all() or not positive.any():
        assert math.isnan(found)
    else:
        assert found == pytest.approx(by_definition(score, positive), abs=1e-12)


@pytest.mark.parametrize("levels", [None, 16, 2])
def test_average_precision_is_that_of_torchmetrics(levels):
    functional = pytest.importorskip("torchmetrics.functional.classification")
    score, mask = random_pair(1, levels=levels)
    expected = functional.binary_average_precision(score.flatten(), (mask > 0.7).flatten().int())
    assert average_precision(score.numpy(), mask.numpy() > 0.7) == pytest.approx(float(expected), abs=1e-6)


def test_average_precision_laws():
    score, mask = (each.numpy() for each in random_pair(2))
    positive = mask > 0.8
    value = average_precision(score, positive)
    assert average_precision(np.exp(5 * score), positive) == value  # only the order counts
    assert average_precision(mask, positive) == 1
    assert average_precision(np.ones_like(score), positive) == pytest.approx(positive.mean())
    few = np.arange(5.0) < 2  # the two positives come last: at rank 4 and 5
    assert average_precision(np.arange(5.0), few) == pytest.approx((1 / 4 + 2 / 5) / 2)


def test_average_precision_of_nothing_to_rank_and_of_nan():
    assert math.isnan(average_precision(SCORES, np.zeros(4, bool)))
    assert math.isnan(average_precision(SCORES, np.ones(4, bool)))
    assert math.isnan(average_precision(np.array([0.1, math.nan, 0.3, 0.2]), np.arange(4) > 1))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_correlation_is_scipys(seed, offset):
    score, mask = (each.double() + offset for each in random_pair(seed))
    found = located(score, mask)
    assert found.correlation == pytest.approx(pearsonr(score.numpy().ravel(), mask.numpy().ravel())[0], abs=1e-9)
    assert found.map_mean == pytest.approx(float(score.mean()), rel=1e-12)
    assert found.true_variance == pytest.approx(float(mask.var(correction=0)), rel=1e-9)


def test_correlation_of_affine_maps():
    _, mask = random_pair(4)
    assert located(0.2 + 0.5 * mask, mask).correlation == pytest.approx(1, abs=1e-6)
    assert located(0.9 - 0.5 * mask, mask).correlation == pytest.approx(-1, abs=1e-6)
    assert located(mask, mask).correlation <= 1


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 1.0])
def test_a_constant_has_no_correlation(value):
    """0.1 summed and divided is not 0.1: a variance of rounding errors would give any correlation."""
    _, mask = random_pair(5, (37, 41))
    constant = torch.full_like(mask, value, dtype=torch.float64)
    for one, other in ((constant, mask), (mask, constant), (constant, constant)):
        assert math.isnan(located(one, other).correlation)
    assert located(constant, mask).average_precision == located(constant, mask).share
    assert math.isnan(located(mask, constant).average_precision)


def test_what_counts_as_degraded():
    mask = torch.tensor([[0.0, 0.25, 0.5, 0.75]])
    assert located(mask, mask, 0.25).share == 0.5  # above the threshold, not at it
    assert located(mask, mask).share == 0.5
    mostly_full = torch.tensor([[0.0, 1.0, 1.0, 1.0]])  # its median is 1, and nothing exceeds that
    assert located(mostly_full, mostly_full).share == 0.75
    assert located(mostly_full, mostly_full).average_precision == 1


def test_bfloat16_maps_are_taken_as_they_are():
    score, mask = random_pair(6)
    assert located(score.bfloat16(), mask, 0.5) == located(score.bfloat16().double(), mask, 0.5)


def test_pooled_correlation_is_that_of_all_pixels_together():
    pairs = [random_pair(seed, shape) for seed, shape in enumerate([(5, 7), (11, 3), (40, 20)])]
    pairs = [(score * (k + 1) / 3, mask**k) for k, (score, mask) in enumerate(pairs)]  # the first mask is constant
    found = localisation([(score.numel(), located(score, mask)) for score, mask in pairs])
    every = [torch.cat([pair[side].double().flatten() for pair in pairs]).numpy() for side in (0, 1)]
    assert found.pooled_correlation == pytest.approx(np.corrcoef(*every)[0, 1], abs=1e-12)
    assert abs(found.pooled_correlation - found.correlation) > 0.05


def test_means_leave_out_and_count_what_is_undefined():
    flat = torch.full((2, 2), 0.1)
    ramp = torch.tensor([[0.1, 0.2], [0.3, 0.4]])
    pictures = [located(ramp, ramp, 0.15), located(-ramp, ramp, 0.15), located(flat, ramp, 0.5), located(ramp, flat)]
    found = localisation([(4, one) for one in pictures])
    assert found.images == 4 and found.undefined == 2 and found.unranked == 2
    assert found.correlation == pytest.approx(0, abs=1e-7)
    worst = (1 / 2 + 2 / 3 + 3 / 4) / 3  # the three positives rank behind the only other pixel
    assert found.average_precision == pytest.approx((1 + worst) / 2)
    assert found.share == pytest.approx(0.75)


def test_equal_constants_have_no_pooled_correlation():
    """Even where the weighted mean of equal numbers is not that number."""
    flat = torch.tensor(0.3, dtype=torch.float64)
    pictures = [(size, located(flat.expand(size, 1), flat.expand(size, 1))) for size in (38, 19)]
    assert (38 * 0.3 + 19 * 0.3) / 57 != 0.3
    found = localisation(pictures)
    assert all(math.isnan(value) for value in found[1:5])
    assert found == Localisation(2, *found[1:5], 2, 2)


def test_what_does_not_fit_is_refused():
    with pytest.raises(
        ValueError, match=r"the map and its ground-truth mask must both be \[H,W\], got \(2, 3\) and \(3, 2\)"
    ):
        located(torch.ones(2, 3), torch.ones(3, 2))
    with pytest.raises(ValueError, match="must both be"):
        located(torch.ones(1, 2, 2), torch.ones(1, 2, 2))
    with pytest.raises(ValueError, match="at least one image"):
        localisation([])
