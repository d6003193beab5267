"""Samplers: their equations on predictors with known answers, their bounds, and what one call can and cannot do."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from f2d.transport import LogNormalSchedule, mu_of, target_of, transport
from f2d.transport.samplers import sampling_times
from f2d_kernels import lognormal_transition

PAPER = LogNormalSchedule.named()
TIMES = [0, 25, 50, 75, 100]


def image(*shape: int, seed: int = 0, scale: float = 0.8) -> torch.Tensor:
    return (torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1) * scale


@pytest.mark.parametrize("target", ["SFLOW", "FLOW", "FINAL_X"])
def test_targets_invert(target):
    x_t, x_0, mu = image(1, 3, 4, 4), image(1, 3, 4, 4, seed=1), image(1, 3, 4, 4, seed=2)
    v = target_of(target, x_t, x_0, mu)
    torch.testing.assert_close(mu_of(target, v, x_t, x_0), mu)
    expected = {"SFLOW": mu - x_t, "FLOW": mu - x_0, "FINAL_X": mu}[target]
    assert torch.equal(v, expected)


def test_unknown_target():
    x = torch.zeros(1, 3, 2, 2)
    for function in (target_of, mu_of):
        with pytest.raises(ValueError, match=r"target must be one of SFLOW, FLOW, FINAL_X.*got 'sflow'"):
            function("sflow", x, x, x)


@pytest.mark.parametrize("sampler", ["MC", "NMC"])
@pytest.mark.parametrize("steps", [1, 4, 100])
def test_a_perfect_predictor_leaves_a_thousandth_of_the_residual(sampler, steps):
    """With mu known, any number of steps has the law of one: median factor 0.001, log-deviation S_100."""
    y, mu = torch.full((1, 3, 128, 128), 0.5), torch.zeros(1, 3, 128, 128)
    out = transport(lambda x, t: mu, y, PAPER, steps=steps, sampler=sampler, seed=4)
    log_factor = (out / y).log()
    n = out.numel()
    assert float(log_factor.mean()) == pytest.approx(math.log(0.001), abs=5 * 0.908 / n**0.5)
    assert float(log_factor.std()) == pytest.approx(0.9080, rel=5 / (2 * n) ** 0.5)


def test_mean_is_one_prediction_at_time_zero():
    y, seen = image(2, 3, 5, 5), []
    out = transport(lambda x, t: seen.append((x, t)) or 2 * x, y, PAPER, sampler="mean")
    assert torch.equal(out, (2 * y).clamp(-1, 1))
    assert len(seen) == 1 and seen[0][1] == 0 and torch.equal(seen[0][0], y)


def reference(sampler: str, predict_mu, y: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Four steps written out in float64."""
    m, v, dt = PAPER.log_mean, PAPER.variance, PAPER.dt
    x = y = y.double()
    for i in range(4):
        s, t = TIMES[i], TIMES[i + 1]
        mu, eps = predict_mu(x, s).clamp(-1, 1), noise[i].double()
        if sampler == "MC":
            x = mu + (x - mu) * (m[t] - m[s] + (v[t] - v[s] + 1e-8).sqrt() * eps).clamp(-20, 20).exp()
        elif sampler == "NMC":
            x = mu + (y - mu) * (m[t] + v[t].sqrt() * eps).clamp(-20, 20).exp()
        else:
            x = x + PAPER.theta[t] * (mu - x) * dt + (PAPER.sigma2[t] * dt).sqrt() * (x - mu) * eps
        x = x.clamp(-2, 2)
    return x.clamp(-1, 1)


@pytest.mark.parametrize("sampler", ["MC", "NMC", "EM"])
@pytest.mark.parametrize("spread", [1.0, 8.0], ids=["usual", "far in the tail: every clamp at work"])
@pytest.mark.filterwarnings("ignore:EM takes one dt")
def test_equations(sampler, spread):
    y, noise = (
        image(2, 3, 6, 7, scale=1.0),
        spread * torch.randn(4, 2, 3, 6, 7, generator=torch.Generator().manual_seed(3)),
    )

    def predict_mu(x, t):
        return 1.5 * x.roll(1, dims=3) - 0.1 * t / 100

    out = transport(predict_mu, y, PAPER, steps=4, sampler=sampler, noise=noise)
    torch.testing.assert_close(out, reference(sampler, predict_mu, y, noise).float(), rtol=0, atol=2e-5)


@pytest.mark.parametrize("sampler", ["MC", "NMC", "EM"])
@pytest.mark.filterwarnings("ignore:EM takes one dt")
def test_a_seed_is_one_stream_per_step(sampler):
    """Seeded noise equals the noise that one transition of exponent ε gives back, stream = step."""
    y = image(2, 3, 9, 6)
    one, zero = torch.ones_like(y), torch.zeros_like(y)
    noise = torch.stack([lognormal_transition(one, zero, 0.0, 1.0, seed=21, stream=i).log() for i in range(4)])
    assert not torch.allclose(noise[0], noise[1])
    by_seed = transport(lambda x, t: 0.5 * x, y, PAPER, steps=4, sampler=sampler, seed=21)
    by_noise = transport(lambda x, t: 0.5 * x, y, PAPER, steps=4, sampler=sampler, noise=noise)
    torch.testing.assert_close(by_seed, by_noise, rtol=0, atol=1e-5)


def test_euler_maruyama_warns_when_it_stops_short():
    y, mu = image(1, 3, 16, 16), torch.zeros(1, 3, 16, 16)
    with pytest.warns(RuntimeWarning, match="4 of 100 steps stop short") as caught:
        short = transport(lambda x, t: mu, y, PAPER, steps=4, sampler="EM", seed=1)
    full = transport(lambda x, t: mu, y, PAPER, steps=100, sampler="EM", seed=1)
    assert caught[0].filename == __file__
    assert short.abs().mean() > 0.05 * y.abs().mean()
    assert full.abs().mean() < 0.01 * y.abs().mean()


