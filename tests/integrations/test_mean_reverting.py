"""IR-SDE: the SDE's own rules (drift, dispersion, score, Bayes), written step by step in float64."""

import math

import pytest
import torch

from f2d_kernels.integrations import IRSDE

from .support import SHAPE, assert_follows, assert_one_seed_serves, assert_times_as_tensors, images, rejects


class Formula:
    """Rates and their sums as loops over single numbers."""

    def __init__(self, rates, lam, eps=0.005):
        self.steps = len(rates) - 1
        self.dt = -math.log(eps) / sum(rates[1:])
        self.rates, self.lam = rates, lam

    def total(self, t):
        return sum(self.rates[1 : t + 1]) * self.dt

    def std(self, t):
        return self.lam * math.sqrt(1 - math.exp(-2 * self.total(t)))

    def sigma(self, t):
        return self.lam * math.sqrt(2 * self.rates[t])

    def state(self, x_0, mu, eps, t):
        return mu + (x_0 - mu) * math.exp(-self.total(t)) + self.std(t) * eps

    def clean(self, x, mu, noise, t):
        return (x - mu - self.std(t) * noise) * math.exp(self.total(t)) + mu

    def sde(self, x, mu, noise, eps, t):
        score = -noise / self.std(t)
        drift = (self.rates[t] * (mu - x) - self.sigma(t) ** 2 * score) * self.dt
        return x - drift - self.sigma(t) * math.sqrt(self.dt) * eps

    def ode(self, x, mu, noise, t):
        score = -noise / self.std(t)
        return x - (self.rates[t] * (mu - x) - 0.5 * self.sigma(t) ** 2 * score) * self.dt

    def bayes(self, t):
        """Mean's weights and variance of d_{t-1} given d_t and d_0 (d = x - mu), by Gaussian conditioning."""
        decay, spread = math.exp(-self.rates[t] * self.dt), self.lam**2 * (1 - math.exp(-2 * self.rates[t] * self.dt))
        prior = self.std(t - 1) ** 2
        gain = prior * decay / (prior * decay**2 + spread)
        return gain, (1 - gain * decay) * math.exp(-self.total(t - 1)), prior * (1 - gain * decay)

    def optimum(self, x, x_0, mu, t):
        of_state, of_clean, _ = self.bayes(t)
        return mu + of_state * (x - mu) + of_clean * (x_0 - mu)

    def posterior(self, x, mu, noise, eps, t):
        return self.optimum(x, self.clean(x, mu, noise, t), mu, t) + math.sqrt(self.bayes(t)[2]) * eps


def linear_rates(steps):
    return [1000 / (steps + 1) * (1e-4 + (0.02 - 1e-4) * i / steps) for i in range(steps + 1)]


def cosine_rates(steps):
    def level(i):
        return math.cos((i / (steps + 2) + 0.008) / 1.008 * math.pi / 2) ** 2

    return [1 - level(i + 1) / level(0) for i in range(steps + 1)]


RATES = {"linear": linear_rates, "cosine": cosine_rates, "constant": lambda steps: [1.0] * (steps + 1)}


@pytest.mark.parametrize("schedule", RATES)
@pytest.mark.parametrize("t", [1, 2, 57, 100])
def test_every_step_follows_the_sde(schedule, t):
    formula, process = Formula(RATES[schedule](100), 10 / 255), IRSDE(10, 100, schedule, 0.005)
    x, mu, noise, eps = images(4)
    for kind in ("sde", "posterior"):
        assert_follows(
            lambda x, mu, p, e, k=kind: process.step(x, mu, p, t, k, noise=e),
            lambda x, mu, p, e, k=kind: getattr(formula, k)(x, mu, p, e, t),
            [x, mu, noise, eps],
        )
    assert_follows(
        lambda *i: process.step(*i, t, "sde_mean"), lambda *i: formula.sde(*i, torch.zeros(()), t), [x, mu, noise]
    )
    assert_follows(lambda *i: process.step(*i, t, "ode"), lambda *i: formula.ode(*i, t), [x, mu, noise])
    assert_follows(lambda *i: process.optimum(*i, t), lambda *i: formula.optimum(*i, t), [x, noise, mu])
    assert_follows(lambda x, mu, e: process.sample(x, mu, t, noise=e), lambda *i: formula.state(*i, t), [x, mu, eps])


def test_steps_with_the_true_noise_end_at_the_clean_image():
    process = IRSDE(0.2, 50, eps=0.005)
    x_0, mu, eps = images(3, torch.float64)
    for kind in ("ode", "posterior"):
        x = process.sample(x_0, mu, 50, noise=eps)
        for t in process.times:
            std, decay = Formula(cosine_rates(50), 0.2).std(t), math.exp(-Formula(cosine_rates(50), 0.2).total(t))
            x = process.step(x, mu, (x - mu - (x_0 - mu) * decay) / std, t, kind, seed=1)
        # the ODE is solved by Euler's method; the posterior's last step gives its x_0
        assert float((x - x_0).abs().max()) < (0.1 if kind == "ode" else 1e-9)


def test_times_seeds_and_casts():
    process = IRSDE(10, 100)
    x, mu, noise = images(3)
    assert process.times == tuple(range(100, 0, -1))
    assert_one_seed_serves(lambda t, **n: process.step(x, mu, noise, t, **n), (60, 59))
    assert_times_as_tensors(lambda t: process.step(x, mu, noise, t, "ode"), (60, 3))
    before = process.step(x, mu, noise, 40, "ode")
    assert process.state_dict() == {} and list(process.parameters()) == []
    assert torch.equal(process.half().step(x, mu, noise, 40, "ode"), before)
    assert process.to("meta")._sde_32.device.type == "meta"


def test_gradients_reach_the_images():
    process = IRSDE(10, 10)
    inputs = [x[:1, :1, :2, :3].requires_grad_() for x in images(3, torch.float64)]
    assert torch.autograd.gradcheck(lambda *i: process.step(*i, 7, seed=5), inputs)


def test_what_does_not_fit_is_said():
    x, mu, noise = images(3)
    process = IRSDE(10, 10)
    rejects("t must be among .*got 11", lambda: process.step(x, mu, noise, 11))
    rejects("t must be among .*got 0", lambda: process.step(x, mu, noise, 0))
    rejects("step must be one of .*got 'euler'", lambda: process.step(x, mu, noise, 1, "euler"))
    rejects("schedule must be .*got 'sigmoid'", lambda: IRSDE(10, 10, "sigmoid"))
    rejects("11 rates", lambda: IRSDE(10, 10, torch.ones(10)))
    rejects("max_sigma", lambda: IRSDE(0, 10))
    rejects("not finite", lambda: IRSDE(10, 1, eps=1e-60))  # finite in float64 alone
    rejects("whole numbers", lambda: process.step(x, mu, noise, torch.ones(SHAPE[0])), TypeError)
