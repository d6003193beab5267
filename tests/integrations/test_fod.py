"""FoD: steps against the formula of the paper, states against Euler-Maruyama's law in the limit."""

import math

import pytest
import torch

from f2d_kernels.integrations import FoD

from .support import assert_follows, assert_one_seed_serves, assert_times_as_tensors, images, per_sample, rejects

THETA = [0.02 + 0.9 * i / 19 for i in range(20)]
SIGMA2 = [0.1 / (1 + i) for i in range(20)]
DT = 0.3


def logs(s, t):
    mean = -sum((THETA[i] + SIGMA2[i] / 2) * DT for i in range(s, t))
    return mean, math.sqrt(sum(SIGMA2[i] * DT for i in range(s, t)))


def moved(start, mu, eps, s, t):
    mean, std = logs(s, t)
    return mu + (start - mu) * torch.exp(mean + std * eps)


def meant(target, prediction, x, x_0):
    return prediction + {"SFLOW": x, "FLOW": x_0, "FINAL_X": 0}[target]


@pytest.mark.parametrize("target", ["SFLOW", "FLOW", "FINAL_X"])
@pytest.mark.parametrize("steps", [1, 7, 20])
@pytest.mark.parametrize("clamp", [None, (-1.0, 1.0)])
def test_both_samplers_follow_the_formula(target, steps, clamp):
    fod = FoD(THETA, SIGMA2, DT, steps, target, clamp)
    path = [i * 20 // steps for i in range(steps + 1)]
    assert fod.times == tuple(path[:-1])
    for s, t in {(path[0], path[1]), (path[-2], path[-1])}:

        def formula(sampler, x, x_0, prediction, eps, s=s, t=t):
            mu = meant(target, prediction, x, x_0)
            mu = mu if clamp is None else mu.clamp(*clamp)
            return moved(x, mu, eps, s, t) if sampler == "MC" else moved(x_0, mu, eps, 0, t), mu

        for sampler in ("MC", "NMC"):
            for part in (0, 1):
                assert_follows(
                    lambda x, x_0, p, e, k=sampler, j=part, s=s: fod.step(x, p, s, k, x_0, noise=e)[j],
                    lambda *i, k=sampler, j=part: formula(k, *i)[j],
                    images(4),
                )


@pytest.mark.parametrize("t", [0, 1, 13, 20])
def test_training_states_follow_the_formula(t):
    fod = FoD(THETA, SIGMA2, DT)
    assert_follows(
        lambda x_0, mu, e: fod.sample(x_0, mu, t, noise=e), lambda x_0, mu, e: moved(x_0, mu, e, 0, t), images(3)
    )


def test_the_state_has_the_moments_of_the_sde():
    """E[x_t - mu] = (x_0 - mu) exp(-Σ theta dt) and E[(x_t - mu)²] = (x_0 - mu)² exp(Σ (sigma2 - 2 theta) dt), Itô."""
    fod = FoD(THETA, SIGMA2, DT)
    x_0, mu = torch.full((1, 1, 512, 512), 0.9), torch.full((1, 1, 512, 512), 0.1)
    left = (fod.sample(x_0, mu, 6, seed=1).double() - mu) / 0.8
    drift, spread = sum(THETA[:6]) * DT, sum(SIGMA2[:6]) * DT
    assert float(left.mean()) == pytest.approx(math.exp(-drift), rel=3e-3)
    assert float((left**2).mean()) == pytest.approx(math.exp(spread - 2 * drift), rel=6e-3)


def test_times_seeds_and_gradients():
    fod = FoD(THETA, SIGMA2, DT)
    x, prediction = images(2)
    assert_one_seed_serves(lambda t, **n: fod.step(x, prediction, t, **n)[0], (2, 3))
    eps = torch.zeros_like(x)
    assert_times_as_tensors(lambda t: fod.step(x, prediction, t, noise=eps)[0], (2, 9))
    t = torch.tensor([4, 11])
    torch.testing.assert_close(
        fod.sample(x, prediction, t, noise=eps),
        prediction + (x - prediction) * per_sample(torch.tensor([logs(0, 4)[0], logs(0, 11)[0]]).exp()),
    )
    inputs = [x[:1, :1, :2, :3].requires_grad_() for x in images(2, torch.float64)]
    for sampler in ("MC", "EM"):
        assert torch.autograd.gradcheck(lambda x, p, s=sampler: fod.step(x, p, 5, s, seed=2), inputs)


@pytest.mark.parametrize("sampler", ["MC", "NMC", "EM"])
@pytest.mark.parametrize("target", ["SFLOW", "FINAL_X"])
def test_16_bits_follow_32(sampler, target):
    fod = FoD(THETA, SIGMA2, DT, target=target, clamp=(-1, 1))
    x, prediction = (image.bfloat16() for image in images(2))
    found = fod.step(x, prediction, 5, sampler, x, seed=2)
    wide = fod.step(x.float(), prediction.float(), 5, sampler, x.float(), seed=2)
    for mine, exact in zip(found, wide):
        assert mine.dtype == torch.bfloat16
        torch.testing.assert_close(mine.float(), exact, rtol=2**-7, atol=1e-2)


def test_what_does_not_fit_is_said():
    x, prediction = images(2)
    rejects("needs x_0", lambda: FoD(THETA, SIGMA2, DT).step(x, prediction, 0, "NMC"))
    rejects("needs x_0", lambda: FoD(THETA, SIGMA2, DT, target="FLOW").step(x, prediction, 0))
    rejects("sampler must be one of .*got 'Euler'", lambda: FoD(THETA, SIGMA2, DT).step(x, prediction, 0, "Euler"))
    rejects("omit FoDiffusion's entry for time 0", lambda: FoD([0.0, *THETA], [0.0, *SIGMA2], DT))
    rejects("t must be among .*got 20", lambda: FoD(THETA, SIGMA2, DT).step(x, prediction, 20))
    rejects("target must be one of .*got 'X'", lambda: FoD(THETA, SIGMA2, DT, target="X"))
    rejects("1 to 20", lambda: FoD(THETA, SIGMA2, DT, 21))
    rejects(">= 0 per step", lambda: FoD(THETA, SIGMA2[:-1], DT))
    rejects("finite", lambda: FoD([math.nan], [1.0], DT))


@pytest.mark.parametrize("sampler", ["MC", "NMC", "EM"])
@pytest.mark.parametrize("target", ["SFLOW", "FLOW", "FINAL_X"])
def test_images_that_do_not_fit_are_named_by_every_sampler(sampler, target):
    x, prediction = images(2)
    step = FoD(THETA, SIGMA2, DT, target=target).step
    for wrong, said in ((None, "NoneType"), (x.int(), "int32")):
        rejects(f"^FoD: x must be .*{said}", lambda wrong=wrong: step(wrong, prediction, 0, sampler, x), TypeError)
        rejects(f"^FoD: prediction must be .*{said}", lambda wrong=wrong: step(x, wrong, 0, sampler, x), TypeError)
    rejects("^FoD: prediction must be the shape of x", lambda: step(x, prediction[:1], 0, sampler, x))
    rejects("^FoD: x_0 must be the shape of x", lambda: step(x, prediction, 0, sampler, x[:, :1]))
