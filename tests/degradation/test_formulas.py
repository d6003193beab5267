"""Every formula against float64 derivations, SciPy and known answers."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.signal import convolve2d
from scipy.special import expit
from scipy.stats import binomtest, kstest
from torch.nn.functional import interpolate

from f2d.degradation import CATEGORIES, degrade, fields, haze, low_light, particles, rain, snow
from f2d.degradation.particles import line_kernel
from tests.degradation import oracle

CPU = torch.device("cpu")
SIZES = [(1, 1), (1, 30), (2, 3), (9, 14), (21, 22), (23, 40), (64, 50)]  # below, at and above the window of 22


def image(height, width, seed=0, channels=3):
    return np.random.default_rng(seed).random((height, width, channels)).astype(np.float32)


def plane(height, width, seed):
    return image(height, width, seed, 1)[..., 0]


def to_tensor(array):
    array = array[..., None] if array.ndim == 2 else array
    return torch.from_numpy(array).permute(2, 0, 1)[None]


def to_array(tensor):
    return tensor[0].permute(1, 2, 0).double().numpy()


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("size", [1, 3, 4, 22])
def test_box_is_the_mean_inside_the_window(shape, size):
    x = plane(*shape, 1)
    np.testing.assert_allclose(fields.box(to_tensor(x), size)[0, 0].numpy(), oracle.box(x, size), atol=3e-7)


def test_even_window_reaches_up_and_left():
    x = torch.zeros(1, 1, 60, 60)
    x[0, 0, 30, 30] = 22 * 22
    rows, columns = (fields.box(x, 22)[0, 0] > 0.5).nonzero().unbind(1)
    # pixel i averages i-11 .. i+10, so pixel 30 counts for 20 .. 41
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (20, 41, 20, 41)


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize(("size", "eps"), [(3, 0.01), (8, 1e-3)])
def test_guided_filter(shape, size, eps):
    guide, x = plane(*shape, 2), plane(*shape, 3)
    ours = fields.guided_filter(to_tensor(guide), to_tensor(x), size, eps)[0, 0].numpy()
    # float32 products round at 6e-8, and a variance of 0 leaves eps alone to divide by
    np.testing.assert_allclose(ours, oracle.guided_filter(guide, x, size, eps), atol=1e-6 + 3e-7 / eps)


def test_guided_filter_keeps_what_the_guide_has():
    x = torch.rand(1, 1, 30, 30, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(fields.guided_filter(x, 0.2 + 0.6 * x, 5, 1e-9), 0.2 + 0.6 * x, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("shape", "kernel"), [((1, 1), 1), ((1, 1), 9), ((7, 20), 5), ((33, 31), 17), ((140, 92), 37)])
def test_convolve_is_scipys(shape, kernel):
    generator = torch.Generator().manual_seed(0)
    weights = torch.rand(kernel, kernel, generator=generator)
    canvas = torch.rand(1, *particles.canvas_for(kernel, *shape), generator=generator)
    ours = particles.convolve(canvas, weights.numpy())
    assert ours.shape == (1, *shape)
    expected = convolve2d(canvas[0].double(), weights.double(), mode="valid")
    np.testing.assert_allclose(ours[0], expected, atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize("drops", [0, 1, 40, 1500])  # one by one, and so many that their canvas is convolved
def test_draw_is_scipys_convolution(drops):
    random, (height, width) = np.random.default_rng(drops), (31, 44)
    kernel = line_kernel(14, 0.4, 0.6)
    rows, columns = particles.canvas_for(len(kernel), height, width)
    places = np.sort(random.choice(rows * columns, drops, replace=False))
    brightness = random.random(drops).astype(np.float32)
    canvas = np.zeros((rows, columns))
    canvas.flat[places] = brightness
    ours = particles.draw(places, brightness, kernel, height, width)
    assert ours.shape == (height, width) and ours.dtype == np.float32
    np.testing.assert_allclose(ours, convolve2d(canvas, kernel.astype(np.float64), mode="valid"), atol=1e-6)


def test_particles_fall_independently_and_uniformly():
    places, brightness = particles.fall(fields.Draws(0, "fall", CPU), (400, 500), 0.01)
    assert binomtest(len(places), 400 * 500, 0.01).pvalue > 1e-3
    assert len(set(places.tolist())) == len(places)
    assert kstest(brightness, "uniform").pvalue > 1e-3
    for coordinate, length in ((places // 500, 400), (places % 500, 500)):
        assert kstest((coordinate + 0.5) / length, "uniform").pvalue > 1e-3
    assert particles.fall(fields.Draws(0, "fall", CPU), (9, 9), 0.0)[0].size == 0


@pytest.mark.parametrize("blur", [1.0, 6.0])
def test_a_moving_disc_is_the_disc_smeared(blur):
    motion = line_kernel(blur, 0.5, 0.7)
    rows, columns = np.mgrid[-4:5, -4:5]
    disc = expit((2.4 - np.hypot(rows, columns)) / 0.8)
    expected = convolve2d(disc, motion.astype(np.float64)) * (1 + blur / (4 * 2.4))
    np.testing.assert_allclose(snow._moving_disc(2.4, 0.8, 4, motion, blur), expected, atol=1e-6)


@pytest.mark.parametrize("angle", [0.0, 0.5, -0.9, math.pi / 2])
@pytest.mark.parametrize("length", [12.0, 30.0])
def test_line_kernel_is_a_line(length, angle):
    kernel = line_kernel(length, angle, 0.6).astype(np.float64)
    assert kernel.sum() == pytest.approx(1, abs=1e-5) and kernel.min() >= 0
    np.testing.assert_allclose(kernel, kernel[::-1, ::-1], atol=1e-7)
    steps = np.arange(len(kernel)) - len(kernel) // 2
    rows, columns = np.meshgrid(steps, steps, indexing="ij")
    moments = [[(kernel * a * b).sum() for a in (rows, columns)] for b in (rows, columns)]
    values, vectors = np.linalg.eigh(moments)
    assert abs(vectors[:, 1] @ [math.cos(angle), math.sin(angle)]) > 0.999
    # a line with sharp ends has the variance length²/12, logistic ends add pi²/3; upright lines' ends are cut off
    assert 0.95 * length**2 / 12 < values[1] < length**2 / 12 + math.pi**2 / 3
    assert values[0] < 0.6


def test_power():
    base = torch.tensor([0.0, 1e-7, 0.3, 1.0, 7.0])
    for exponent in (0.7, 1.5, 3.0):
        np.testing.assert_allclose(fields.power(base, exponent), base.double() ** exponent, rtol=6e-6)


@pytest.mark.parametrize("shape", [(2, 2), (17, 40)])
def test_smooth_field_fills_the_unit_interval_smoothly(shape):
    field = fields.smooth_field(fields.BatchDraws([3], "field", CPU), *shape)
    assert field.min() == 0 and field.max() == 1
    large = fields.smooth_field(fields.BatchDraws([3], "field", CPU), 400, 400)
    assert max(large.diff(dim=axis).abs().max() for axis in (2, 3)) < 0.08  # 16 cells of 25 pixels: no jumps


@pytest.mark.parametrize("shape", [(2, 2), (3, 41), (37, 20)])
def test_smooth_field_is_enlarged_bicubically(shape):
    """One octave is PyTorch's own enlargement of the grid, and four of them are added with their weights."""
    for octaves in (1, 4):
        stream = fields.Draws(5, "field", CPU)
        grids = [stream.rand(1, 1, 2**k + 1, 2**k + 1) for k in range(1, octaves + 1)]
        enlarged = [interpolate(grid.double(), shape, mode="bicubic", align_corners=True) for grid in grids]
        total = sum(0.5**k * grid for k, grid in enumerate(enlarged))
        total = (total - total.min()) / (total.max() - total.min())
        ours = fields.smooth_field(fields.BatchDraws([5], "field", CPU), *shape, octaves=octaves)
        np.testing.assert_allclose(ours, total, atol=1e-5)


