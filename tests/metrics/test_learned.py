"""Adapters to other packages' networks: what they are given, in what range, and that the value comes through.

The libraries' own code runs, with small networks in the place of those that it would download.
"""

import math
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier, BrokenBarrierError
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import nn

from f2d.images import image_to_tensor, save_image, to_picture, to_tensor
from f2d.metrics import learned
from f2d.metrics.measures import find, find_sets
from tests.metrics.pictures import noisy, photograph

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pair():
    """One that leaves [0, 1] and has more than 8 bits; the truth."""
    clean = photograph("chelsea", (64, 80))
    return noisy(clean, 40), clean


def _file(image):
    return to_tensor(to_picture(image))[None]


class _Distance(nn.Module):
    """In the place of LPIPS' network, as torchmetrics calls it."""

    def __init__(self, net):
        super().__init__()
        assert net == "alex"

    def forward(self, restored, truth, normalize):
        assert normalize and restored.shape == truth.shape == (1, 3, 64, 80)
        return (2 * restored - truth).abs().mean().view(1, 1, 1, 1)


def test_lpips(pair, monkeypatch):
    """torchmetrics itself refuses values outside [0, 1] when told that they lie there."""
    monkeypatch.setattr("torchmetrics.image.lpip._TORCHVISION_AVAILABLE", True)
    monkeypatch.setattr("torchmetrics.image.lpip._NoTrainLpips", _Distance)
    (measure,), absent = find([], ["lpips"])
    assert absent == {} and measure.needs_ground_truth and measure.about.better == "lower"
    restored, truth = (_file(image) for image in pair)
    expected = float((2 * restored - truth).abs().mean())
    values = [measure(*pair), measure(pair[1], pair[1]), measure(*pair)]  # a metric that adds up would show
    assert values == pytest.approx([expected, float(truth.mean()), expected], rel=1e-6)


def test_lpips_in_threads(pair, monkeypatch):
    """Evaluations on a GPU measure four images at once."""
    meeting = Barrier(2)

    class Slow(_Distance):
        def forward(self, restored, truth, normalize):
            with suppress(BrokenBarrierError):  # both threads wait here for one another, if they are let in together
                meeting.wait(timeout=0.3)
            return super().forward(restored, truth, normalize)

    monkeypatch.setattr("torchmetrics.image.lpip._TORCHVISION_AVAILABLE", True)
    monkeypatch.setattr("torchmetrics.image.lpip._NoTrainLpips", Slow)
    (measure,), _ = find([], ["lpips"])
    restored, truth = (_file(image)[0] for image in pair)
    images = (restored, truth)
    expected = [float((2 * image - truth).abs().mean()) for image in images]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda image: measure(image, truth), images))
    assert found == pytest.approx(expected, rel=1e-6)


def _vgg16(weights):
    """VGG-16's layers with random weights of a fixed seed."""
    torch.manual_seed(0)
    layers, inputs = [], 3
    for outputs in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0):
        if outputs:
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
            inputs = outputs
        else:
            layers.append(nn.MaxPool2d(2))
    return SimpleNamespace(features=nn.Sequential(*layers))


def test_dists(pair, monkeypatch):
    """Against torchmetrics' function, which makes the network anew."""
    module = "torchmetrics.functional.image.dists"
    monkeypatch.setattr(f"{module}._TORCHVISION_AVAILABLE", True)
    monkeypatch.setattr(f"{module}.vgg16", _vgg16, raising=False)
    monkeypatch.setattr(f"{module}.VGG16_Weights", SimpleNamespace(DEFAULT=None), raising=False)
    from torchmetrics.functional.image.dists import deep_image_structure_and_texture_similarity

    (measure,), absent = find([], ["dists"])
    expected = float(deep_image_structure_and_texture_similarity(*(_file(image) for image in pair)).detach())
    assert absent == {} and measure.needs_ground_truth and expected > 1e-3
    assert measure(*pair) == pytest.approx(expected, abs=1e-5)
    assert measure(pair[1], pair[1]) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(("name", "theirs"), [("musiq", "musiq"), ("clip-iqa", "clipiqa")])
def test_pyiqa(name, theirs, pair, monkeypatch):
    asked = []

    def create_metric(metric, device):
        asked.append((metric, str(device)))
        return lambda picture: picture.square().mean().view(1, 1)

    monkeypatch.setitem(sys.modules, "pyiqa", SimpleNamespace(create_metric=create_metric))
    (measure,), absent = find([], [name], device="cpu")
    assert absent == {} and asked == [(theirs, "cpu")]
    assert not measure.needs_ground_truth and measure.about.better == "higher"
    expected = float(_file(pair[0]).square().mean())
    assert measure(pair[0], None) == measure(*pair) == pytest.approx(expected, rel=1e-6)


def test_pictures_too_small_for_a_network_and_pairs_that_are_none(pair):
    measure = learned.network_measure(learned.About("some", "Some", "lower"), True, lambda x, y: x.sum(), CPU)
    restored, truth = pair
    assert math.isfinite(measure(restored[:, :32, :32], truth[:, :32, :32]))
    assert math.isnan(measure(restored[:, :31], truth[:, :31]))
    with pytest.raises(ValueError, match="some: restored image and ground truth must have the same shape"):
        measure(restored, truth[:, 1:])


class _Moments(nn.Module):
    """In the place of Inception: three features of levels."""

    num_features = 3

    def forward(self, levels):
        assert levels.dtype == torch.uint8 and levels.shape[:2] == (1, 3)
        return levels.float().mean((2, 3))


@pytest.fixture
def fid(monkeypatch):
    from torchmetrics.image.fid import FrechetInceptionDistance

    def with_moments(feature, **options):
        assert feature == 2048
        return FrechetInceptionDistance(feature=_Moments(), **options)

    monkeypatch.setattr("torchmetrics.image.fid.FrechetInceptionDistance", with_moments)
    (measure,), absent = find_sets(["fid"])
    assert absent == {}
    return measure


def test_fid(fid, tmp_path):
    """|μ - ν|² + tr(Σ + Τ - 2 (Σ Τ)^½) by SciPy, on files of different sizes; sets of different sizes as well."""
    paths, features = [], []
    for i in range(11):
        image = photograph("coffee")[:, 20 * i : 20 * i + 30, 30 * i : 30 * i + 40 + i]
        paths.append(tmp_path / f"{i}.png")
        save_image(to_picture(image), paths[-1])
        features.append((image_to_tensor(paths[-1]) * 255).mean((1, 2)).double().numpy())
    first, second = np.array(features[:5]), np.array(features[5:])
    a, b = (np.cov(part, rowvar=False) for part in (first, second))
    expected = ((first.mean(0) - second.mean(0)) ** 2).sum() + np.trace(a + b - 2 * sqrtm(a @ b).real)
    assert fid(paths[:5], paths[5:]) == pytest.approx(expected, rel=1e-4)
    assert fid(paths[:5], paths[:5]) == pytest.approx(0, abs=1e-2)  # and the first sets are forgotten
    assert math.isnan(fid(paths[:1], paths)) and math.isnan(fid(paths, []))
