"""Change and spread, on pictures whose numbers are known."""

import pytest
import torch

from f2d.metrics.variation import change, spread


def test_change_counts_grey_levels_of_what_a_file_can_hold():
    degraded = torch.full((3, 4, 5), 0.5)
    assert change(degraded + 10 / 255, degraded) == pytest.approx(10, rel=1e-5)
    assert change(degraded - 3, degraded) == pytest.approx(127.5, rel=1e-6)  # black
    assert change(degraded, degraded) == 0


def test_spread_is_the_standard_deviation_over_samples():
    g = torch.Generator().manual_seed(0)
    first, second = (7 / 255 * torch.randn(3, 400, 500, generator=g) for _ in range(2))
    assert spread(first, second) == pytest.approx(7, rel=0.01)
    assert spread(first, first) == 0