@pytest.mark.parametrize("shape", SIZES)
def test_low(shape):
    clean, light = image(*shape, 4), plane(*shape, 5)
    x, lost = low_light.darken(
        to_tensor(clean),
        to_tensor(light),
        [{"gamma": 2.4, "noise": 0.0, "exposure": 0.4}],
        fields.BatchDraws([0], "x", CPU),
    )
    expected, expected_lost = oracle.low(clean, light, 2.4, 0)
    np.testing.assert_allclose(to_array(x), 0.4 * expected, atol=3e-5)  # no value is above 1 without the exposure
    np.testing.assert_allclose(lost[0, 0], 1 - 0.4 * (1 - expected_lost), atol=6e-5)


def test_low_clamps_a_negative_level():
    # a light map that contradicts a picture of few bright points: the lines fitted through them overshoot
    light = plane(20, 20, 14)
    clean = np.repeat((plane(20, 20, 15) > 0.8).astype(np.float32)[..., None], 3, axis=2)
    assert oracle.guided_filter(light, clean @ [0.114, 0.587, 0.299], 3, 0.01).min() < -0.01
    parameters = [{"gamma": 2.5, "noise": 0.0, "exposure": 1.0}]
    x, lost = low_light.darken(to_tensor(clean), to_tensor(light), parameters, fields.BatchDraws([0], "x", CPU))
    np.testing.assert_allclose(to_array(x), oracle.low(clean, light, 2.5, 0)[0], atol=3e-5)
    assert lost.max() == 1


