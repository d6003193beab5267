"""The time of a step: as an int or as a tensor it is one time, whose noise is its own, and a wrong time is an error."""

import copy
import math
from functools import cache

import numpy as np
import pytest
import torch

from f2d_kernels import gaussian_transition
from f2d_kernels.integrations import DDIM, GOUB, IRSDE, FoD, ResidualDiffusion, ResShift
from f2d_kernels.integrations._tables import PER_SAMPLE, PER_TIME
from tests.kernels.cases import DEVICE

from .support import images, rejects

ALPHA_BAR = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)
RATES = torch.linspace(0.1, 0.9, 20, dtype=torch.float64)
WHOLE = 2**64


@cache
def ddim():
    return DDIM(ALPHA_BAR, [500, 123, 20], eta=1.0)


@cache
def clipping():
    return DDIM(ALPHA_BAR, eta=1.0, clip=1.0)


@cache
def residual():
    return ResidualDiffusion(RATES, RATES.sqrt(), eta=1.0)


# step(x, t, **noise) of every process that draws noise, and two of its times
STEPS = {
    "DDIM": (lambda x, t, **n: ddim().step(x, x, t, **n), (500, 123)),
    "DDIM clipped": (lambda x, t, **n: clipping().step(x, x, t, **n), (500, 123)),
    "DDIM state": (lambda x, t, **n: ddim().sample(x, t, **n), (999, 0)),
    "IRSDE": (lambda x, t, **n: IRSDE(50).step(x, x, x, t, **n), (100, 1)),
    "GOUB": (lambda x, t, **n: GOUB(50).step(x, x, x, t, "sde", **n), (100, 1)),
    "FoD MC": (lambda x, t, **n: FoD(RATES, RATES, 0.1).step(x, x, t, **n)[0], (19, 0)),
    "FoD NMC": (lambda x, t, **n: FoD(RATES, RATES, 0.1).step(x, x, t, "NMC", x, **n)[0], (19, 0)),
    "FoD EM": (lambda x, t, **n: FoD(RATES, RATES, 0.1).step(x, x, t, "EM", **n)[0], (19, 0)),
    "FoD FINAL_X": (lambda x, t, **n: FoD(RATES, RATES, 0.1, target="FINAL_X").step(x, -x, t, **n)[0], (19, 0)),
    "FoD state": (lambda x, t, **n: FoD(RATES, RATES, 0.1).sample(x, -x, t, **n), (20, 1)),
    "residual": (lambda x, t, **n: residual().step(x, x, x, t, **n), (19, 1)),
    "ResShift": (lambda x, t, **n: ResShift(RATES).step(x, x, t, **n), (19, 1)),
}


