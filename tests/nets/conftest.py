"""Small networks, and the golden case: a small network of random weights with its inputs and all it computes."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import f2d_kernels
from f2d.checkpoints.official import infer_config, translate
from f2d.nets import F2DNet, F2DNetConfig
from tests.nets.small import small_config

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture
def make_net():
    """make_net(**changes) -> small F2DNet in eval mode whose zero-initialised layers are not zero."""

    def make(**changes) -> F2DNet:
        torch.manual_seed(0)
        net = F2DNet(small_config(**changes)).eval()
        for parameter in net.parameters():
            if parameter.requires_grad and not parameter.any():
                torch.nn.init.normal_(parameter, std=0.1)
        return net

    return make


@pytest.fixture(scope="session")
def golden() -> dict[str, torch.Tensor]:
    return load_file(GOLDEN / "f2dnet_small.safetensors")


@pytest.fixture(scope="session")
def golden_weights(golden) -> dict[str, torch.Tensor]:
    """The golden network's weights under the authors' names."""
    return {name.removeprefix("weights/"): value for name, value in golden.items() if name.startswith("weights/")}


@pytest.fixture(scope="session")
def golden_net(golden_weights) -> F2DNet:
    state = {translate(name): value for name, value in golden_weights.items()}
    net = F2DNet(F2DNetConfig(**infer_config(state))).eval()
    net.load_state_dict(state)
    return net


@pytest.fixture(params=["reference", "cpp"])
def backend(request):
    """Runs the test once per CPU backend of f2d_kernels."""
    status = f2d_kernels.backends()[request.param]
    if status != "available":
        pytest.skip(f"the {request.param} backend is not available: {status}")
    with f2d_kernels.use_backend(request.param):
        yield request.param