def test_noise_is_normal_of_the_drawn_deviation():
    clean, light, n = torch.full((1, 3, 80, 80), 0.9), torch.full((1, 1, 80, 80), 0.9), 3 * 80 * 80
    quiet, _ = low_light.darken(
        clean, light, [{"gamma": 2.0, "noise": 0.0, "exposure": 1.0}], fields.BatchDraws([1], "x", CPU)
    )
    noisy, _ = low_light.darken(
        clean, light, [{"gamma": 2.0, "noise": 0.03, "exposure": 1.0}], fields.BatchDraws([1], "x", CPU)
    )
    noise = (noisy - quiet).double().flatten().numpy()  # 0.81 ± 0.03: the clip at 1 is 6 deviations away
    assert abs(noise.mean()) < 4 * 0.03 / n**0.5 and noise.std() == pytest.approx(0.03, rel=0.03)
    assert kstest(noise / 0.03, "norm").pvalue > 1e-3
    red, green = noise.reshape(3, -1)[:2]
    assert abs(np.corrcoef(red, green)[0, 1]) < 4 / 80


@pytest.mark.parametrize("shape", SIZES)
def test_haze(shape):
    x, depth = 1.4 * image(*shape, 6), plane(*shape, 7) ** 4
    grey = {"beta": 1.7, "airlight": 0.65, "red": 0.0, "blue": 0.0, "veil": 0.0}
    ours, lost = haze.add_haze(to_tensor(x), to_tensor(depth), [grey])
    expected, expected_lost = oracle.haze(x, depth, 1.7, 0.65)
    np.testing.assert_allclose(to_array(ours), expected, atol=5e-7)
    np.testing.assert_allclose(lost[0, 0], expected_lost, atol=5e-7)
    assert lost.max() <= 1 - math.exp(-1.7 * 0.7) + 1e-6


def test_the_airlight_has_a_colour():
    """Through no transmission at all one sees the airlight itself."""
    warm = {"beta": 10.0, "airlight": 0.8, "red": 0.1, "blue": -0.2, "veil": 0.0}
    ours, lost = haze.add_haze(torch.rand(1, 3, 30, 30), torch.zeros(1, 1, 30, 30), [warm])
    assert lost.min() > 0.999
    torch.testing.assert_close(ours[0, :, 15, 15], torch.tensor([0.88, 0.8, 0.64]), atol=1e-3, rtol=0)
    white, _ = haze.add_haze(torch.zeros(1, 3, 30, 30), torch.zeros(1, 1, 30, 30), [warm | {"red": 1.0}])
    assert white[0, 0].max() == pytest.approx(1, abs=1e-3)


def test_a_veil_is_more_air_in_front_of_the_whole_scene():
    """Optical depths add: the transmission of the veiled scene is exp(-veil) times that of the scene."""
    x, depth = to_tensor(image(30, 40, 3)), to_tensor(plane(30, 40, 4))
    clear = {"beta": 1.2, "airlight": 0.8, "red": 0.0, "blue": 0.0, "veil": 0.0}
    (once, lost), (twice, veiled) = (haze.add_haze(x, depth, [clear | {"veil": veil}]) for veil in (0.0, 0.7))
    torch.testing.assert_close(1 - veiled, (1 - lost) * math.exp(-0.7), atol=1e-6, rtol=0)
    torch.testing.assert_close(twice, 0.8 + (once - 0.8) * math.exp(-0.7), atol=1e-6, rtol=0)


def test_rain_and_snow_blend():
    x, mask = torch.full((1, 3, 1, 3), 0.8), torch.tensor([0.0, 0.5, 1.0]).view(1, 1, 1, 3)
    torch.testing.assert_close(rain.add_rain(x, mask)[0, 0, 0], torch.tensor([0.8, 1.3, 1.8]))
    torch.testing.assert_close(snow.add_snow(x, mask)[0, 0, 0], torch.tensor([0.8, 0.9, 1.0]))


