"""Conventions: against the libraries that the papers' evaluation code calls, in the way it calls them."""

import numpy as np
import pytest
from scipy.ndimage import correlate1d
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from f2d.metrics.conventions import CONVENTIONS
from tests.metrics.pictures import noisy, photograph


@pytest.fixture(scope="module")
def pair():
    clean = photograph("coffee", (140, 180))
    return noisy(clean, 25), clean


def _levels(image) -> np.ndarray:
    """[H,W,3] uint8, as a file would hold it."""
    return np.moveaxis((image.clamp(0, 1) * 255).round().byte().numpy(), 0, 2)


def _scikit(restored, truth, **options):
    restored, truth = (np.moveaxis(image.clamp(0, 1).double().numpy(), 0, 2) for image in (restored, truth))
    return (
        peak_signal_noise_ratio(truth, restored, data_range=1),
        structural_similarity(truth, restored, data_range=1, channel_axis=2, **options),
    )


def _onerestore(restored, truth):
    restored, truth = (_levels(image) / 255.0 for image in (restored, truth))
    return (
        peak_signal_noise_ratio(truth, restored, data_range=1.0),
        structural_similarity(truth, restored, win_size=7, channel_axis=-1, data_range=1.0),
    )


def _f2dnet(restored, truth):
    restored, truth = (_levels(image) @ np.array([0.299, 0.587, 0.114]) for image in (restored, truth))
    return (
        peak_signal_noise_ratio(truth, restored, data_range=255),
        structural_similarity(truth, restored, data_range=255),
    )


def _as_matlab(restored, truth, studio: bool):
    """On 0..255, 4 pixels cut off; luma of MATLAB's rgb2ycbcr for floating point, which does not round."""
    if studio:
        coefficients = np.array([65.481, 128.553, 24.966]) / 255
        x, y = (_levels(image)[4:-4, 4:-4] @ coefficients + 16 for image in (restored, truth))
    else:
        x, y = (_levels(image)[4:-4, 4:-4].astype(np.float64) for image in (restored, truth))
    kernel = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    kernel /= kernel.sum()

    def blurred(z):
        return correlate1d(correlate1d(z, kernel, axis=0), kernel, axis=1)[5:-5, 5:-5]

    mx, my = blurred(x), blurred(y)
    vx, vy, cxy = blurred(x * x) - mx**2, blurred(y * y) - my**2, blurred(x * y) - mx * my
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = (2 * mx * my + c1) * (2 * cxy + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    return 20 * np.log10(255 / np.sqrt(np.mean((x - y) ** 2))), values.mean()


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("onerestore", _onerestore),
        ("moce-ir", lambda *pair: _scikit(*pair, gaussian_weights=True)),
        ("promptir", _scikit),
        ("f2dnet", _f2dnet),
        ("ir-sde", lambda *pair: _as_matlab(*pair, studio=False)),
        ("weatherbench", lambda *pair: _as_matlab(*pair, studio=True)),
    ],
)
def test_own_colour_is_what_the_paper_computes(name, own, pair):
    psnr, ssim = CONVENTIONS[name].measures[:2]
    assert (psnr(*pair), ssim(*pair)) == pytest.approx(own(*pair), abs=1e-6)


def test_rgb_and_luma_lie_side_by_side():
    for name, convention in CONVENTIONS.items():
        kinds = [(m.measure, m.colour) for m in convention.measures]
        own, other = kinds[0][1], kinds[2][1]
        assert kinds == [("psnr", own), ("ssim", own), ("psnr", other), ("ssim", other)]
        assert "rgb" in (own, other) and own != other, name
        assert convention.text.startswith("RGB" if own == "rgb" else "Y")
        assert convention.keys == [m.about.key for m in convention.measures]


def test_no_two_conventions_agree_on_a_real_picture_unless_they_share_the_key(pair):
    values = {}
    for convention in CONVENTIONS.values():
        for measure in convention.measures:
            values.setdefault(measure.about.key, measure(*pair))
    assert len(values) == len(set(values.values())) == 14
    assert set(CONVENTIONS["onerestore"].keys) == set(CONVENTIONS["f2dnet"].keys)
    assert set(CONVENTIONS["ir-sde"].keys) == set(CONVENTIONS["weatherbench"].keys)
