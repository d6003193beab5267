"""ResFlow through `f2d.load`'s restorer: the network's own results, alone and in a batch, and what it does not have."""

import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from f2d.engine import PlainEngine, engine_of
from f2d.engine.describe import describe
from f2d.engine.execution import choose_execution
from f2d.engine.restorer import Restorer
from f2d.nets.resflow import ResFlowConfig, ResFlowNet
from f2d.transport import sampling
from f2d.transport.restore import restore_tensor
from tests.nets.small import resflow_net

MIB = 1 << 20


@pytest.fixture(scope="module")
def net() -> ResFlowNet:
    return resflow_net()


@pytest.fixture(scope="module")
def restorer(net) -> Restorer:
    return Restorer(net, choose_execution("cpu", "float32"))


@pytest.fixture
def images() -> torch.Tensor:
    """[3, 3, 17, 22] in [0, 1]."""
    return torch.rand(3, 3, 17, 22, generator=torch.Generator().manual_seed(0))


def test_the_restoration_is_the_plain_networks(net, restorer, images):
    found = restorer(images, seed=5)
    seeds = torch.full((3,), 5)
    expected = (restore_tensor(net, images * 2 - 1, steps=4, sampler="euler", seed=seeds) + 1) / 2  # the model's own
    torch.testing.assert_close(found.image, expected, rtol=0, atol=2e-5)
    assert (found.image - images).abs().max() > 0.05
    two = (restore_tensor(net, images * 2 - 1, steps=2, seed=seeds) + 1) / 2
    torch.testing.assert_close(restorer(images, seed=5, steps=2).image, two, rtol=0, atol=2e-5)
    assert (two - expected).abs().max() > 1e-3


def test_every_kind_comes_back(restorer, images, tmp_path):
    levels = (images[0].movedim(0, -1) * 255).round().byte().numpy()
    Image.fromarray(levels).save(tmp_path / "a.png")
    expected = restorer(levels).image
    assert np.array_equal(np.asarray(restorer(tmp_path / "a.png").image), expected)
    assert np.array_equal(np.asarray(restorer(Image.fromarray(levels)).image), expected)
    assert np.array_equal(restorer(torch.from_numpy(levels).movedim(-1, 0)).image.movedim(0, -1).numpy(), expected)
    assert np.array_equal(restorer(levels[None]).image[0], expected)


def test_there_are_no_factors(restorer, images):
    one, batch = restorer(images[0]), restorer(images)
    assert one.factors == () and one.maps.shape == (0, 17, 22) and one.gates.shape == one.presence.shape == (0,)
    assert batch.maps.shape == (3, 0, 17, 22) and batch.gates.shape == batch.presence.shape == (3, 0)
    seen = restorer.explain(Image.new("RGB", (22, 17)))
    assert seen.factors == () and seen.maps.shape == (0, 17, 22) and seen.gates.shape == (0,)
    for options in ({"only": ["rain"]}, {"strength": {"rain": 0.5}}, {"only": []}):
        with pytest.raises(ValueError, match="this model has no factors"):
            restorer(images, **options)


def test_alone_or_in_a_batch_the_same_bytes(restorer, images):
    together = restorer.restore_batch(images, steps=2, seed=5)
    noise = torch.randn(1, *images.shape, generator=torch.Generator().manual_seed(1))
    given = restorer.restore_batch(images, steps=2, noise=noise)
    for i in range(3):
        assert torch.equal(restorer.restore_batch(images[i : i + 1], steps=2, seed=5)[0], together[i])
        alone = restorer.restore_batch(images[i : i + 1], steps=2, noise=noise[:, i : i + 1])
        assert torch.equal(alone[0], given[i])


def test_the_seed_decides(restorer, images):
    first = restorer(images, seed=1).image
    assert torch.equal(first, restorer(images, seed=1).image)
    assert not torch.equal(first, restorer(images, seed=2).image)
    each = restorer.restore_batch(images[:2], seed=torch.tensor([1, 2]))
    assert torch.equal(each[1], restorer.restore_batch(images[1:2], seed=2)[0])


def test_bf16_is_near_float32(net, restorer, images):
    half = Restorer(net, choose_execution("cpu", "bf16"))
    difference = half(images, seed=1).image - restorer(images, seed=1).image
    assert difference.abs().max() > 0 and 10 * (1 / difference.square().mean()).log10() > 40
    assert "bfloat16" in describe(half.engine)["convolutions"]
    assert "rounding" not in describe(restorer.engine)


def test_the_network_given_stays_as_it_was(net, images):
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    net.train()
    engine = engine_of(net, torch.bfloat16, "cpu")
    assert isinstance(engine, PlainEngine) and net.training and not engine.net.training
    restore_tensor(engine.predictor(), images * 2 - 1, steps=1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    net.eval()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sampler": "mean"}, r"sampler must be one of euler.*got 'mean'"),
        ({"steps": 0}, "at least 1"),
        ({"noise": torch.zeros(2, 3, 3, 17, 22)}, "one y_1 for all steps"),
    ],
)
def test_what_it_does_not_have_is_named(restorer, images, options, said):
    with pytest.raises(ValueError, match=said):
        restorer.restore_batch(images, **options)


def test_defaults_are_the_transports(net, make_net):
    assert sampling(net.transport) == (4, "euler") and sampling(net.transport, 2) == (2, "euler")
    assert sampling(make_net().transport) == (1, "MC") and sampling(make_net().transport, None, "mean") == (1, "mean")
    with pytest.raises(ValueError, match=r"sampler must be one of MC.*got 'euler'"):
        sampling(make_net().transport, sampler="euler")


def test_an_image_beyond_the_memory_given_names_the_least(restorer):
    images = torch.rand(1, 3, 64, 2000)
    with pytest.raises(ValueError, match="only F²D-Net can restore in bands") as error:
        restorer(images, max_memory=100 * MIB)
    least = int(re.search(r"at least (\d+) MiB", str(error.value))[1])
    assert restorer.plan(images, least * MIB).whole and restorer.plan(images, 0, exact=True).whole
    with pytest.raises(ValueError, match="2000x64 does not fit"):
        restorer.plan(images, (least - 1) * MIB)


# the peak of getrusage would be that of pytest's own process, which a child inherits
PEAK = r"""
import re, sys, torch
from f2d.engine.execution import choose_execution
from f2d.nets.resflow import ResFlowNet
from f2d.engine.restorer import Restorer
torch.set_num_threads(1)
restorer = Restorer(ResFlowNet.from_preset("resflow-lite"), choose_execution("cpu", sys.argv[1]))
image = torch.rand(3, 512, 1024)
restorer(image, steps=1)
peak = re.search(r"VmHWM:\s*(\d+) kB", open("/proc/self/status").read())[1]
print(int(peak) * 1024, restorer.plan(image[None]).predicted_bytes)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_the_process_stays_within_what_was_predicted(precision):
    done = subprocess.run([sys.executable, "-c", PEAK, precision], capture_output=True, text=True, check=True)
    peak, predicted = map(int, done.stdout.split())
    assert peak <= predicted <= 2 * peak


@pytest.mark.parametrize("changes", [{"auxiliary": "none"}, {"injection": "concatenation", "patch": 2}])
def test_other_flows(changes, images):
    restorer = Restorer(resflow_net(**changes), choose_execution("cpu", "float32"))
    assert isinstance(restorer.config, ResFlowConfig)
    same = torch.equal(restorer(images, seed=1).image, restorer(images, seed=2).image)
    assert same == (changes.get("auxiliary") == "none")