@pytest.mark.parametrize("angle", [-0.5, 0.0, 0.4])
def test_streaks_of_rain_fall_at_the_angle(angle):
    parameters = {
        "angle": angle,
        "veil": 0.05,
        "contrast": 0.5,
        "streaks": 0.4,
        "density": 3e-3,
        "length": 30.0,
        "width": 0.6,
    }
    mask = rain.rain_mask(200, 200, [parameters], fields.BatchDraws([0], "rainmap", CPU))[0, 0].double().numpy()
    down, across = (gaussian_filter(mask, 1.5, order=order) for order in ((1, 0), (0, 1)))
    # along a streak the mask hardly changes: the weak axis of the gradients' covariance
    _, vectors = np.linalg.eigh([[(a * b).mean() for a in (down, across)] for b in (down, across)])
    assert abs(vectors[:, 0] @ [math.cos(angle), math.sin(angle)]) > math.cos(0.12)


@pytest.mark.parametrize("width", [1.0, 2.0])  # below, the sampled profile is not a Gaussian's any more
def test_streaks_of_rain_are_as_wide_as_asked(width):
    """Across a streak the brightness is exp(-(distance / width)²), so its variance is width² / 2."""
    kernel = line_kernel(40.0, 0.0, width)
    middle = kernel[len(kernel) // 2].astype(np.float64)
    distance = np.arange(len(kernel)) - len(kernel) // 2
    assert (middle * distance**2).sum() / middle.sum() == pytest.approx(width**2 / 2, rel=0.1)


def test_veil_of_rain_has_its_mean_and_contrast():
    parameters = {
        "angle": 0.2,
        "veil": 0.4,
        "contrast": 0.3,
        "streaks": 0.0,
        "density": 1e-3,
        "length": 20.0,
        "width": 0.6,
    }
    still = rain.rain_mask(150, 150, [parameters | {"contrast": 0.0}], fields.BatchDraws([0], "rainmap", CPU))
    assert still.min() == pytest.approx(0.7 * 0.4, abs=1e-6) and still.max() == pytest.approx(1.3 * 0.4, abs=1e-6)
    spread = rain.rain_mask(150, 150, [parameters], fields.BatchDraws([0], "rainmap", CPU)) / still - 1
    assert spread.mean() == pytest.approx(0, abs=1e-3) and spread.std() == pytest.approx(0.3, rel=0.02)


def test_snow_grows_with_each_of_its_parameters():
    parameters = {"angle": 0.1, "flurry": 0.02, "density": 1.0, "opacity": 0.7, "blur": 3.0, "size": 1.0}

    def cover(**changes):
        return snow.snow_mask(120, 120, [parameters | changes], fields.BatchDraws([0], "snowmap", CPU)).mean().item()

    assert cover(flurry=0.0, opacity=0.0) == 0
    for name in ("flurry", "density", "opacity", "size"):
        assert cover(**{name: 1.5 * parameters[name]}) > 1.05 * cover()


@pytest.mark.parametrize("category", CATEGORIES)
@pytest.mark.parametrize("shape", [(13, 17), (50, 41)])
def test_composites(category, shape):
    seed, clean = 11, image(*shape, 8)
    light, depth = plane(*shape, 9), plane(*shape, 10)
    masks = {"rain": 0.7 * plane(*shape, 11), "snow": plane(*shape, 12) ** 2}
    given = {name: torch.from_numpy(m) for name, m in {"light": light, "depth": depth, **masks}.items()}
    ours = degrade(to_tensor(clean)[0], category, seed=seed, **given)
    # with the light map given, noise is the first thing drawn from its stream
    noise = fields.Draws(seed, "lowmap", CPU).randn(3, *shape).permute(1, 2, 0).double().numpy()
    noise *= ours.parameters.get("low", {}).get("noise", 0)
    maps = {"light": light, "depth": depth, **masks}
    expected, expected_maps = oracle.degrade(clean, category, ours.parameters, noise, **maps)
    np.testing.assert_allclose(to_array(ours.image[None]), expected, atol=5e-5)
    np.testing.assert_allclose(ours.maps, expected_maps, atol=1e-4)
    if category in ("haze_rain", "low_haze_rain"):  # rain stays unclipped until the haze is over it
        clipped, _ = oracle.degrade(clean, category, ours.parameters, noise, **maps, clip_between=True)
        assert np.abs(to_array(ours.image[None]) - clipped).max() > 0.02
