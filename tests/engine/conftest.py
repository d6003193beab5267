"""Networks whose every tensor counts, and the fixtures of the golden case."""

import pytest
import torch

from f2d.nets import F2DNet
from tests.nets.conftest import golden, golden_net, golden_weights  # noqa: F401
from tests.nets.small import small_config


@pytest.fixture
def make_net():
    """make_net(**changes) -> small F2DNet in eval mode with random weights, biases and normalisations."""

    def make(**changes) -> F2DNet:
        generator = torch.Generator().manual_seed(0)
        net = F2DNet(small_config(**changes)).eval().requires_grad_(False)
        for name, parameter in net.named_parameters():
            if not name.endswith("laplacian"):
                scale = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.3
                centre = float("norm" in name and name.endswith("weight"))
                parameter.copy_(centre + scale * torch.randn(parameter.shape, generator=generator))
        return net

    return make


@pytest.fixture
def image():
    """image(*shape) -> random values in [-1, 1]."""

    def make(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.rand(*shape, dtype=dtype, generator=torch.Generator().manual_seed(1)) * 2 - 1

    return make
