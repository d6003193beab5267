"""The affine colour oracle: maps that it undoes, NumPy's least squares, and what it cannot do."""

import math

import numpy as np
import pytest
import torch

from f2d.metrics.colour import AFFINE_PSNR, affine_colour_oracle
from f2d.metrics.fidelity import Fidelity
from tests.metrics.pictures import noisy, photograph


def random(*size: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(size, generator=torch.Generator().manual_seed(seed))


def test_it_undoes_an_affine_colour_map():
    truth = random(3, 20, 30)
    mixing = torch.tensor([[0.3, 0.1, 0.0], [0.05, 0.4, 0.1], [0.0, 0.1, 0.35]])
    image = torch.einsum("cd,dhw->chw", mixing, truth) + 0.2
    torch.testing.assert_close(affine_colour_oracle(image, truth), truth, atol=1e-5, rtol=0)


def test_it_is_the_least_squares_solution():
    image, truth = random(3, 8, 9, seed=1), random(3, 8, 9, seed=2) * 0.4 + 0.3
    columns = np.c_[image.reshape(3, -1).T.double().numpy(), np.ones(72)]
    expected = columns @ np.linalg.lstsq(columns, truth.reshape(3, -1).T.double().numpy(), rcond=None)[0]
    np.testing.assert_allclose(affine_colour_oracle(image, truth).reshape(3, -1).T, expected, atol=1e-6)


def test_of_a_black_image_it_is_the_mean_colour():
    truth = random(3, 8, 8, seed=2)
    expected = truth.mean((1, 2), keepdim=True).expand_as(truth)
    torch.testing.assert_close(affine_colour_oracle(torch.zeros_like(truth), truth), expected)


def test_the_measure_forgives_colours_and_nothing_else():
    """Light halved comes back to within 8 bits (1/12 of a level² is 58.9 dB); of noise the mean of three channels keeps
    a third (4.8 dB)."""
    clean, plain = photograph("coffee", (64, 80)), Fidelity("psnr")
    assert AFFINE_PSNR(clean, clean) == math.inf
    assert plain(clean * 0.5, clean) < 20 and AFFINE_PSNR(clean * 0.5, clean) > 58
    damaged = noisy(clean, 25)
    assert plain(damaged, clean) < AFFINE_PSNR(damaged, clean) < plain(damaged, clean) + 4.8
    with pytest.raises(ValueError, match="psnr affine: restored image and ground truth must have the same shape"):
        AFFINE_PSNR(clean, None)


def test_the_number_of_threads_changes_no_bit():
    image, truth = random(3, 321, 481, seed=3), random(3, 321, 481, seed=4)
    threads, found = torch.get_num_threads(), set()
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            found.add(AFFINE_PSNR(image, truth))
    finally:
        torch.set_num_threads(threads)
    assert len(found) == 1