def test_deterministic_flow_needs_no_noise():
    schedule = LogNormalSchedule.named("straight", "none", 10)
    y, mu = image(1, 3, 4, 4), image(1, 3, 4, 4, seed=1)
    states = []
    out = transport(lambda x, t: states.append(x) or mu, y, schedule, steps=5, seed=1)
    torch.testing.assert_close(out, mu)
    for i, x in enumerate(states):
        torch.testing.assert_close(x, y + (mu - y) * i / 5, rtol=0, atol=1e-6)


def posterior_mean(y: torch.Tensor):
    """E[mu | x_t, y] per pixel for mu = ±0.5 with equal odds: what a perfect network predicts."""
    modes = torch.tensor([-0.5, 0.5], dtype=torch.float64).reshape(2, 1, 1, 1, 1)

    def predict(x: torch.Tensor, t: int) -> torch.Tensor:
        log_mean, log_std = PAPER.transition(0, t)
        if t == 0:
            return torch.zeros_like(x)
        factor = (x.double() - modes) / (y.double() - modes)
        log = factor.clamp_min(1e-300).log()
        density = -0.5 * ((log - log_mean) / log_std) ** 2 - log - (y - modes).abs().log()
        density = density.masked_fill(factor <= 0, -math.inf)
        return (density.softmax(dim=0).nan_to_num(0.5) * modes).sum(dim=0).float()

    return predict


@pytest.mark.parametrize(("steps", "decided"), [(10, 0.7), (100, 0.95)])
def test_several_steps_split_between_two_modes(steps, decided):
    y = torch.full((1, 1, 64, 64), 0.1)
    out = transport(posterior_mean(y), y, PAPER, steps=steps, seed=9)
    near = [(out - mode).abs() < 0.1 for mode in (-0.5, 0.5)]
    assert (near[0] | near[1]).float().mean() > decided
    assert min(n.float().mean() for n in near) > 0.3


def test_one_step_gives_the_mean_of_two_modes():
    y = torch.full((1, 1, 64, 64), 0.1)
    out = transport(posterior_mean(y), y, PAPER, steps=1, seed=9)
    assert out.abs().max() < 0.1 * 0.001 * math.exp(5 * 0.908)  # five deviations of the residual's factor


def test_the_exact_mean_never_moves():
    """At y = E[mu] the residual is zero, and so is all noise, in any number of steps."""
    y = torch.zeros(1, 1, 16, 16)
    assert torch.equal(transport(posterior_mean(y), y, PAPER, steps=100, seed=9), y)


def test_euler_maruyama_is_refused_where_it_would_overshoot():
    """The last rate of the straight flow is 20 - ln T: a step of Euler's method multiplies the residual by -14.4."""
    y = image(1, 3, 4, 4)
    with pytest.raises(ValueError, match=r"must be MC or NMC with this schedule.*residual by -14\.4"):
        transport(lambda x, t: y, y, LogNormalSchedule.named("straight", "none", 100), steps=100, sampler="EM")
    for theta in ("constant", "linear", "cosine", "jsd"):
        schedule = LogNormalSchedule.named(theta, "linear", 100)
        assert len(schedule.times(100)) == len(sampling_times(schedule, 100, "EM"))


@pytest.mark.parametrize("steps", [1, 4, 100])
def test_the_deterministic_flow_stays_at_the_mean_of_two_modes(steps):
    """Failure mode 1: y and x_t give away mu = y + (x_t - y) T / t, so all calls after the first repeat its mean."""
    schedule = LogNormalSchedule.named("straight", "none", 100)
    y = torch.full((1, 1, 8, 8), 0.1)

    def predict(x: torch.Tensor, t: int) -> torch.Tensor:
        return y + (x - y) * 100 / t if t else torch.zeros_like(x)

    assert transport(predict, y, schedule, steps=steps, seed=9).abs().max() < 1e-5


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(["MC", "NMC"]), st.integers(1, 100), st.integers(0, 2**64 - 1))
def test_results_are_images_whatever_the_prediction(sampler, steps, seed):
    y = image(1, 3, 3, 5, scale=1.0)
    out = transport(lambda x, t: 10 * x + 3, y, PAPER, steps=steps, sampler=sampler, seed=seed)
    assert out.shape == y.shape and out.abs().max() <= 1


def test_computed_in_float32_for_half_precision_images():
    y = image(1, 3, 4, 4).bfloat16()
    seen = []
    out = transport(lambda x, t: seen.append(x.dtype) or x.bfloat16(), y, PAPER, steps=3, seed=0)
    assert out.dtype == torch.float32 and set(seen) == {torch.float32}


def test_errors():
    y = torch.zeros(2, 3, 4, 4)

    def same(x, t):
        return x

    with pytest.raises(ValueError, match=r"sampler must be one of MC, NMC, EM, mean.*got 'mc'"):
        transport(same, y, PAPER, sampler="mc")
    with pytest.raises(ValueError, match="steps must be 1 for sampler mean, one evaluation at t = 0, got 4"):
        transport(same, y, PAPER, steps=4, sampler="mean")
    with pytest.raises(ValueError, match=r"noise must be \(1, 2, 3, 4, 4\), one tensor per step, got \(2, 3, 4, 4\)"):
        transport(same, y, PAPER, noise=y)
    with pytest.raises(ValueError, match="are mutually exclusive"):
        transport(same, y, PAPER, noise=y[None], seed=1)
    with pytest.raises(ValueError, match="steps must be 1 to 100, got 0"):
        transport(same, y, PAPER, steps=0)
