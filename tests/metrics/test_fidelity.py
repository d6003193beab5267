"""PSNR, SSIM and absolute error: against scikit-image, torchmetrics and NumPy, known answers and laws."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchmetrics.functional.image import structural_similarity_index_measure

from f2d.images import to_picture, to_tensor
from f2d.metrics.fidelity import BITS, COLOURS, WINDOWS, Fidelity, planes
from tests.metrics.pictures import noisy, photograph

EVERY = [
    Fidelity(measure, colour, bits, window, border)
    for measure, windows in (("psnr", [None]), ("mae", [None]), ("ssim", WINDOWS))
    for colour in COLOURS
    for bits in BITS
    for window in windows
    for border in (0, 4)
]


@pytest.fixture(scope="module")
def pair():
    """Noise that leaves [0, 1], and the truth."""
    clean = photograph("astronaut", (150, 201))
    return noisy(clean, 25), clean


def reference(image: torch.Tensor, colour: str, bits: str, border: int) -> np.ndarray:
    """[H,W,C] float64 in [0, 1] by other means: NumPy's uint8, and scikit-image's colours."""
    x = np.moveaxis(image.numpy().astype(np.float64), 0, 2).clip(0, 1)
    if bits == "8bit":
        x = np.around(x.astype(np.float32) * np.float32(255)).astype(np.uint8).astype(np.float64) / 255
    x = x[border : x.shape[0] - border, border : x.shape[1] - border]
    if colour == "y":
        return np.average(x, axis=2, weights=(0.299, 0.587, 0.114))[..., None]
    return rgb2ycbcr(x)[..., :1] / 255 if colour == "y-studio" else x


@pytest.mark.parametrize("measure", EVERY, ids=lambda m: m.about.key.replace(" ", "-"))
def test_against_scikit_image(measure, pair):
    x, y = (reference(image, measure.colour, measure.bits, measure.border) for image in pair)
    if measure.measure == "psnr":
        expected = peak_signal_noise_ratio(y, x, data_range=1)
    elif measure.measure == "mae":
        expected = np.abs(x - y).mean()
    else:
        options = {"gaussian_weights": measure.window != "7x7", "use_sample_covariance": measure.window != "gaussian11"}
        expected = structural_similarity(y, x, data_range=1, channel_axis=2, **options)
    assert measure(*pair) == pytest.approx(expected, abs=1e-10)


def test_gaussian_ssim_against_torchmetrics(pair):
    """Its map mirrors the edges; inside, 5 pixels from them, it is the same."""
    pictures = [torch.from_numpy(planes(image, bits="float"))[None] for image in pair]
    _, full = structural_similarity_index_measure(*pictures, data_range=1.0, return_full_image=True)
    inside = full[..., 5:-5, 5:-5].mean()
    assert Fidelity("ssim", "rgb", "float", "gaussian11")(*pair) == pytest.approx(float(inside), abs=1e-10)


@pytest.mark.parametrize("window", WINDOWS)
def test_ssim_of_one_window_by_hand(window):
    """A picture as large as the window has one value, of weighted moments over all its pixels."""
    size = len(WINDOWS[window].weights)
    draws = np.random.default_rng(3)
    x, y = draws.random((2, 3, size, size)).astype(np.float32)
    place = np.arange(size) - size // 2
    w = np.ones(size) if window == "7x7" else np.exp(-(place**2) / 4.5)
    w = np.outer(w, w) / w.sum() ** 2
    correction = 1 if window == "gaussian11" else size**2 / (size**2 - 1)
    found = []
    for a, b in zip(x.astype(np.float64), y.astype(np.float64)):
        ma, mb = (w * a).sum(), (w * b).sum()
        va, vb, cab = (correction * (w * p * q).sum() for p, q in ((a - ma,) * 2, (b - mb,) * 2, (a - ma, b - mb)))
        found.append(
            (2 * ma * mb + 1e-4) * (2 * cab + 9e-4) / ((ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4)),
        )
    ours = Fidelity("ssim", "rgb", "float", window)(torch.from_numpy(x), torch.from_numpy(y))
    assert ours == pytest.approx(np.mean(found), abs=1e-12)


def test_ten_levels_are_28_13_decibels():
    dark, light = torch.full((3, 16, 16), 100 / 255), torch.full((3, 16, 16), 110 / 255)
    expected = 20 * math.log10(255 / 10)
    assert expected == pytest.approx(28.13, abs=0.005)
    for colour, bits in (("rgb", "8bit"), ("rgb", "float"), ("y", "8bit")):
        assert Fidelity("psnr", colour, bits)(light, dark) == pytest.approx(expected, abs=1e-5)
        assert Fidelity("mae", colour, bits)(light, dark) == pytest.approx(10 / 255, abs=1e-7)
    # in studio range ten levels are 10 · 219/255
    studio = expected + 20 * math.log10(255 / 219)
    assert Fidelity("psnr", "y-studio")(light, dark) == pytest.approx(studio, abs=1e-5)


@pytest.mark.parametrize(
    ("colour", "picture", "level"),
    [
        ("y-studio", (1, 1, 1), 235),
        ("y-studio", (0, 0, 0), 16),
        ("y-studio", (1, 0, 0), 81.481),
        ("y-studio", (0, 1, 0), 144.553),
        ("y-studio", (0, 0, 1), 40.966),
        ("y", (1, 1, 1), 255),
        ("y", (1, 0, 0), 76.245),
        ("y", (0, 1, 0), 149.685),
    ],
)
def test_lumas_of_pure_colours(colour, picture, level):
    """The published coefficients; not rounded, although the picture is."""
    image = torch.tensor(picture, dtype=torch.float32)[:, None, None].expand(3, 2, 2)
    assert planes(image, colour) * 255 == pytest.approx(np.full((1, 2, 2), level), abs=1e-9)


def test_eight_bits_and_float_differ_as_documented(pair):
    """Noise of less than half a level is gone after 8 bits, and not in float; above 1 and below 0 both clamp."""
    _, clean = pair
    faint = clean + (torch.rand(clean.shape, generator=torch.Generator().manual_seed(0)) - 0.5) * 0.98 / 255
    assert Fidelity("psnr")(faint, clean) == math.inf
    in_float = Fidelity("psnr", bits="float")(faint, clean)
    # uniform noise of width 0.98 levels; a little less of it where the clamp at 0 takes half
    assert in_float == pytest.approx(-10 * math.log10((0.98 / 255) ** 2 / 12), abs=0.3)
    outside = clean.clone()
    outside[clean == 1], outside[clean == 0] = 7.0, -7.0
    assert (outside != clean).any()
    assert all(Fidelity("psnr", bits=bits)(outside, clean) == math.inf for bits in BITS)


def test_eight_bits_are_those_of_the_file():
    """Ties too: 177.49999702 levels are 177.5 in float32, so a file holds 178."""
    draws = torch.Generator().manual_seed(1)
    restored, truth = 1.2 * torch.rand(2, 3, 300, 300, generator=draws) - 0.1
    restored[0, :16, :16] = ((torch.arange(256) + 0.5) / 255).view(16, 16)
    from_file = to_tensor(to_picture(restored))
    for colour in COLOURS:
        for measure in (Fidelity("psnr", colour), Fidelity("ssim", colour, "8bit", "7x7"), Fidelity("mae", colour)):
            assert measure(restored, truth) == measure(from_file, truth)


@pytest.mark.parametrize("measure", EVERY, ids=lambda m: m.about.key.replace(" ", "-"))
def test_equal_pictures(measure, pair):
    best = {"psnr": math.inf, "ssim": pytest.approx(1, abs=1e-12), "mae": 0}[measure.measure]
    assert measure(pair[1], pair[1]) == best


def test_a_border_is_a_crop(pair):
    for colour in COLOURS:
        for window in WINDOWS:
            whole = Fidelity("ssim", colour, "8bit", window, 4)(*pair)
            cropped = Fidelity("ssim", colour, "8bit", window)(*(image[:, 4:-4, 4:-4] for image in pair))
            assert whole == cropped


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**31),
    st.sampled_from(list(WINDOWS)),
    st.sampled_from(list(COLOURS)),
    st.floats(0, 2),
    st.booleans(),
)
def test_ssim_is_symmetric_and_at_most_one(seed, window, colour, scale, inverted):
    draws = torch.Generator().manual_seed(seed)
    x = torch.rand(3, 13, 17, generator=draws) * scale
    y = 1 - x if inverted else (x + 0.3 * torch.randn(x.shape, generator=draws))
    measure = Fidelity("ssim", colour, "float", window)
    forward = measure(x, y)
    assert forward == measure(y, x) and -1 <= forward <= 1 + 1e-12


@settings(max_examples=15, deadline=None)
@given(st.sampled_from([m for m in EVERY if m.measure != "mae" and m.border == 0]), st.integers(0, 99))
def test_more_of_the_same_noise_is_worse(measure, seed):
    clean = photograph("coffee", (48, 64))
    values = [measure(noisy(clean, sigma, seed), clean) for sigma in (2, 8, 20, 50)]
    assert values == sorted(values, reverse=True) and len(set(values)) == 4


@pytest.mark.parametrize("window", WINDOWS)
def test_pictures_smaller_than_the_window_have_no_ssim(window):
    size = len(WINDOWS[window].weights)
    image = torch.rand(3, size, size + 5)
    assert Fidelity("ssim", "rgb", "8bit", window)(image, image) == pytest.approx(1)
    assert math.isnan(Fidelity("ssim", "rgb", "8bit", window)(image[:, 1:], image[:, 1:]))
    assert math.isnan(Fidelity("psnr", border=4)(image[:, :8], image[:, :8]))


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"measure must be one of .*'psnr'.*got 'lpips'"):
        Fidelity("lpips")
    with pytest.raises(ValueError, match=r"colour must be one of .*'rgb', 'y', 'y-studio'.*got 'bgr'"):
        Fidelity("psnr", "bgr")
    with pytest.raises(ValueError, match=r"bits must be one of .*got '10bit'"):
        Fidelity("psnr", bits="10bit")
    with pytest.raises(ValueError, match=r"window must be one of .*'7x7'.*got None"):
        Fidelity("ssim")
    with pytest.raises(ValueError, match=r"window must be one of .None.*got '7x7'"):
        Fidelity("psnr", window="7x7")
    with pytest.raises(ValueError, match=r"border must be 0 or more pixels, got -1"):
        Fidelity("psnr", border=-1)
    image = torch.rand(3, 8, 8)
    for restored, truth in ((image, image[:, :7]), (image, None), (image[None], image[None]), (image[:1], image[:1])):
        with pytest.raises(ValueError, match=r"psnr y float: .* must have the same shape"):
            Fidelity("psnr", "y", "float")(restored, truth)


def test_keys_spell_everything_and_differ():
    assert Fidelity("psnr").about.key == "psnr rgb 8bit"
    assert Fidelity("ssim", "y", "float", "7x7").about.key == "ssim y float 7x7"
    about = Fidelity("ssim", "y-studio", "8bit", "gaussian11", 4).about
    assert about == ("ssim y-studio 8bit gaussian11 border4", "SSIM Y studio 8bit gaussian11 border4", "higher", "", 4)
    assert len({m.about.key for m in EVERY}) == len({m.about.title for m in EVERY}) == len(EVERY)


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_any_number_of_threads_gives_the_same_bits(threads):
    x, y = torch.rand(2, 3, 181, 242, generator=torch.Generator().manual_seed(0))
    values = []
    for count in (1, 2, 5):
        threads(count)
        values.append([measure(x, y) for measure in EVERY if measure.border == 0])
    assert values[0] == values[1] == values[2]