def drawn(x, seeds):
    """Standard normal noise of an op with one seed per sample."""
    keys = [(seed + WHOLE // 2) % WHOLE - WHOLE // 2 for seed in seeds]
    return gaussian_transition([torch.zeros_like(x)], [0.0], 1.0, seed=torch.tensor(keys))


@pytest.mark.parametrize("name", STEPS)
def test_an_int_and_a_tensor_draw_the_same_noise(name):
    step, times = STEPS[name]
    x, _ = images(2)
    for t in times:
        for seed in (7, -3, 2**64 - 1, torch.tensor(7), torch.tensor([7]), torch.tensor([7, 8])):
            wanted = step(x, t, seed=seed)
            kinds = [
                np.int64(t),
                np.uint16(t),
                np.array(t),
                torch.tensor(t),
                torch.tensor(t, dtype=torch.uint16),
                torch.tensor([t], dtype=torch.int32),
                torch.tensor([t, t]),
            ]
            for kind in (*kinds, torch.full((2, 1, 1, 1), t)):
                assert torch.equal(step(x, kind, seed=seed), wanted), (t, seed, kind)
    both = step(x, torch.tensor(times), seed=7)
    for b, t in enumerate(times):
        assert torch.equal(both[b], step(x, t, seed=7)[b])


@pytest.mark.parametrize("kind", [int, torch.tensor, lambda t: torch.tensor([t, t])], ids=["int", "0-dim", "[B]"])
def test_the_noise_is_that_of_a_seed_made_of_seed_time_and_sample(kind):
    x, p = images(2)
    process = ddim()
    for t in (500, 20):
        still, noise = (process.step(x, p, kind(t), noise=e) for e in (torch.zeros_like(x), torch.ones_like(x)))
        seeds = [7 + t * PER_TIME + b * PER_SAMPLE for b in range(len(x))]
        expected = still + (noise - still) * drawn(x, seeds)
        torch.testing.assert_close(process.step(x, p, kind(t), seed=7), expected, rtol=1e-5, atol=1e-5)
        own = still + (noise - still) * drawn(x, [s + t * PER_TIME for s in (3, 4)])
        torch.testing.assert_close(process.step(x, p, kind(t), seed=torch.tensor([3, 4])), own, rtol=1e-5, atol=1e-5)
    # a stream of the caller's own takes the time's place
    still = process.step(x, p, kind(500), seed=7, stream=3)
    assert torch.equal(still, process.step(x, p, 500, seed=7, stream=3))
    assert not torch.equal(still, process.step(x, p, 500, seed=7, stream=4))


def test_no_two_keys_are_one():
    seed, t, b = torch.meshgrid(torch.arange(-50, 50), torch.arange(1001), torch.arange(40), indexing="ij")
    keys = seed + t * PER_TIME + b * PER_SAMPLE
    assert len(keys.unique()) == keys.numel()


@pytest.mark.parametrize("kind", [int, torch.tensor, lambda t: torch.full((4,), t)], ids=["int", "0-dim", "[B]"])
def test_a_trajectory_keeps_the_standard_deviation(kind):
    """Images of independent N(0, 1) have it at every time; sqrt(1 - a_t) x is then the best guess of the noise."""
    times = range(990, -1, -10)
    process = DDIM(ALPHA_BAR, times, eta=1.0)
    x = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    variance = 1.0
    for i, t in enumerate(times):
        a, s = float(ALPHA_BAR[t]), float(ALPHA_BAR[t - 10]) if i < 99 else 1.0
        std2 = (1 - s) / (1 - a) * (1 - a / s)
        variance = (math.sqrt(s * a) + math.sqrt((1 - s - std2) * (1 - a))) ** 2 * variance + std2
        x = process.step(x, math.sqrt(1 - a) * x, kind(t), seed=7)
    assert math.sqrt(variance) == pytest.approx(1, abs=0.05)
    assert float(x.std()) == pytest.approx(math.sqrt(variance), rel=0.01)
    shifted = [(x[b] * x[(b + 1) % 4]).mean().abs() for b in range(4)]
    assert max(shifted) < 0.04, "samples share noise"


@pytest.mark.parametrize("name", STEPS)
def test_noise_of_another_time_is_independent(name):
    step, times = STEPS[name]
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(2)) + 1
    noise = []
    for t in times:
        loud, still = (step(x, torch.tensor([t, t]), **n) for n in ({"seed": 7}, {"noise": torch.zeros_like(x)}))
        noise.append((loud - still) / x)
    if float(noise[1].abs().max()) > 0:
        both = torch.stack([n.flatten() for n in noise])
        assert float(torch.corrcoef(both)[0, 1].abs()) < 0.06


def counting(graphs):
    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    return backend


@pytest.mark.parametrize("name", ["DDIM", "DDIM clipped", "FoD MC", "FoD EM", "residual", "ResShift"])
def test_times_share_a_compiled_graph(name):
    processes = {
        "DDIM": DDIM(ALPHA_BAR, eta=1.0),
        "DDIM clipped": clipping(),
        "residual": ResidualDiffusion(RATES, RATES.sqrt(), eta=1.0, clip=1.0),
        "ResShift": ResShift(RATES),
    }
    process = processes.get(name, FoD(RATES, RATES, 0.1))
    rest = ("EM",) if name == "FoD EM" else ()

    def step(x, p, t, seed):
        if name == "residual":
            return process.step(x, p, p, t, seed=seed)
        found = process.step(x, p, t, *rest, seed=seed)
        return found[0] if isinstance(found, tuple) else found

    x, p = images(2)
    for kind, most in ((int, 3), (np.int64, 1), (torch.tensor, 1), (lambda t: torch.tensor([t, t]), 1)):
        graphs = []
        compiled = torch.compile(step, fullgraph=True, backend=counting(graphs))
        for t in range(19, -1, -2):
            torch.testing.assert_close(compiled(x, p, kind(t), 7), step(x, p, t, 7), rtol=1e-6, atol=1e-6)
        assert len(graphs) <= most
        torch.compiler.reset()


@pytest.mark.parametrize("backend", ["eager", "inductor"])
def test_a_time_without_a_step_is_an_error_in_a_compiled_graph(backend):
    process = ddim()
    x, p = images(2)
    compiled = torch.compile(lambda x, t: process.step(x, p, t, seed=7), fullgraph=True, backend=backend)
    torch.testing.assert_close(compiled(x, torch.tensor(123)), process.step(x, p, 123, seed=7), rtol=1e-6, atol=1e-6)
    for wrong in (0, 19, 499, 501, 1000, -1, -478, -501, -1003, 10**6):
        with pytest.raises((IndexError, RuntimeError), match="index"):
            compiled(x, torch.tensor(wrong))
    torch.compiler.reset()


def test_an_exported_step_serves_every_batch():
    """Exported with two samples and two terms, it asks nowhere whether one number is the other."""

    class Step(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.process = clipping()

        def forward(self, x, p, t):
            return self.process.step(x, p, t, seed=7)

    batch = torch.export.Dim("batch", min=2, max=8)
    shapes = ({0: batch}, {0: batch}, {0: batch})
    program = torch.export.export(Step(), (*images(2), torch.tensor([5, 900])), dynamic_shapes=shapes).module()
    x, p, t = (
        torch.rand(5, *images(1)[0].shape[1:]),
        torch.rand(5, *images(1)[0].shape[1:]),
        torch.tensor([999, 3, 0, 5, 7]),
    )
    torch.testing.assert_close(program(x, p, t), Step()(x, p, t), rtol=1e-6, atol=1e-6)


def test_times_on_a_device_are_not_looked_at():
    """The meta device stands for a GPU: looking at a value there is an error."""
    process = DDIM(ALPHA_BAR, [500, 123, 20], eta=1.0).to("meta")
    x = torch.zeros(2, 3, 4, 5, device="meta")
    for t in (torch.tensor(3, device="meta"), torch.tensor([3, 4], device="meta")):
        assert process.step(x, x, t, seed=7).shape == x.shape
    assert process.step(x, x, torch.tensor([500, 20]), seed=7).device.type == "meta"


MADE = {
    "DDIM": lambda: DDIM(ALPHA_BAR, eta=1.0),
    "FoD": lambda: FoD([0.1, 0.2], [0.1, 0.2], 0.5),
    "GOUB": lambda: GOUB(30, 10),
    "IRSDE": lambda: IRSDE(10, 10, "linear"),
    "ResShift": lambda: ResShift.exponential(4),
    "ResidualDiffusion": lambda: ResidualDiffusion([0.1, 0.5, 0.9], [0.1, 0.2, 0.3], 2, clip=1.0),
}


@pytest.mark.parametrize("name", MADE)
def test_tables_keep_their_values_on_every_way_to_a_device(name):
    """The default device, a model that is built on the meta device and filled later, casts and copies."""
    process = MADE[name]()
    before = [t.clone() for t in process.buffers()]
    with torch.device(DEVICE):
        made = MADE[name]()
    assert {t.device.type for t in made.buffers()} == {DEVICE}
    with torch.device("meta"):
        later = MADE[name]()
    for moved in (made, later.to_empty(device="cpu"), process.half(), copy.deepcopy(process)):
        assert moved.times == process.times
        assert all(torch.equal(a.cpu(), b) for a, b in zip(moved.buffers(), before, strict=True))


def test_wrong_times_are_named():
    x, p = images(2)
    for t in (0, -1, 1000, torch.tensor(0), torch.tensor([500, -1]), torch.tensor([1000]), np.int64(21)):
        rejects(r"DDIM: t must be among \[20, 123, 500\], got -?\d+", lambda t=t: ddim().step(x, p, t))
    rejects("one time, or one per sample", lambda: ddim().step(x, p, torch.tensor([500, 20, 20])))
    rejects("one time, or one per sample", lambda: ddim().step(x, p, torch.full((1, 2), 500)))
    for t in (
        500.0,
        np.float32(500),
        np.array([500, 20]),
        True,
        np.bool_(True),
        "500",
        torch.tensor(500.0),
        torch.tensor([True, False]),
        None,
    ):
        rejects("t must be a whole number", lambda t=t: ddim().step(x, p, t), TypeError)
    for seed in (1.5, True, torch.tensor([1.0])):
        rejects("seed", lambda seed=seed: ddim().step(x, p, 500, seed=seed), TypeError)
    for seed in (2**64, torch.tensor([1, 2, 3])):
        rejects("seed", lambda seed=seed: ddim().step(x, p, 500, seed=seed))
    rejects("one source", lambda: ddim().step(x, p, 500, seed=1, noise=x))


def test_without_a_seed_every_step_draws_anew():
    x, p = images(2)
    for t in (500, torch.tensor([500, 500])):
        torch.manual_seed(3)
        first, second = (ddim().step(x, p, t) for _ in range(2))
        torch.manual_seed(3)
        assert torch.equal(first, ddim().step(x, p, t)) and not torch.equal(first, second)


def test_times_under_vmap():
    process = ddim()
    x, p = images(2)
    found = torch.func.vmap(lambda x, p, t: process.step(x[None], p[None], t, noise=x[None])[0])(
        x, p, torch.tensor([500, 20])
    )
    assert torch.equal(found, process.step(x, p, torch.tensor([500, 20]), noise=x))
