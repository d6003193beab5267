"""Laws of the process: moments, the semigroup property, agreement with numerical solvers on one Brownian path."""

import math

import pytest
import torch
from scipy import stats

from f2d.transport import LogNormalSchedule
from f2d_kernels import lognormal_transition

PAPER = LogNormalSchedule.named("cosine", "linear", 100)
SIZE = (4, 16, 128, 128)  # 2^20 independent pixels


def factor(t: int, s: int = 0, stream: int = 0) -> torch.Tensor:
    """Samples of f in x_t = mu + (x_s - mu) f."""
    return lognormal_transition(torch.ones(SIZE), torch.zeros(SIZE), *PAPER.transition(s, t), seed=11, stream=stream)


@pytest.mark.parametrize("t", [10, 50, 90])
def test_moments(t):
    """E[f] = exp(-∫ theta), Var[f] = E[f]² (exp(S²) - 1): within five standard errors of 2^20 samples."""
    f = factor(t).double()
    mean = math.exp(-PAPER.dt * float(PAPER.theta[: t + 1].sum()))
    relative = math.exp(float(PAPER.variance[t])) - 1
    n = f.numel()
    assert abs(float(f.mean()) / mean - 1) < 5 * (relative / n) ** 0.5
    w = relative + 1  # kurtosis of a log-normal: w⁴ + 2w³ + 3w² - 3
    assert abs(float(f.var()) / (mean**2 * relative) - 1) < 5 * ((w**4 + 2 * w**3 + 3 * w**2 - 4) / n) ** 0.5


def test_two_steps_equal_one_in_law():
    two, one = factor(40, stream=1) * factor(80, s=40, stream=2), factor(80, stream=3)
    sample = slice(None, None, 16)
    assert stats.ks_2samp(two.flatten()[sample], one.flatten()[sample]).pvalue > 1e-3
    # the same samples against a law 5 % wider are told apart, so the test above can fail
    wider = one.log().mean() + (one.log() - one.log().mean()) * 1.05
    assert stats.ks_2samp(two.flatten()[sample], wider.exp().flatten()[sample]).pvalue < 1e-3


def test_noise_vanishes_at_the_target():
    mu = torch.rand(1, 3, 8, 8)
    for t in (1, 50, 100):
        assert torch.equal(PAPER.sample(mu, mu, t, seed=1), mu)


class Process(torch.nn.Module):
    """dx = theta(u) (mu - x) du + sigma(u) (x - mu) dw with rates constant on ((i - 1) dt, i dt]."""

    noise_type = "diagonal"
    sde_type = "ito"

    def __init__(self, schedule: LogNormalSchedule, mu: torch.Tensor):
        super().__init__()
        self.schedule, self.mu = schedule, mu

    def index(self, u: torch.Tensor) -> int:
        return min(int(float(u) / self.schedule.dt + 1e-6) + 1, self.schedule.num_steps)

    def f(self, u, x):
        return self.schedule.theta[self.index(u)] * (self.mu - x)

    def g(self, u, x):
        return self.schedule.sigma2[self.index(u)].sqrt() * (x - self.mu)


def errors(schedule: LogNormalSchedule, method: str, halvings: range, paths: int) -> list[float]:
    """Mean |solver - closed form| at t = T on the same Brownian paths, for step sizes dt / 2^k."""
    torchsde = pytest.importorskip("torchsde")
    x_0 = torch.ones(paths, 1, dtype=torch.float64)
    mu = torch.full_like(x_0, 0.25)
    end = schedule.dt * schedule.num_steps
    brownian = torchsde.BrownianInterval(0.0, end, size=(paths, 1), dtype=torch.float64, entropy=5)
    increments = [
        brownian((i - 1) * schedule.dt, i * schedule.dt)
        if i < schedule.num_steps
        else brownian((i - 1) * schedule.dt, end)
        for i in range(1, schedule.num_steps + 1)
    ]
    integral = sum(s2.sqrt() * w for s2, w in zip(schedule.sigma2[1:], increments))
    noise = (integral / schedule.log_std[-1])[..., None, None]  # one ε per path: ∫ sigma dw = S ε
    as_image = (x_0[..., None, None], mu[..., None, None])
    exact = schedule.sample(*as_image, schedule.num_steps, noise=noise)[..., 0, 0]
    found = []
    for k in halvings:
        solved = torchsde.sdeint(
            Process(schedule, mu),
            x_0,
            torch.tensor([0.0, end], dtype=torch.float64),
            bm=brownian,
            method=method,
            dt=schedule.dt / 2**k,
        )[-1]
        found.append(float((solved.detach() - exact).abs().mean()))
    return found


@pytest.mark.parametrize(("method", "order"), [("euler", 0.5), ("milstein", 1.0)])
def test_solvers_converge_to_the_closed_form_at_their_order(method, order):
    schedule = LogNormalSchedule(torch.ones(8), 2 * torch.ones(8), 1 / 8)  # noisy enough for Euler's 1/2 to show
    found = errors(schedule, method, range(5), paths=4000)
    slope = math.log2(found[0] / found[-1]) / (len(found) - 1)
    assert slope == pytest.approx(order, abs=0.15)


def test_paper_schedule_against_a_fine_solver():
    coarse, fine = errors(LogNormalSchedule.named("cosine", "linear", 10), "milstein", range(4, 6), paths=500)
    assert fine == pytest.approx(coarse / 2, rel=0.1) and fine < 2e-4  # of a residual that has fallen to 1e-3
