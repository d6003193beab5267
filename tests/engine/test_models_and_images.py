"""`f2d.load` and `Restorer`: a network in place of its name, and errors that name what is neither model nor image."""

import copy
import io

import pytest
import torch

import f2d
from f2d.engine.execution import choose_execution
from f2d.engine.restorer import Restorer
from f2d.nets import F2DNet, F2DNetConfig
from f2d.nets.resflow import ResFlowNet
from tests.nets.small import TINY, resflow_net


@pytest.fixture(scope="module")
def restorer() -> Restorer:
    return f2d.load(F2DNet(TINY), device="cpu", precision="float32")


@pytest.mark.parametrize("kind", ["F2DNet", "ResFlowNet"])
def test_load_takes_a_network(make_net, kind):
    """As it takes the folder the network is saved in; the network keeps its mode, and its later changes do no harm."""
    net = make_net() if kind == "F2DNet" else resflow_net()
    restorer = f2d.load(net.train(), device="cpu", precision="float32")
    assert net.training
    image = torch.rand(3, 9, 13)
    expected = Restorer(copy.deepcopy(net).eval(), choose_execution("cpu", "float32"))(image).image
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(0.5)
    assert torch.equal(restorer(image).image, expected)
    with pytest.raises(TypeError, match="revision must be omitted for a network"):
        f2d.load(net, revision="main")


NOT_CHECKPOINTS = [None, io.BytesIO(), ["f2d-lite"], b"f2d-lite", 3, F2DNet]


@pytest.mark.parametrize("model", NOT_CHECKPOINTS, ids=lambda model: type(model).__name__)
@pytest.mark.parametrize(
    "load", [f2d.load, F2DNet.from_pretrained, ResFlowNet.from_pretrained, F2DNetConfig.from_pretrained]
)
def test_what_is_no_model_is_named(load, model):
    with pytest.raises(TypeError, match=rf"a preset, a folder, or owner/name on the Hub, got {type(model).__name__}$"):
        load(model)


def test_other_modules_and_state_dicts_are_told_what_to_call(make_net):
    net = make_net()
    for load in (f2d.load, Restorer):
        with pytest.raises(TypeError, match="must be an F2DNet or a ResFlowNet, got Conv2d"):
            load(torch.nn.Conv2d(3, 3, 1))
    for model in (None, "f2d-lite", net.state_dict(), [net]):
        with pytest.raises(TypeError, match=rf"got {type(model).__name__} \(f2d.load takes"):
            Restorer(model)
    with pytest.raises(TypeError, match=r"got OrderedDict \(to load tensors, call F2DNet\(config\)\.load_state_dict"):
        f2d.load(net.state_dict())
    with pytest.raises(TypeError, match=r"got F2DNet \(f2d.load also takes"):
        F2DNet.from_pretrained(net)
    for build in (F2DNet, ResFlowNet):
        with pytest.raises(
            TypeError, match=r"config must be a \w+Config, got str \(from_preset builds .* from_pretrained"
        ):
            build("f2d-lite")


@pytest.mark.parametrize("image", [None, io.BytesIO(), ["a.png"], b"a.png", 3])
def test_every_way_in_names_what_is_no_image(restorer, make_net, image):
    for restore in (restorer, restorer.explain):
        with pytest.raises(TypeError, match=f"an image must be a path, .* got {type(image).__name__}"):
            restore(image)
    with pytest.raises(TypeError, match=rf"images must be a tensor \[B, 3, H, W\], got {type(image).__name__}"):
        restorer.restore_batch(image)
    y = torch.zeros(1, 3, 4, 4)
    with pytest.raises(TypeError, match=f"net must be an F2DNet, .*got {type(image).__name__}"):
        f2d.restore_tensor(image, y)
    with pytest.raises(TypeError, match=r"net must be an F2DNet, .*got Restorer"):
        f2d.restore_tensor(restorer, y)


def test_batches_of_other_shapes_are_named(restorer):
    for shape in [(3, 4, 4), (1, 4, 4, 3)]:
        with pytest.raises(ValueError, match=r"images must be \[B, 3, H, W\]"):
            restorer.restore_batch(torch.zeros(shape))
    with pytest.raises(TypeError, match=r"floating-point values in .*uint8"):
        restorer.restore_batch(torch.zeros(1, 3, 4, 4, dtype=torch.uint8))
