"""On the cpp backend, the way in which one operand or the gradient is stored changes no bit of a result."""

from collections.abc import Callable

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


def larger(image: Tensor, memory_format: torch.memory_format, channels: int, border: int) -> Tensor:
    """Return an image with `channels` more channels on either side and a border, filled with NaN."""
    batch, own, height, width = image.shape
    shape = (batch, own + 2 * channels, height + 2 * border, width + 2 * border)
    return torch.full(shape, torch.nan, dtype=image.dtype).contiguous(memory_format=memory_format)


def channels_of_a_larger(image: Tensor, memory_format: torch.memory_format) -> Tensor:
    part = larger(image, memory_format, 2, 0)[:, 2:-2]
    return part.copy_(image)


def crop_of_a_larger(image: Tensor, memory_format: torch.memory_format) -> Tensor:
    part = larger(image, memory_format, 0, 3)[:, :, 3:-3, 3:-3]
    return part.copy_(image)


def turned(image: Tensor, memory_format: torch.memory_format) -> Tensor:
    return image.mT.contiguous(memory_format=memory_format).mT


# ways to store an image that is dense in a memory format, such that the results keep their format
STORAGES: dict[str, Callable[[Tensor, torch.memory_format], Tensor]] = {
    "channels": channels_of_a_larger,
    "crop": crop_of_a_larger,
    "turned": turned,
}
# expansions, which repeat the values of the image itself
REPEATS: dict[str, Callable[[Tensor], Tensor]] = {
    "pixel": lambda image: image[:, :, :1, :1],
    "number": lambda image: image[:1, :1, :1, :1],
    "channel": lambda image: image[:, :1],
    "sample": lambda image: image[:1],
    "row": lambda image: image[:, :, :1],
}


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=lambda d: str(d)[6:]
)
@pytest.mark.parametrize("channels", [3, 24])
@pytest.mark.parametrize("common", FORMATS)
@pytest.mark.parametrize("op", OPS, ids=lambda op: op.__name__)
def test_one_operand_stored_otherwise(op, common, channels, dtype):
    decides, images, others = OPS[op]
    shapes = [(BATCH, channels, *SIZE)] * images + others(channels)
    arguments = [random(*shape, seed=i, dtype=dtype) for i, shape in enumerate(shapes)]
    arguments.append(random(BATCH, channels, *SIZE, seed=8, dtype=dtype))  # the gradient
    dense = [a.contiguous(memory_format=FORMATS[common]) if a.dim() == 4 else a for a in arguments]
    other = FORMATS[next(name for name in FORMATS if name != common)]
    places = [i for i, a in enumerate(arguments) if a.dim() == 4]

    def check(place: int, how: str, value: Tensor, stored: Tensor) -> None:
        assert torch.equal(value, stored), how
        for needs in (tuple(range(len(arguments) - 1)), (decides,)):
            found, expected = (
                results(op, moved[:-1], moved[-1], needs)
                for moved in ([*dense[:place], image, *dense[place + 1 :]] for image in (stored, value))
            )
            assert all(map(torch.equal, found, expected)), (place, how, needs)

    with use_backend("cpp"):
        for place in places:
            image = dense[place]
            for how, store in STORAGES.items():
                check(place, how, image, store(image, FORMATS[common]))
            if place == decides:
                continue
            check(place, "format", image, image.contiguous(memory_format=other))
            for how, part in REPEATS.items():
                repeated = part(image).expand_as(image)
                check(place, how, repeated.contiguous(memory_format=FORMATS[common]), repeated)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=lambda d: str(d)[6:])
@pytest.mark.parametrize("batch", [1, BATCH])
@pytest.mark.parametrize("common", FORMATS)
def test_stacked_deltas_stored_otherwise(common, batch, dtype):
    """One convolution often computes the deltas of all experts, as groups of its channels; one sample may serve all."""
    experts, channels = 3, 8
    convolved = random(batch, experts * channels, *SIZE, seed=1, dtype=dtype)
    gates, maps = random(BATCH, experts, seed=2), random(BATCH, experts, *SIZE, seed=3, dtype=dtype)
    grad = random(BATCH, channels, *SIZE, seed=4, dtype=dtype).contiguous(memory_format=FORMATS[common])

    def assembled(deltas: Tensor) -> list[Tensor]:
        return results(expert_assembly, [deltas, gates, maps], grad, (0, 1, 2))

    with use_backend("cpp"):
        expected = assembled(convolved.unflatten(1, (experts, channels)))
        for store in (lambda image, _: image, *STORAGES.values()):
            image = store(convolved.contiguous(memory_format=FORMATS[common]), FORMATS[common])
            found = assembled(image.unflatten(1, (experts, channels)))
            for value, exact in zip(found, expected, strict=True):  # the order of sums depends on the results' format
                torch.testing.assert_close(value, exact, rtol=1e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=lambda d: str(d)[6:])
@pytest.mark.parametrize("experts", [1, 3])
@pytest.mark.parametrize("channels", [432, 2048])
def test_gates_of_many_channels(channels, experts, dtype):
    """The gates of all channels lie in scratch memory, which once had no more room than for a few hundred."""
    deltas = [random(1, channels, 16, 16, seed=k, dtype=dtype) for k in range(experts)]
    gates, x = random(1, experts, channels, seed=7), torch.zeros(1, channels, 16, 16)
    exact = torch.einsum("bkc,kbchw->bchw", gates.double(), torch.stack(deltas).double())
    tolerance = {"rtol": 1e-2 if dtype == torch.bfloat16 else 1e-5, "atol": 1e-5}
    with use_backend("cpp"):
        torch.testing.assert_close(expert_assembly(deltas, gates).double(), exact, **tolerance)
        mu = transport_step(x, deltas, gates, None, None, 0.0, 0.1, anchor=x, clamp=(-99, 99), seed=1)[1]
    torch.testing.assert_close(mu.double(), exact, **tolerance)


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
