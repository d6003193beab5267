"""Restoration by bands of rows equals that of the whole image: every global quantity is exact, every pixel's noise its
own."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from f2d import F2DNet, degrade, restore_tensor
from f2d.engine import Engine
from f2d.engine.bands.layers import Bands, conv_rows, doubled, padded
from f2d.engine.bands.restore import restore_banded
from f2d.engine.bands.stored import ChannelMoments, Joined, Scratch, group_moments, mapped
from f2d.engine.layers import Conv, moments
from f2d.nets import F2DNetConfig
from f2d.nets.padding import pad_to_multiple
from f2d.transport.samplers import advance
from tests.engine.test_agreement import VARIANTS, psnr

CPU = torch.device("cpu")


def field(x: torch.Tensor, folder=None, rows: int = 3):
    kept = Scratch(CPU, folder).field(*x.shape[2:])
    for part in x.split(rows, dim=2):
        kept.append(part)
    return kept


@pytest.mark.parametrize("files", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_field_gives_back_what_it_was_given(tmp_path, files, dtype):
    x = torch.randn(1, 5, 11, 7).to(dtype)
    kept = field(x, tmp_path if files else None)
    assert torch.equal(kept.read(2, 9), x[:, :, 2:9]) and torch.equal(kept.read(0, 11), x)
    assert kept.read(2, 9).is_contiguous(memory_format=torch.channels_last)
    kept.write(4, -x[:, :, 4:6])
    assert torch.equal(kept.read(5, 7), torch.cat([-x[:, :, 5:6], x[:, :, 6:7]], dim=2))
    assert not any(tmp_path.iterdir())  # files without names: nothing stays, however the process ends


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 9), height=st.integers(1, 9), mean=st.sampled_from([0.0, 3.0, 1000.0]))
def test_moments_of_bands_are_those_of_the_whole(rows, height, mean):
    generator = torch.Generator().manual_seed(height)
    x = torch.randn(1, 12, height, 7, generator=generator, dtype=torch.float64)
    x = mean + x * torch.arange(1, height + 1)[:, None]
    measured = [ChannelMoments(), ChannelMoments()]
    for band in x.split(rows, dim=2):
        measured[0].add(band[:, :8]), measured[1].add(band[:, 8:])
    found = group_moments(measured, 3, 1e-5, torch.float64)
    torch.testing.assert_close(found, moments(x, 3, 1e-5), rtol=1e-10, atol=1e-10)


def test_moments_in_float32_survive_a_large_mean():
    x = torch.randn(1, 4, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 1000
    measured = ChannelMoments()
    for band in x.float().split(8, dim=2):
        measured.add(band)
    exact = x.float().double()
    torch.testing.assert_close(measured.variance, exact.var(dim=(0, 2, 3), correction=0), rtol=1e-5, atol=0)


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 8), kernel=st.sampled_from([1, 3, 7]), dilation=st.integers(1, 4), stride=st.integers(1, 2),
    cut=st.integers(1, 8), kind=st.sampled_from(["plain", "transposed", "shuffled"]),
)  # fmt: skip
@torch.no_grad()
def test_rows_of_a_convolution(height, kernel, dilation, stride, cut, kind):
    torch.manual_seed(0)
    stride = 1 if kernel == 1 or kind == "shuffled" else stride
    if kind == "transposed":
        layer = torch.nn.ConvTranspose2d(3, 4, 4, 2, 1)
    else:
        layer = torch.nn.Conv2d(3, 4, kernel, stride, dilation * (kernel // 2), dilation)
    x = torch.randn(1, 3, 2 * height, 6, dtype=torch.float64)
    expected = layer.double()(x)
    if kind == "shuffled":
        expected = torch.nn.functional.pixel_shuffle(expected, 2)
    bands = Bands(Scratch(CPU), 12 * cut)
    conv = Conv.of(layer, torch.float64, shuffled=kind == "shuffled")
    kept = bands.convolve(conv, field(x))
    torch.testing.assert_close(kept.read(0, expected.shape[2]), expected, rtol=0, atol=1e-12)
    top = min(2, expected.shape[2] - 2) // 2 * 2
    some = conv_rows(conv, field(x), top, top + 2) if top >= 0 else expected[:, :, :0]
    torch.testing.assert_close(some, expected[:, :, max(top, 0) :][:, :, : some.shape[2]], rtol=0, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(height=st.integers(1, 20), width=st.integers(1, 20), multiple=st.sampled_from([1, 4, 16]), data=st.data())
def test_rows_of_padding_and_doubling(height, width, multiple, data):
    x = torch.randn(1, 3, height, width, dtype=torch.float64)
    larger = padded(field(x), multiple)
    whole = pad_to_multiple(x, multiple)
    assert (larger.height, larger.width) == tuple(whole.shape[2:])
    top = data.draw(st.integers(0, larger.height - 1))
    bottom = data.draw(st.integers(top + 1, larger.height))
    assert torch.equal(larger.read(top, bottom), whole[:, :, top:bottom])
    twice = torch.nn.functional.interpolate(x, scale_factor=2, mode="bilinear")
    top = data.draw(st.integers(0, 2 * height - 1))
    bottom = data.draw(st.integers(top + 1, 2 * height))
    torch.testing.assert_close(doubled(field(x)).read(top, bottom), twice[:, :, top:bottom], rtol=0, atol=1e-14)


@settings(max_examples=40, deadline=None)
@given(height=st.integers(1, 300), width=st.integers(1, 300), positions=st.integers(1, 5000))
def test_bands_cover_every_row_once(height, width, positions):
    spans = list(Bands(Scratch(CPU), positions).of(height, width))
    assert [row for span in spans for row in range(*span)] == list(range(height))
    assert all(top % 2 == 0 for top, _ in spans) and all((b - a) * width <= max(positions, 2 * width) for a, b in spans)


def test_joined_and_mapped_rows():
    x, y = torch.randn(1, 3, 6, 5), torch.randn(1, 2, 6, 5)
    both = Joined(field(x), field(y))
    assert torch.equal(both.read(1, 4), torch.cat([x, y], dim=1)[:, :, 1:4])
    torch.testing.assert_close(group_moments(both.parts, 1, 0.0, torch.float32), moments(torch.cat([x, y], 1), 1, 0.0))
    assert torch.equal(mapped(both, torch.neg).read(1, 4), -both.read(1, 4))


@pytest.mark.parametrize("sampler", ["MC", "NMC", "EM"])
def test_noise_of_a_band_is_that_of_the_image_bit_for_bit(sampler):
    schedule = F2DNetConfig().schedule
    x, mu = torch.rand(2, 1, 3, 40, 33)
    whole = advance(x, mu, x, schedule, sampler, 30, 40, {"seed": 9, "stream": 2})
    for top in range(0, 40, 7):
        part = slice(top, top + 7)
        band = advance(*(t[:, :, part] for t in (x, mu, x)), schedule, sampler, 30, 40,
                       {"seed": 9, "stream": 2, "window": (top, 0)})  # fmt: skip
        assert torch.equal(band, whole[:, :, part])
    unkeyed = advance(x[:, :, 7:14], mu[:, :, 7:14], x[:, :, 7:14], schedule, sampler, 30, 40, {"seed": 9, "stream": 2})
    assert not torch.equal(unkeyed, whole[:, :, 7:14])


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (40, 24), (83, 61)])
@pytest.mark.parametrize("variant", VARIANTS)
def test_bands_are_the_whole_in_float64(make_net, image, tmp_path, variant, size):
    """The transport is float32, so 1e-6; a moment taken of one band alone would be off by 1e-2."""
    engine = Engine(make_net(**VARIANTS[variant]).double(), torch.float64)
    y = image(1, 3, *size, dtype=torch.float64) / 2 + 0.5
    for folder, options in ((None, {"steps": 2}), (tmp_path, {"tta": True})):
        predictor = engine.predictor()
        whole = restore_tensor(predictor, y * 2 - 1, seed=5, **options) / 2 + 0.5
        found = restore_banded(engine, y, positions=64, folder=folder, seed=5, maps=True, **options)
        torch.testing.assert_close(found.image, whole, rtol=0, atol=1e-6)
        if not options.get("tta"):
            torch.testing.assert_close(found.gates, predictor.gates, rtol=0, atol=1e-7)
            torch.testing.assert_close(found.weights, predictor.analysis.weights, rtol=0, atol=1e-10)
            torch.testing.assert_close(found.maps.double(), predictor.analysis.maps, rtol=0, atol=1e-6)


def test_noise_given_as_a_tensor_and_strengths(make_net, image):
    engine, y = Engine(make_net()), image(1, 3, 33, 20) / 2 + 0.5
    noise = torch.randn(3, 1, 3, 33, 20, generator=torch.Generator().manual_seed(0))
    predictor = engine.predictor(only={"rain"})
    whole = restore_tensor(predictor, y * 2 - 1, steps=3, noise=noise) / 2 + 0.5
    found = restore_banded(engine, y, positions=64, steps=3, noise=noise, strength=predictor.strength)
    assert psnr(found.image * 2, whole * 2) > 100 and found.maps is None
    with pytest.raises(
        ValueError, match=r"noise must be \(3, 1, 3, 33, 20\), one tensor per step, got \(2, 1, 3, 33, 20\)"
    ):
        restore_banded(engine, y, positions=64, steps=3, noise=noise[:2])


@pytest.mark.parametrize(("dtype", "least"), [(torch.float32, 120), (torch.bfloat16, 60)])
def test_shipped_weights_on_a_photograph(shared, dtype, least):
    from f2d.images import open_image, to_tensor

    clean = open_image(sorted((shared / "data" / "eval_clean" / "CBSD68").iterdir())[3])
    photo = to_tensor(degrade(clean, "haze_rain", seed=7).image)[None]  # a clean one stays as it is, however it is cut
    engine = Engine(F2DNet.from_pretrained("f2d-lite"), dtype)
    whole = restore_tensor(engine.predictor(), photo * 2 - 1, seed=0)
    found = restore_banded(engine, photo, positions=4096, seed=0).image * 2 - 1
    assert psnr(found, whole) > least
    alone = restore_tensor(engine.predictor(), photo[:, :, :64] * 2 - 1, seed=0)
    assert psnr(alone, whole[:, :, :64]) < 45  # a tile with its own statistics is another picture
