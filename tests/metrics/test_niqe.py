"""NIQE: a second implementation, fits of samples of known distributions, and the order it puts pictures in."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.io import loadmat

from f2d.images import to_picture, to_tensor
from f2d.metrics.niqe import NIQE, _natural, fit_asymmetric, niqe
from tests.metrics import niqe_reference
from tests.metrics.pictures import noisy, photograph

PUBLISHED = "data/metrics/niqe/frames_modelparameters.mat"


@pytest.mark.parametrize(("photo", "sigma"), [("chelsea", 0), ("coffee", 3), ("chelsea", 25), ("astronaut", 10)])
def test_a_second_implementation(shared, photo, sigma):
    """Real and noisy photographs without flat areas, where both are well defined."""
    levels = np.array(to_picture(noisy(photograph(photo), sigma)))
    # a luma that ends in exactly .5 is rounded by floating-point noise: one level of blue less, and none does
    ties = levels @ np.array([299, 587, 114]) % 1000 == 500
    levels[..., 2] -= (ties & (levels[..., 2] > 0)).astype(np.uint8)
    levels[..., 2] += (ties & (levels[..., 2] == 0)).astype(np.uint8)
    image = torch.from_numpy(levels).permute(2, 0, 1) / 255
    assert niqe(image) == pytest.approx(niqe_reference.niqe(levels, shared / PUBLISHED), abs=1e-4)


def test_the_parameters_are_those_published(shared):
    published = loadmat(shared / PUBLISHED)
    mean, covariance = _natural()
    assert np.array_equal(mean, published["mu_prisparam"].ravel())
    assert np.array_equal(covariance, published["cov_prisparam"])


def test_as_a_measure_it_sees_what_a_file_holds():
    picture = noisy(photograph("chelsea", (200, 230)), 20)
    measure = NIQE
    assert measure(picture, None) == measure(to_tensor(to_picture(picture))) == niqe(to_tensor(to_picture(picture)))
    assert not measure.needs_ground_truth and measure.about.better == "lower"
    assert math.isnan(measure(picture[:, :191])) and math.isnan(measure(picture[:, :, :191]))
    assert math.isfinite(measure(picture[:, :192, :192]))


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
    image = photograph(photo)
    noise = 0.1 * torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    noisy, blurred = (image + noise).clamp(0, 1), torch.nn.functional.avg_pool2d(image[None], 7, 1, 3)[0]
    natural = niqe(image)
    assert 2 < natural < 7 and niqe(noisy) > natural + 3 and niqe(blurred) > natural + 1


def test_flat_patches_do_not_count():
    image = photograph("astronaut").clone()
    image[:, :200] = 1.0
    assert 2 < niqe(image) < 12
    assert np.isnan(niqe(torch.ones(3, 200, 200)))


def test_small_pictures_are_refused():
    with pytest.raises(ValueError, match=r"niqe: the image must be .* at least 192, got \(3, 100, 300\)"):
        niqe(torch.zeros(3, 100, 300))
