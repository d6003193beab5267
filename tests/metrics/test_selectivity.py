"""Selectivity: its three ratios on cases computed by hand."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from f2d.metrics.selectivity import DEFINITIONS, EPSILON, pairs_of, ratios

# K = 3 on 1x2 pixels; e of image 0: present 0.5·(1, 0), absent 0.3·(0.5, 0.5), 0.2·(0, 1)
GATES = torch.tensor([[0.5, 0.3, 0.2], [0.6, 0.2, 0.2]])
MAPS = torch.tensor([[[[1.0, 0.0]], [[0.5, 0.5]], [[0.0, 1.0]]], [[[1.0, 1.0]], [[1.0, 1.0]], [[0.5, 0.5]]]])
LABELS = torch.tensor([[1.0, 0, 0], [0, 1.0, 0]])
TRUE_MAPS = torch.zeros(2, 3, 1, 2)
TRUE_MAPS[0, 0, 0, 0] = 0.9  # the first pixel of image 0 alone
TRUE_MAPS[1, 1] = 0.06


def test_pairs_of_one_image_by_hand():
    pairs = pairs_of(GATES[0], MAPS[0], LABELS[0], TRUE_MAPS[0])
    assert list(pairs) == list(DEFINITIONS)
    assert pairs["present_absent"] == pytest.approx((0.25, (0.15 + 0.1) / 2))
    assert pairs["max_min"] == pytest.approx((0.25, 0.1))
    assert pairs["inside_masks"] == pytest.approx((0.5, (0.15 + 0.0) / 2))
    assert json.loads(json.dumps(pairs)) == {name: list(pair) for name, pair in pairs.items()}


def test_two_images_by_hand():
    values = ratios(map(pairs_of, GATES, MAPS, LABELS, TRUE_MAPS))
    present, absent = (0.25, 0.2), ((0.15 + 0.1) / 2, (0.6 + 0.1) / 2)
    expected = sum(present) / (sum(absent) + 2 * EPSILON)
    assert values["present_absent"].ratio == pytest.approx(expected, rel=1e-6)
    each = [p / (a + EPSILON) for p, a in zip(present, absent)]
    assert values["present_absent"].median == pytest.approx(sum(each) / 2, rel=1e-6)
    assert values["max_min"].ratio == pytest.approx((0.25 + 0.6) / (0.1 + 0.1 + 2 * EPSILON), rel=1e-6)
    inside, outside = (0.5, 0.2), ((0.15 + 0.0) / 2, (0.6 + 0.1) / 2)
    assert values["inside_masks"].ratio == pytest.approx(sum(inside) / (sum(outside) + 2 * EPSILON), rel=1e-6)


def test_what_does_not_apply_is_left_out():
    assert list(pairs_of(GATES[0], MAPS[0], LABELS[0])) == ["present_absent", "max_min"]
    assert list(pairs_of(GATES[0], MAPS[0], torch.ones(3), TRUE_MAPS[0])) == ["max_min"]
    assert list(pairs_of(GATES[0], MAPS[0], torch.zeros(3), TRUE_MAPS[0])) == ["max_min"]
    faint = torch.full_like(TRUE_MAPS[0], 0.05)  # not above the threshold
    assert list(pairs_of(GATES[0], MAPS[0], LABELS[0], faint)) == ["present_absent", "max_min"]


def test_a_set_counts_each_ratio_over_the_images_that_have_it():
    """(1 + 3) / (2 + 2); the median of three, not of what is missing."""
    values = ratios([{"max_min": (1.0, 2.0)}, {}, {"max_min": (3.0, 2.0), "present_absent": (5.0, 0.0)}])
    assert values["max_min"].ratio == pytest.approx(1, abs=1e-5)
    assert values["max_min"].median == pytest.approx(1, abs=1e-5)
    assert values["present_absent"].ratio == pytest.approx(5 / EPSILON)
    assert list(values) == ["present_absent", "max_min"] and ratios([]) == {}


def test_equal_experts_have_ratio_one():
    gates, maps = torch.full((2, 4), 0.25), torch.ones(2, 4, 3, 3)
    for ratio in ratios(map(pairs_of, gates, maps, torch.eye(4)[:2], maps)).values():
        assert ratio.ratio == pytest.approx(1, abs=1e-4) and ratio.median == pytest.approx(1, abs=1e-4)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.permutations(range(4)))
def test_the_order_of_the_factors_does_not_matter(seed, order):
    draws = torch.Generator().manual_seed(seed)
    gates, maps, true_maps = (torch.rand(shape, generator=draws) for shape in ((4,), (4, 5, 6), (4, 5, 6)))
    labels = (torch.rand(4, generator=draws) > 0.5).float()
    pairs = pairs_of(gates, maps, labels, true_maps)
    moved = pairs_of(gates[order], maps[order], labels[order], true_maps[order])
    assert list(pairs) == list(moved)
    for name, pair in pairs.items():
        assert moved[name] == pytest.approx(pair, rel=1e-12)
    assert pairs["max_min"][0] >= pairs["max_min"][1]


def test_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"gates \(4,\).*maps \(3, 2, 2\).*no true maps must be \[K\]"):
        pairs_of(torch.ones(4), torch.ones(3, 2, 2), torch.ones(4))
    with pytest.raises(ValueError, match=r"true maps \(4, 2, 3\) must be"):
        pairs_of(torch.ones(4), torch.ones(4, 2, 2), torch.ones(4), torch.ones(4, 2, 3))
    with pytest.raises(ValueError, match=r"gates \(4,\), labels \(3,\)"):
        pairs_of(torch.ones(4), torch.ones(4, 2, 2), torch.ones(3))


def test_the_number_of_threads_changes_no_bit():
    """Two processes with a thread each are to give the results of one with two."""
    draw = torch.Generator().manual_seed(0)
    maps, truth = (torch.rand(4, 321, 481, generator=draw) for _ in range(2))
    gates, labels = torch.rand(4, generator=draw), torch.tensor([1.0, 0.0, 1.0, 0.0])
    threads, found = torch.get_num_threads(), []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            found.append(pairs_of(gates, maps, labels, truth))
    finally:
        torch.set_num_threads(threads)
    assert found[0] == found[1] == found[2]
