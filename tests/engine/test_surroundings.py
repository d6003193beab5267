"""Results depend on neither the caller's autocast and default dtype nor the types of weights and images."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from f2d.engine import Engine
from f2d.engine.bands.restore import restore_banded
from f2d.engine.execution import choose_execution
from f2d.engine.restorer import Restorer
from f2d.transport.restore import restore_tensor
from tests.nets.small import LIGHT, resflow_net

KINDS = ["published", "light", "resflow"]


@pytest.fixture(params=KINDS)
def net(request, make_net):
    return resflow_net() if request.param == "resflow" else make_net(**(LIGHT if request.param == "light" else {}))


@pytest.fixture
def images(image) -> Tensor:
    """[1, 3, 17, 30] in [0, 1]."""
    return image(1, 3, 17, 30).add(1).div(2)


@pytest.fixture
def bfloat16_by_default() -> Iterator[None]:
    torch.set_default_dtype(torch.bfloat16)
    yield
    torch.set_default_dtype(torch.float32)


def restorer_of(net, precision: str = "float32") -> Restorer:
    return Restorer(net, choose_execution("cpu", precision))


def restored(net, images: Tensor) -> Tensor:
    return restorer_of(net).restore_batch(images, steps=5, seed=0)


def test_a_callers_autocast_has_no_effect(net, images):
    expected, explained = restored(net, images), restorer_of(net).explain(images)
    restorer = restorer_of(net)  # new: it computes its constants inside
    with torch.autocast("cpu", torch.bfloat16):
        inside, called = restorer.restore_batch(images, steps=5, seed=0), restorer(images, steps=5, seed=0).image
        told = restorer.explain(images)
    assert torch.equal(inside, expected) and torch.equal(called, expected)
    assert torch.equal(told.gates, explained.gates) and torch.equal(told.presence, explained.presence)


def test_an_engine_keeps_no_constants_of_a_callers_autocast(make_net, image):
    """`restore_tensor` itself follows autocast, as the plain network does, but the next call must not."""
    engine, y = Engine(make_net(**LIGHT)), image(1, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        restore_tensor(engine.predictor(), y, seed=0)
    expected = restore_tensor(Engine(make_net(**LIGHT)).predictor(), y, seed=0)
    assert torch.equal(restore_tensor(engine.predictor(), y, seed=0), expected)


def test_the_default_dtype_has_no_effect(net, images, request):
    expected, plain = restored(net, images), restore_tensor(net, images, steps=5, seed=0)
    request.getfixturevalue("bfloat16_by_default")
    assert torch.equal(restored(net, images), expected)
    assert torch.equal(restore_tensor(net, images, steps=5, seed=0), plain)


def test_the_default_device_has_no_effect(net, images):
    """ "meta" stands for any device but the images' own, as there is no GPU here."""
    restorer, expected = restorer_of(net), restored(net, images)
    with torch.device("meta"):
        assert torch.equal(restorer.restore_batch(images, steps=5, seed=0), expected)
        found = restore_tensor(net, images, steps=5, seed=0)
    assert torch.equal(found, restore_tensor(net, images, steps=5, seed=0))


def test_the_default_device_has_no_effect_on_bands(make_net, images):
    engine, bands = Engine(make_net()), {"positions": 64, "maps": True, "seed": 0}
    with torch.device("meta"):
        found = restore_banded(engine, images, **bands)
    expected = restore_banded(engine, images, **bands)
    assert torch.equal(found.image, expected.image) and torch.equal(found.maps, expected.maps)


def test_maps_of_bands_are_float32_whatever_the_default(make_net, images, request):
    engine = Engine(make_net(**LIGHT))
    maps = restore_banded(engine, images, positions=16, maps=True, seed=0).maps
    request.getfixturevalue("bfloat16_by_default")
    assert torch.equal(restore_banded(engine, images, positions=16, maps=True, seed=0).maps, maps)


def test_float64_weights_give_what_float32_weights_give(net, images):
    expected = restored(net, images)
    assert torch.equal(restored(net.double(), images), expected) and net.dtype == torch.float64


def test_float32_weights_in_a_float64_engine(make_net, image):
    """They crashed: float64 images met float32 matrices."""
    net, y = make_net(), image(1, 3, 9, 7, dtype=torch.float64)
    found = restore_tensor(Engine(net, torch.float64).predictor(skipping=False), y, seed=0)
    torch.testing.assert_close(found, restore_tensor(net.double(), y, seed=0), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_images_in_half_precision_are_as_exact_as_their_values(net, images, dtype):
    """2 y - 1 of a dark bfloat16 image was rounded to 1/256, half a grey level, which the network amplified."""
    dark = images.mul(0.05).to(dtype)
    assert torch.equal(restored(net, dark), restored(net, dark.float()))


def test_bands_of_images_in_half_precision(make_net, images):
    engine, dark = Engine(make_net(**LIGHT)), images.mul(0.05).bfloat16()
    found, expected = (restore_banded(engine, y, positions=16, seed=0).image for y in (dark, dark.float()))
    assert torch.equal(found, expected)
