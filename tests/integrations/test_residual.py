"""RDDM and DiffUIR: what the marginals and the posterior demand."""

import math

import pytest
import torch

from f2d_kernels.integrations import ResidualDiffusion

from .support import assert_follows, assert_one_seed_serves, assert_times_as_tensors, images, rejects

T = 30
A = torch.linspace(1, 0.01, T, dtype=torch.float64).cumsum(0) / 15.15
B = (torch.linspace(0.01, 1, T, dtype=torch.float64).cumsum(0) / 15.15 * 0.5).sqrt()
D = torch.linspace(0, 0.7, T, dtype=torch.float64)


def at(levels, t):
    return 0.0 if t < 0 else float(levels[t])


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(
    ("times", "t", "s"), [(None, 29, 28), (None, 0, -1), ([29, 20, 4], 20, 4), ([29, 20, 4], 4, -1)]
)
def test_steps_follow_the_formula(eta, times, t, s):
    process = ResidualDiffusion(A, B, times, eta)
    std = math.sqrt(eta * (at(B, t) ** 2 - at(B, s) ** 2)) * at(B, s) / at(B, t)

    def formula(x, residual, predicted, eps):
        clean = x - at(A, t) * residual - at(B, t) * predicted
        return clean + at(A, s) * residual + math.sqrt(at(B, s) ** 2 - std**2) * predicted + std * eps

    assert_follows(lambda x, r, p, e: process.step(x, r, p, t, noise=e), formula, images(4))

    def residual_alone(x, residual, degraded, eps):
        clean = degraded - residual
        return formula(x, residual, (x - clean - at(A, t) * residual) / at(B, t), eps)

    assert_follows(lambda x, r, y, e: process.step(x, r, None, t, y, noise=e), residual_alone, images(4))


@pytest.mark.parametrize(("t", "s"), [(29, 28), (0, -1)])
def test_diffuir_steps_follow_from_its_marginals(t, s):
    process = ResidualDiffusion(A, B, delta_bar=D)

    def formula(x, residual, predicted, degraded):
        clean = x - at(A, t) * residual - at(B, t) * predicted + at(D, t) * degraded
        return clean + at(A, s) * residual + at(B, s) * predicted - at(D, s) * degraded

    assert_follows(lambda x, r, p, y: process.step(x, r, p, t, y), formula, images(4))

    def residual_alone(x, residual, degraded):
        clean = degraded - residual
        predicted = (x - clean - at(A, t) * residual + at(D, t) * degraded) / at(B, t)
        return clean + at(A, s) * residual + at(B, s) * predicted - at(D, s) * degraded

    assert_follows(lambda x, r, y: process.step(x, r, None, t, y), residual_alone, images(3))


@pytest.mark.parametrize("delta", [None, D])
def test_training_states_and_the_way_back(delta):
    process = ResidualDiffusion(A, B, delta_bar=delta)
    d = torch.zeros(T) if delta is None else delta
    for t in (0, 17, 29):
        assert_follows(
            lambda x_0, y, e, t=t: process.sample(x_0, y, t, noise=e),
            lambda x_0, y, e, t=t: x_0 + A[t] * (y - x_0) + B[t] * e - d[t] * y,
            images(3),
        )
    x_0, y, eps = images(3, torch.float64)
    x = process.sample(x_0, y, T - 1, noise=eps)
    for t in process.times:
        x = process.step(x, y - x_0, None, t, y)
    torch.testing.assert_close(x, x_0, rtol=0, atol=1e-9)


def test_times_seeds_and_gradients():
    process = ResidualDiffusion(A, B, eta=1.0)
    x, residual, predicted = images(3)
    assert_one_seed_serves(lambda t, **n: process.step(x, residual, predicted, t, **n), (20, 19))
    still = ResidualDiffusion(A, B)
    assert_times_as_tensors(lambda t: still.step(x, residual, predicted, t), (20, 3))
    inputs = [x[:1, :1, :2, :3].requires_grad_() for x in images(3, torch.float64)]
    assert torch.autograd.gradcheck(lambda *i: process.step(*i, 7, seed=5), inputs)


@pytest.mark.parametrize("kind", [int, torch.tensor, lambda t: torch.tensor([t, t])], ids=["int", "0-dim", "[B]"])
def test_the_residual_and_the_last_image_are_clipped(kind):
    process, free = ResidualDiffusion(A, B, [20, 4], clip=0.6), ResidualDiffusion(A, B, [20, 4])
    x, residual, predicted = images(3)
    for t in (20, 4):
        wanted = free.step(x, residual.clamp(-0.6, 0.6), predicted, t)
        assert float(wanted.abs().max()) > 1
        found = process.step(x, residual, predicted, kind(t))
        assert torch.equal(found, wanted.clamp(-0.6, 0.6) if t == 4 else wanted)
    both = process.step(x, residual, predicted, torch.tensor([20, 4]))
    assert torch.equal(both, torch.stack([process.step(x, residual, predicted, t)[b] for b, t in enumerate((20, 4))]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_the_default_dtype_does_not_move_the_times(dtype):
    published = torch.linspace(-1, 99, 8, dtype=torch.float32).int().flip(0)[:-1].tolist()
    level = torch.linspace(0.01, 1, 100, dtype=torch.float64)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        assert list(ResidualDiffusion(level, level, 7).times) == published
        assert ResidualDiffusion(level.repeat(10).sort().values, torch.ones(1000), 10).times[0] == 999
    finally:
        torch.set_default_dtype(before)


def test_what_does_not_fit_is_said():
    x, residual, predicted = images(3)
    rejects("steps must be 1 to 30, got 31", lambda: ResidualDiffusion(A, B, 31))
    rejects("clip must be > 0", lambda: ResidualDiffusion(A, B, clip=0.0))
    rejects("needs the degraded", lambda: ResidualDiffusion(A, B).step(x, residual, None, 3))
    rejects("needs the degraded", lambda: ResidualDiffusion(A, B, delta_bar=D).step(x, residual, predicted, 3))
    rejects("differ in length", lambda: ResidualDiffusion(A, B[1:]))
    rejects("eta must lie", lambda: ResidualDiffusion(A, B, eta=0.5, delta_bar=D))
    rejects("eta must lie", lambda: ResidualDiffusion(A, B, eta=0.5, denoise=False))
    rejects(
        r"terms\[1\] must be a tensor", lambda: ResidualDiffusion(A, B, clip=1.0).step(x, None, predicted, 3), TypeError
    )
    whole = residual.int()
    rejects(
        r"terms\[1\] must be .*int32", lambda: ResidualDiffusion(A, B, clip=1.0).step(x, whole, predicted, 3), TypeError
    )
    rejects("times must fall", lambda: ResidualDiffusion(A, B, [3, 5]))
    rejects("times must fall", lambda: ResidualDiffusion(A, B, [T]))
    rejects("beta_bar must be > 0", lambda: ResidualDiffusion(A, torch.zeros(T)))
    rejects("t must be among .*got 21", lambda: ResidualDiffusion(A, B, [29, 20]).step(x, residual, predicted, 21))
