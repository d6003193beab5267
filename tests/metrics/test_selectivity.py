"""Selectivity: its three ratios on cases computed by hand."""

import math

import pytest
import torch

from f2d.metrics.selectivity import EPSILON, Selectivity


def test_two_images_by_hand():
    """K = 3 on 1x2 pixels; e of image 0: present 0.5·(1, 0), absent 0.3·(0.5, 0.5), 0.2·(0, 1)."""
    found = Selectivity()
    gates = torch.tensor([[0.5, 0.3, 0.2], [0.6, 0.2, 0.2]])
    maps = torch.tensor([[[[1.0, 0.0]], [[0.5, 0.5]], [[0.0, 1.0]]], [[[1.0, 1.0]], [[1.0, 1.0]], [[0.5, 0.5]]]])
    labels = torch.tensor([[1.0, 0, 0], [0, 1.0, 0]])
    true_maps = torch.zeros(2, 3, 1, 2)
    true_maps[0, 0, 0, 0] = 0.9  # the first pixel of image 0 alone
    true_maps[1, 1] = 0.06
    found.update(gates, maps, labels, true_maps)
    ratios = found.compute()

    present, absent = (0.25, 0.2), ((0.15 + 0.1) / 2, (0.6 + 0.1) / 2)
    expected = sum(present) / (sum(absent) + 2 * EPSILON)
    assert ratios["present_absent"].ratio == pytest.approx(expected, rel=1e-6)
    each = [p / (a + EPSILON) for p, a in zip(present, absent)]
    assert ratios["present_absent"].median == pytest.approx(sum(each) / 2, rel=1e-6)
    assert ratios["max_min"].ratio == pytest.approx((0.25 + 0.6) / (0.1 + 0.1 + 2 * EPSILON), rel=1e-6)
    inside, outside = (0.5, 0.2), ((0.15 + 0.0) / 2, (0.6 + 0.1) / 2)
    assert ratios["inside_masks"].ratio == pytest.approx(sum(inside) / (sum(outside) + 2 * EPSILON), rel=1e-6)


def test_equal_experts_have_ratio_one():
    found = Selectivity()
    found.update(torch.full((2, 4), 0.25), torch.ones(2, 4, 3, 3), torch.eye(4)[:2], torch.ones(2, 4, 3, 3))
    for ratio in found.compute().values():
        assert ratio.ratio == pytest.approx(1, abs=1e-4) and ratio.median == pytest.approx(1, abs=1e-4)


def test_images_without_absent_factors_count_for_max_min_alone():
    found = Selectivity()
    found.update(torch.tensor([[0.75, 0.25]]), torch.ones(1, 2, 2, 2), torch.ones(1, 2), torch.ones(1, 2, 2, 2))
    ratios = found.compute()
    assert ratios["max_min"].ratio == pytest.approx(3, rel=1e-4)
    assert math.isnan(ratios["present_absent"].ratio) and math.isnan(ratios["inside_masks"].median)


def test_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"gates \(2, 4\).*do not fit; give \[B,K\]"):
        Selectivity().update(torch.ones(2, 4), torch.ones(2, 3, 2, 2), torch.ones(2, 4), torch.ones(2, 3, 2, 2))
