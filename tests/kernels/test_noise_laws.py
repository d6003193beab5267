"""The position-keyed generator by statistics and at drawn keys and positions."""

import math

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from f2d_kernels.reference.philox import normal

from .textbook_noise import drawn, textbook_eps
from .tolerances import NORMAL


def test_noise_is_standard_normal_and_independent_between_neighbours():
    eps = normal(torch.Size((1, 3, 512, 512)), torch.tensor([2026]), 0, 0, 0)[0].numpy()
    assert stats.kstest(eps.ravel(), "norm").pvalue > 1e-3
    for shift in ((0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 0, 2), (0, 0, 4)):
        correlation = np.corrcoef(eps.ravel(), np.roll(eps, shift, (0, 1, 2)).ravel())[0, 1]
        assert abs(correlation) < 5 / math.sqrt(eps.size)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(-(2**63), 2**64 - 1),
    stream=st.integers(0, 65535),
    top=st.integers(0, 2**31 - 1),
    left=st.integers(0, 2**31 - 1),
)
def test_any_key_and_position_gives_the_textbook_value(seed, stream, top, left):
    eps = drawn((1, 1, 1, 5), seed, stream=stream, window=(top, left))
    for x in range(5):
        assert abs(float(eps[0, 0, 0, x]) - textbook_eps(seed, stream, 0, 0, top, left + x)) <= NORMAL
