"""On the cpp backend, the memory format of one operand or of the gradient changes no bit of a result."""

import pytest
import torch
from torch import Tensor

from f2d_kernels import (
    backends,
    expert_assembly,
    gaussian_transition,
    group_norm_silu,
    lognormal_transition,
    transport_step,
    use_backend,
)

from .cases import random

pytestmark = pytest.mark.skipif(backends()["cpp"] != "available", reason=f"cpp: {backends()['cpp']}")
BATCH, SIZE = 2, (37, 45)  # more elements than the few of which no copy is made
SCHEDULE = torch.tensor([-0.4, 0.1]), torch.tensor([0.3, 0.5])


def assembly(base, first, second, maps, gates):
    return expert_assembly([first, second], gates, maps, base)


def lognormal(x, mu, noise):
    return lognormal_transition(x, mu, *SCHEDULE, noise=noise)


def seeded(x, mu, mean, std):
    return lognormal_transition(x, mu, mean, std, seed=7)


def gaussian(x, y, noise, std):
    return gaussian_transition([x, y], [0.3, 0.7], std, noise=noise)


def norm(x, weight):
    return group_norm_silu(x, 3, weight, None)


def transport(x, anchor, base, first, second, maps, gates):
    return transport_step(x, [first, second], gates, maps, base, *SCHEDULE, anchor=anchor, seed=7)[0]


# op: the image that decides the results' format, the number of images, the shapes of the other arguments
OPS = {
    assembly: (1, 3, lambda c: [(BATCH, 2, *SIZE), (BATCH, 2)]),
    lognormal: (0, 3, lambda c: []),
    seeded: (0, 2, lambda c: [(BATCH,), (BATCH,)]),
    gaussian: (0, 3, lambda c: [(BATCH,)]),
    norm: (0, 1, lambda c: [(c,)]),
    transport: (0, 5, lambda c: [(BATCH, 2, *SIZE), (BATCH, 2)]),
}
FORMATS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}


def results(op, arguments: list[Tensor], grad: Tensor, needs: tuple[int, ...]) -> list[Tensor]:
    leaves = [a.detach().requires_grad_(i in needs) for i, a in enumerate(arguments)]
    out = op(*leaves)
    return [out, *torch.autograd.grad(out, [leaves[i] for i in needs], grad)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=lambda d: str(d)[6:])
@pytest.mark.parametrize("channels", [3, 24])
@pytest.mark.parametrize("common", FORMATS)
@pytest.mark.parametrize("op", OPS, ids=lambda op: op.__name__)
def test_one_operand_in_another_format(op, common, channels, dtype):
    decides, images, others = OPS[op]
    shapes = [(BATCH, channels, *SIZE)] * images + others(channels)
    arguments = [random(*shape, seed=i, dtype=dtype) for i, shape in enumerate(shapes)]
    grad = random(BATCH, channels, *SIZE, seed=8, dtype=dtype)
    other = FORMATS[next(name for name in FORMATS if name != common)]

    def laid_out(odd: int | None) -> list[Tensor]:
        return [
            a.contiguous(memory_format=other if i == odd else FORMATS[common]) if a.dim() == 4 else a
            for i, a in enumerate([*arguments, grad])
        ]

    places = [i for i, a in enumerate(arguments) if a.dim() == 4 and i != decides]
    with use_backend("cpp"):
        for needs in (tuple(range(len(arguments))), (decides,)):
            expected = results(op, laid_out(None)[:-1], laid_out(None)[-1], needs)
            for odd in [*places, len(arguments)]:
                *moved, moved_grad = laid_out(odd)
                found = results(op, moved, moved_grad, needs)
                assert all(map(torch.equal, found, expected)), (needs, odd)


@pytest.mark.parametrize("width", [1, 3, 16, 45])
@pytest.mark.parametrize("channels", [2, 5, 24])
def test_seeded_noise_does_not_depend_on_the_format(channels, width):
    """Blocks of pixels with many channels share their counters' batches; planes do not."""
    x, mu = torch.ones(BATCH, channels, 37, width), torch.zeros(BATCH, channels, 37, width)
    with use_backend("cpp"):
        planes, pixels = (
            lognormal_transition(x.contiguous(memory_format=f), mu, 0.0, 1.0, seed=3, window=(5, 2))
            for f in FORMATS.values()
        )
    assert torch.equal(planes, pixels)
