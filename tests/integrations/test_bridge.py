"""GOUB: the mean-reverting process conditioned on its end, by Gaussian conditioning on covariances in float64."""

import math

import pytest
import torch

from f2d_kernels.integrations import GOUB

from .support import assert_follows, assert_one_seed_serves, assert_times_as_tensors, images, rejects
from .test_mean_reverting import RATES


class Conditioned:
    """The plain process d = x - mu about 0 with d_0 given, whose covariances are known; then d_T = 0 is given too."""

    def __init__(self, rates, lam, eps=0.005):
        self.dt = -math.log(eps) / sum(rates[1:])
        self.rates, self.lam, self.end = rates, lam, len(rates) - 1

    def total(self, t):
        return sum(self.rates[1 : t + 1]) * self.dt

    def covariance(self, s, t):
        """Of d_s and d_t given d_0."""
        early = min(s, t)
        return self.lam**2 * (1 - math.exp(-2 * self.total(early))) * math.exp(-abs(self.total(t) - self.total(s)))

    def moments(self, t):
        """(the share of d_0 in the mean of d_t, its variance), given d_0 and d_T = 0."""
        gain = self.covariance(t, self.end) / self.covariance(self.end, self.end)
        share = math.exp(-self.total(t)) - gain * math.exp(-self.total(self.end))
        return share, self.covariance(t, t) - gain * self.covariance(t, self.end)

    def between(self, t):
        """Weights of d_t and d_0 in the mean of d_{t-1} given d_t, d_0 and d_T = 0, t < T."""
        times = (t - 1, t, self.end)
        covariances = torch.tensor([[self.covariance(a, b) for b in times] for a in times], dtype=torch.float64)
        weights = torch.linalg.solve(covariances[1:, 1:], covariances[0, 1:])
        start = [math.exp(-self.total(a)) for a in times]
        return float(weights[0]), start[0] - float(weights[0]) * start[1] - float(weights[1]) * start[2]

    def state(self, x_0, mu, eps, t):
        share, variance = self.moments(t)
        return mu + share * (x_0 - mu) + math.sqrt(max(variance, 0)) * eps

    def optimum(self, x, x_0, mu, t):
        of_state, of_clean = self.between(t)
        return mu + of_state * (x - mu) + of_clean * (x_0 - mu)

    def sde(self, x, mu, noise, eps, t):
        """Euler's step backwards in time; the pull to the end is g² times the gradient of log p(d_T = 0 | d_t)."""
        rate, g2 = self.rates[t], 2 * self.lam**2 * self.rates[t]
        drift = rate * (mu - x)
        if t < self.end:
            decay = math.exp(self.total(t) - self.total(self.end))
            drift = drift - g2 * decay**2 / (self.lam**2 * (1 - decay**2)) * (x - mu)
            drift = drift + g2 * noise / math.sqrt(self.moments(t)[1])
        return x - drift * self.dt - math.sqrt(g2 * self.dt) * eps


@pytest.mark.parametrize("schedule", RATES)
@pytest.mark.parametrize("t", [1, 2, 57, 99, 100])
def test_every_step_follows_the_conditioned_process(schedule, t):
    formula, process = Conditioned(RATES[schedule](100), 30 / 255), GOUB(30, 100, schedule, 0.005)
    x, mu, noise, eps = images(4)
    assert_follows(
        lambda x, mu, p, e: process.step(x, mu, p, t, "sde", noise=e),
        lambda *i: formula.sde(*i, t),
        [x, mu, noise, eps],
    )
    assert_follows(lambda *i: process.step(*i, t), lambda *i: formula.sde(*i, torch.zeros(()), t), [x, mu, noise])
    assert_follows(lambda x, mu, e: process.sample(x, mu, t, noise=e), lambda *i: formula.state(*i, t), [x, mu, eps])
    if t < 100:
        assert_follows(lambda *i: process.optimum(*i, t), lambda *i: formula.optimum(*i, t), [x, noise, mu])


def test_it_begins_in_the_clean_and_ends_in_the_degraded_image():
    x_0, mu, eps = images(3, torch.float64)
    process = GOUB(0.2, 50)
    assert torch.equal(process.sample(x_0, mu, 0, noise=eps), x_0)
    assert torch.equal(process.sample(x_0, mu, 50, noise=eps), mu)
    # what comes before the end does not depend on how the end was reached
    assert torch.equal(process.optimum(mu, x_0, mu, 50), process.sample(x_0, mu, 49, noise=0 * eps))


def test_the_mean_ode_with_the_true_noise_ends_near_the_clean_image():
    x_0, mu = images(2, torch.float64)
    process, formula = GOUB(0.2, 200, eps=0.005), Conditioned(RATES["cosine"](200), 0.2)
    x = process.optimum(mu, x_0, mu, 200)
    for t in range(199, 0, -1):
        share, variance = formula.moments(t)
        x = process.step(x, mu, (x - mu - share * (x_0 - mu)) / math.sqrt(variance), t)
    assert float((x - x_0).abs().max()) < 0.05  # Euler's method


def test_times_seeds_and_what_does_not_fit():
    process = GOUB(30, 100)
    x, mu, noise = images(3)
    assert process.times == tuple(range(100, 0, -1))
    assert_one_seed_serves(lambda t, **n: process.step(x, mu, noise, t, "sde", **n), (60, 59))
    assert_times_as_tensors(lambda t: process.step(x, mu, noise, t), (60, 3))
    rejects("step must be one of .*got 'ode'", lambda: process.step(x, mu, noise, 1, "ode"))
    rejects("GOUB: schedule must be .*got 'sigmoid'", lambda: GOUB(30, 10, "sigmoid"))
    rejects("GOUB: schedule must hold 11 rates", lambda: GOUB(30, 10, torch.ones(10)))
