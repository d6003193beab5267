"""NIQE: its fits on samples of known distributions, and the order it puts pictures in."""

import numpy as np
import pytest
import torch
from scipy import stats
from skimage import data

from f2d.metrics.niqe import fit_asymmetric, niqe


@pytest.mark.parametrize("shape", [0.8, 2.0])
def test_the_fit_finds_a_generalised_gaussian(shape):
    """Density exp(-|x / scale|^shape), as scipy has it; 4·10^5 samples."""
    values = stats.gennorm.rvs(shape, scale=0.7, size=400_000, random_state=np.random.default_rng(1))
    fitted, left, right = fit_asymmetric(values)
    assert fitted == pytest.approx(shape, rel=0.02)
    assert left == pytest.approx(0.7, rel=0.02) and right == pytest.approx(0.7, rel=0.02)


def test_the_fit_finds_different_sides():
    """The asymmetric density has weight proportional to the scale on each side."""
    draws = np.random.default_rng(2)
    magnitude = np.abs(stats.gennorm.rvs(1.5, size=400_000, random_state=draws))
    values = np.where(draws.random(400_000) < 0.2 / 0.7, -0.2 * magnitude, 0.5 * magnitude)
    fitted, left, right = fit_asymmetric(values)
    assert (fitted, left, right) == (
        pytest.approx(1.5, rel=0.03),
        pytest.approx(0.2, rel=0.03),
        pytest.approx(0.5, rel=0.03),
    )


@pytest.mark.parametrize("photo", ["astronaut", "coffee", "chelsea"])
def test_noise_and_blur_are_less_natural_than_the_photograph(photo):
    image = torch.from_numpy(getattr(data, photo)()).permute(2, 0, 1) / 255
    noise = 0.1 * torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    noisy, blurred = (image + noise).clamp(0, 1), torch.nn.functional.avg_pool2d(image[None], 7, 1, 3)[0]
    natural = niqe(image)
    assert 2 < natural < 7 and niqe(noisy) > natural + 3 and niqe(blurred) > natural + 1


def test_flat_patches_do_not_count():
    image = torch.from_numpy(data.astronaut()).permute(2, 0, 1) / 255
    image[:, :200] = 1.0
    assert 2 < niqe(image) < 12
    assert np.isnan(niqe(torch.ones(3, 200, 200)))


def test_small_pictures_are_refused():
    with pytest.raises(ValueError, match=r"niqe: the image is \(3, 100, 300\); .* at least 192"):
        niqe(torch.zeros(3, 100, 300))
