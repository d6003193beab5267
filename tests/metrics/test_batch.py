"""The measures of batches: sample by sample those of one picture."""

import math

import pytest
import torch
from torchmetrics.functional.image import peak_signal_noise_ratio

from f2d.metrics import luma, psnr, sharpness, ssim
from f2d.metrics.batch import eight_bits
from f2d.metrics.fidelity import Fidelity, planes
from tests.metrics.pictures import noisy, photograph


@pytest.fixture(scope="module")
def pair():
    clean = torch.stack([photograph(name, (96, 120)) for name in ("astronaut", "coffee")])
    return noisy(clean, 25), clean


def test_psnr_is_that_of_one_picture(pair):
    expected = [Fidelity("psnr")(*each) for each in zip(*pair)]
    assert psnr(*pair).tolist() == pytest.approx(expected, abs=1e-9)
    levels = [eight_bits(image) for image in pair]
    library = peak_signal_noise_ratio(*levels, data_range=1.0, dim=(1, 2, 3), reduction="none")
    assert psnr(*pair).tolist() == pytest.approx(library.tolist(), abs=1e-4)


def test_ssim_has_its_edges_mirrored(pair):
    """The picture mirrored by 5 pixels, without its edges, is what `ssim` averages over."""
    mirrored = [torch.nn.functional.pad(image.clamp(0, 1), (5,) * 4, mode="reflect") for image in pair]
    expected = [Fidelity("ssim", "rgb", "float", "gaussian11")(*each) for each in zip(*mirrored)]
    found = ssim(*(image.clamp(0, 1) for image in pair)).tolist()
    assert found == pytest.approx(expected, abs=1e-5)


def test_autocast_changes_no_measure(pair):
    """Training validates under autocast, in which convolutions and products would round to bfloat16."""
    for measure in (psnr, ssim, sharpness):
        with torch.autocast("cpu", torch.bfloat16):
            found = measure(*pair)
        assert torch.equal(found, measure(*pair)), measure.__name__


def test_luma_is_that_of_one_picture(pair):
    expected = planes(pair[1][0], "y", "float")
    assert torch.allclose(luma(pair[1])[0].double(), torch.from_numpy(expected), atol=1e-6)


def test_eight_bits():
    assert (eight_bits(torch.tensor([-1.0, 0.4 / 255, 0.6 / 255, 254.6 / 255, 3.0])) * 255).tolist() == pytest.approx(
        [0, 0, 1, 255, 255]
    )


def test_sharpness_of_known_pictures(pair):
    """Contrast halved has a quarter of the energy; a slope of s per pixel across has s²."""
    _, clean = pair
    assert sharpness(0.5 * clean, clean).tolist() == pytest.approx([0.25, 0.25], abs=1e-6)
    slope = torch.linspace(0, 1, 11).expand(1, 3, 5, 11)
    assert float(sharpness(slope, slope.flip(3) / 2)) == pytest.approx(4, abs=1e-5)
    assert (sharpness(torch.nn.functional.avg_pool2d(clean, 3, 1, 1), clean) < 0.9).all()


def test_sharpness_beside_a_constant_photograph_is_undefined(pair):
    """The smallest noise over a black photograph counted as 1e7 times as sharp, and spoiled the mean of all others."""
    _, clean = pair
    black = torch.stack([clean[0], torch.zeros_like(clean[1])])
    one, other = sharpness(clean, black).tolist()
    assert one == 1 and math.isnan(other) and math.isnan(float(sharpness(black, black)[1]))
