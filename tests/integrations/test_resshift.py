"""ResShift: its transition kernel, and Bayes' rule on it."""

import math

import pytest
import torch

from f2d_kernels.integrations import ResShift

from .support import assert_follows, assert_one_seed_serves, assert_times_as_tensors, images, rejects

KAPPA = 2.0


def published_etas(steps=15, power=0.3, kappa=KAPPA, noise=0.04, end=0.99):
    """Of the repository's configurations: noise and end are of the root of eta."""
    first = min(noise / kappa, noise)
    growth = math.exp(math.log(end / first) / (steps - 1))
    return [(first * growth ** (((t - 1) / (steps - 1)) ** power * (steps - 1))) ** 2 for t in range(1, steps + 1)]


ETAS = published_etas()


@pytest.mark.parametrize(("options", "etas"), [({}, ETAS), ({"steps": 4, "min_noise_level": 0.2}, None)])
def test_the_published_schedule(options, etas):
    process = ResShift.exponential(**options)
    given = ResShift(etas or published_etas(4, noise=0.2), KAPPA)
    torch.testing.assert_close(process._state_64, given._state_64, rtol=1e-12, atol=1e-12)
    assert process.times == tuple(range(len(given.times) - 1, -1, -1))
    assert float(process._state_64[-1, 1]) == pytest.approx(0.9801)


@pytest.mark.parametrize("t", [0, 1, 8, 14])
def test_steps_are_bayes_rule_on_the_kernels(t):
    """x_t | x_{t-1} ~ N(x_{t-1} + a (y - x_0), kappa² a) and x_{t-1} | x_0 ~ N(x_0 + eta (y - x_0), kappa² eta)."""
    process = ResShift(ETAS, KAPPA)
    last = ETAS[t - 1] if t else 0.0
    alpha = ETAS[t] - last
    gain = last / (last + alpha)

    def formula(x, x_0, y, eps):
        prior = x_0 + last * (y - x_0)
        mean = prior + gain * (x - prior - alpha * (y - x_0))
        return mean + KAPPA * math.sqrt(last * (1 - gain)) * eps

    # the degraded image drops out of the mean
    assert_follows(lambda x, x_0, y, e: process.step(x, x_0, t, noise=e), formula, images(4))
    assert_follows(
        lambda x_0, y, e: process.sample(x_0, y, t, noise=e),
        lambda x_0, y, e: x_0 + ETAS[t] * (y - x_0) + KAPPA * math.sqrt(ETAS[t]) * e,
        images(3),
    )


def test_prior_times_seeds_and_gradients():
    process = ResShift(ETAS, KAPPA)
    x, x_0 = images(2)
    assert_follows(lambda y, e: process.prior(y, noise=e), lambda y, e: y + KAPPA * math.sqrt(ETAS[-1]) * e, images(2))
    assert_one_seed_serves(lambda t, **n: process.step(x, x_0, t, **n), (14, 13))
    silent = torch.zeros_like(x)
    assert_times_as_tensors(lambda t: process.step(x, x_0, t, noise=silent), (9, 0))
    assert torch.equal(process.step(x, x_0, 0, seed=1), x_0)
    inputs = [x[:1, :1, :2, :3].requires_grad_() for x in images(2, torch.float64)]
    assert torch.autograd.gradcheck(lambda *i: process.step(*i, 7, seed=5), inputs)


def test_what_does_not_fit_is_said():
    rejects("etas must rise", lambda: ResShift([0.1, 0.1]))
    rejects("etas must rise", lambda: ResShift([0.0, 0.1]))
    rejects("kappa", lambda: ResShift([0.1, 0.2], 0.0))
    rejects("at least 2", lambda: ResShift.exponential(1))
    rejects("etas_end must be above 0.02", lambda: ResShift.exponential(etas_end=0.01))
    rejects("clip", lambda: ResShift(ETAS, clip=-1.0))
    rejects("t must be among .*got 15", lambda: ResShift(ETAS).step(*images(2), 15))
