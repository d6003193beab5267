"""DDIM and DDPM: the papers' formulas, and the schedulers of diffusers where it is installed."""

import math

import pytest
import torch

from f2d_kernels.integrations import DDIM

from .support import assert_follows, assert_one_seed_serves, assert_times_as_tensors, images, rejects

ALPHA_BAR = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)


def clean_and_noise(prediction, x, p, a):
    if prediction == "epsilon":
        return (x - math.sqrt(1 - a) * p) / math.sqrt(a), p
    if prediction == "x0":
        return p, (x - math.sqrt(a) * p) / math.sqrt(1 - a)
    return math.sqrt(a) * x - math.sqrt(1 - a) * p, math.sqrt(1 - a) * x + math.sqrt(a) * p


@pytest.mark.parametrize("prediction", ["epsilon", "x0", "v"])
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("clip", [None, 0.7])
@pytest.mark.parametrize(("t", "s"), [(500, 123), (123, 20), (20, -1)])
def test_steps_follow_the_paper(prediction, eta, clip, t, s):
    process = DDIM(ALPHA_BAR, [500, 123, 20], eta, prediction, clip)
    a, b = float(ALPHA_BAR[t]), float(ALPHA_BAR[s]) if s >= 0 else 1.0
    std = eta * math.sqrt((1 - b) / (1 - a)) * math.sqrt(1 - a / b)

    def formula(x, p, eps):
        clean, noise = clean_and_noise(prediction, x, p, a)
        clean = clean if clip is None else clean.clamp(-clip, clip)
        return math.sqrt(b) * clean + math.sqrt(1 - b - std**2) * noise + std * eps

    assert_follows(lambda x, p, e: process.step(x, p, t, noise=e), formula, images(3))


@pytest.mark.parametrize("t", [1, 400, 999])
def test_eta_one_is_the_posterior_of_ddpm(t):
    """q(x_{t-1} | x_t, x_0) of Ho et al., eq. 6 and 7."""
    process = DDIM(ALPHA_BAR, eta=1.0, prediction="x0")
    a, b = float(ALPHA_BAR[t]), float(ALPHA_BAR[t - 1])
    beta = 1 - a / b

    def formula(x, x_0, eps):
        mean = math.sqrt(b) * beta / (1 - a) * x_0 + math.sqrt(a / b) * (1 - b) / (1 - a) * x
        return mean + math.sqrt((1 - b) / (1 - a) * beta) * eps

    assert_follows(lambda x, p, e: process.step(x, p, t, noise=e), formula, images(3))


@pytest.mark.parametrize(("ours", "theirs"), [("epsilon", "epsilon"), ("x0", "sample"), ("v", "v_prediction")])
@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_trajectory_of_diffusers(ours, theirs, eta, clip):
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DDIMScheduler(
        prediction_type=theirs, clip_sample=clip is not None, clip_sample_range=clip or 1
    )
    scheduler.set_timesteps(10)
    process = DDIM(scheduler.alphas_cumprod, scheduler.timesteps, eta, ours, clip)
    assert process.times == tuple(scheduler.timesteps.tolist())
    x, prediction, eps = images(3)
    mine = published = x * 0.5
    for t in process.times:
        published = scheduler.step(prediction, t, published, eta=eta, variance_noise=eps if eta else None).prev_sample
        mine = process.step(mine, prediction, t, noise=eps if eta else None)
        torch.testing.assert_close(mine, published, rtol=1e-5, atol=1e-5)


def test_training_states_times_seeds_and_gradients():
    process = DDIM(ALPHA_BAR, eta=1.0)
    for t in (0, 700):
        assert_follows(
            lambda x, e, t=t: process.sample(x, t, noise=e),
            lambda x, e, t=t: ALPHA_BAR[t].sqrt() * x + (1 - ALPHA_BAR[t]).sqrt() * e,
            images(2),
        )
    x, p = images(2)
    assert_one_seed_serves(lambda t, **n: process.step(x, p, t, **n), (900, 899))
    assert_times_as_tensors(lambda t: DDIM(ALPHA_BAR).step(x, p, t), (900, 5))
    inputs = [x[:1, :1, :2, :3].requires_grad_() for x in images(2, torch.float64)]
    assert torch.autograd.gradcheck(lambda *i: process.step(*i, 7, seed=5), inputs)


def test_a_compiled_loop_has_no_breaks():
    process = DDIM(ALPHA_BAR, [500, 123])
    x, p = images(2)

    def loop(x, p):
        for t in process.times:
            x = process.step(x, p, t)
        return x

    compiled = torch.compile(loop, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x, p), loop(x, p), rtol=0, atol=0)


def test_what_does_not_fit_is_said():
    rejects("alpha_bar must fall", lambda: DDIM(ALPHA_BAR.flip(0)))
    rejects("prediction must be one of .*got 'sample'", lambda: DDIM(ALPHA_BAR, prediction="sample"))
    rejects("eta must lie", lambda: DDIM(ALPHA_BAR, eta=2.0))
    rejects("times must fall", lambda: DDIM(ALPHA_BAR, [1, 500]))
    rejects("t must be among \\[20, 500\\]", lambda: DDIM(ALPHA_BAR, [500, 20]).step(*images(2), 4))
