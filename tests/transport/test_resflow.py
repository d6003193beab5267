"""ResFlow's paths against automatic differentiation, its printed numbers, and trajectories of a perfect network."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from f2d.transport import ResFlow
from f2d.transport.resflow import DISTRIBUTIONS
from f2d_kernels import gaussian_transition

AUXILIARIES = ["entropy", "boundary", "constant", "none"]
WITH_NOISE = AUXILIARIES[:3]
BETA = 10.0
# the schedules as the paper and the docstring write them, for tensors
SIGMA = {
    "entropy": lambda t: BETA / (1 - t + BETA),
    "boundary": lambda t: (BETA / (1 - t + BETA) - BETA / (1 + BETA)) / (1 - BETA / (1 + BETA)),
    "constant": torch.ones_like,
}
SEEDS = torch.tensor([5, -7, 2**40])


def image(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def y_1(seeds: torch.Tensor | int, *shape: int) -> torch.Tensor:
    """The noise that a seed means in f2d_kernels."""
    return gaussian_transition([torch.zeros(*shape)], [0.0], 1.0, seed=seeds)


def per_image(values: torch.Tensor) -> torch.Tensor:
    return values[:, None, None, None]


@pytest.mark.parametrize("auxiliary", AUXILIARIES)
def test_a_draw_lies_on_the_path_and_its_target_is_the_derivative(auxiliary):
    y, mu, position = image(3, 3, 5, 6), image(3, 3, 5, 6, seed=1), torch.tensor([0.0, 0.37, 0.96])
    noise, t = y_1(SEEDS, 3, 3, 5, 6).double(), 1 - position.double()

    def path(t: torch.Tensor) -> torch.Tensor:
        x_t = per_image(1 - t) * mu.double() + per_image(t) * y.double()
        return x_t if auxiliary == "none" else torch.cat([x_t, per_image(SIGMA[auxiliary](t)) * noise], dim=1)

    z, velocity = torch.func.jvp(path, (t,), (torch.ones_like(t),))
    draw = ResFlow(auxiliary, BETA).draw(y, mu, position, SEEDS)
    assert all(part is None or part.dtype == torch.float32 for part in draw)
    torch.testing.assert_close(draw.state.double(), z[:, :3], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(draw.target.double(), velocity, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(draw.time.double(), t, rtol=0, atol=1e-7)
    if auxiliary == "none":
        assert draw.auxiliary is None
    else:
        torch.testing.assert_close(draw.auxiliary.double(), z[:, 3:], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("auxiliary", WITH_NOISE)
@settings(deadline=None, max_examples=40)
@given(t=st.floats(0, 1), beta=st.floats(0.1, 100))
def test_rates_are_derivatives(auxiliary, t, beta):
    flow = ResFlow(auxiliary, beta)
    time = torch.tensor(t, dtype=torch.float64)
    value, rate = torch.func.jvp(flow.sigma, (time,), (torch.ones_like(time),))
    assert flow.sigma_rate(t) == pytest.approx(rate.item(), rel=1e-12)
    assert flow.sigma(t) == pytest.approx(value.item(), rel=1e-12)
    assert 0 <= flow.sigma(t) <= flow.sigma(1.0) == 1


def test_printed_and_boundary_values():
    assert ResFlow("entropy").sigma(0.0) == pytest.approx(10 / 11, rel=1e-15)
    assert ResFlow("entropy").sigma_rate(1.0) == pytest.approx(1 / 10, rel=1e-15)
    assert ResFlow("boundary").sigma(0.0) == 0
    for auxiliary in WITH_NOISE:
        assert ResFlow(auxiliary).sigma(1.0) == 1


@given(t=st.floats(0, 1), beta=st.floats(0.1, 100))
def test_boundary_has_the_printed_velocity_up_to_a_factor(t, beta):
    printed, boundary = ResFlow("entropy", beta), ResFlow("boundary", beta)
    assert (1 - t + beta) * printed.sigma(t) == pytest.approx(beta)  # what keeps the entropy
    assert boundary.sigma_rate(t) == pytest.approx((1 + beta) * printed.sigma_rate(t))
    assert boundary.sigma(t) == pytest.approx(t * printed.sigma(t))


def test_weights():
    t = torch.tensor([0.0, 1e-4, 1 / 3, 2 / 3, 1.0], dtype=torch.float64)
    # cos(π/2 (t - 2)) + 1 = 1 - cos(π t / 2): 0, (π t)² / 8, 1 - √3/2, 1/2, 1
    expected = torch.tensor([0, (math.pi * 1e-4) ** 2 / 8, 1 - math.sqrt(3) / 2, 0.5, 1], dtype=torch.float64) ** 1.75
    torch.testing.assert_close(ResFlow().weight(t), expected, rtol=1e-7, atol=0)
    draw = ResFlow(gamma=2.0).draw(image(1, 3, 2, 2), image(1, 3, 2, 2), torch.tensor([1 / 3]), torch.tensor([1]))
    torch.testing.assert_close(draw.weight, torch.tensor([0.25]))


@pytest.mark.parametrize("auxiliary", AUXILIARIES)
@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_a_perfect_network_restores_exactly(auxiliary, steps):
    """Its auxiliary velocity is nonsense on purpose: that integral is discarded."""
    flow, y, mu, told = ResFlow(auxiliary), image(2, 3, 5, 7), image(2, 3, 5, 7, seed=1), []

    def oracle(x, auxiliary_t, t):
        torch.testing.assert_close(x, (1 - t) * mu + t * y)
        told.append(t)
        v = y - mu
        return v if auxiliary_t is None else torch.cat([v, torch.full_like(v, 1e9)], dim=1)

    restored = flow.restore(oracle, y, steps=steps, sampler="euler", seed=3)
    torch.testing.assert_close(restored, mu, rtol=0, atol=1e-6)
    assert told == [1 - i / steps for i in range(steps)]
    assert flow.times(steps, "euler") == [*told, 0.0]


@pytest.mark.parametrize("auxiliary", WITH_NOISE)
@pytest.mark.parametrize("seed", [11, SEEDS[:2]], ids=["one", "per image"])
def test_a_seed_means_the_same_noise_in_draw_and_at_every_step(auxiliary, seed):
    flow, y, mu = ResFlow(auxiliary), image(2, 3, 4, 9), image(2, 3, 4, 9, seed=1)
    noise, seen = y_1(seed, 2, 3, 4, 9), {}

    def predict(x, auxiliary_t, t):
        seen[t] = auxiliary_t
        return torch.zeros(2, 6, 4, 9)

    flow.restore(predict, y, steps=4, sampler="euler", seed=seed)
    assert list(seen) == [1.0, 0.75, 0.5, 0.25]
    seeds = seed if isinstance(seed, torch.Tensor) else torch.tensor([seed])
    for t, auxiliary_t in seen.items():
        torch.testing.assert_close(auxiliary_t, flow.sigma(t) * noise)
        draw = flow.draw(y, mu, torch.full((2,), 1 - t), seeds)
        torch.testing.assert_close(draw.auxiliary, auxiliary_t, rtol=1e-6, atol=0)


def test_noise_given_is_the_noise_used():
    flow, y = ResFlow("boundary"), image(2, 3, 4, 6)

    def predict(x, auxiliary_t, t):
        return torch.cat([auxiliary_t * t + x, x], dim=1)

    noise = y_1(11, 2, 3, 4, 6)[None]
    by_seed = flow.restore(predict, y, steps=3, sampler="euler", seed=11)
    assert torch.equal(flow.restore(predict, y, steps=3, sampler="euler", noise=noise), by_seed)
    assert not torch.equal(flow.restore(predict, y, steps=3, sampler="euler", seed=12), by_seed)


def test_without_a_source_the_default_generator_decides_once():
    flow, y, seen = ResFlow(), image(1, 3, 4, 4), []

    def predict(x, auxiliary_t, t):
        seen.append(auxiliary_t / flow.sigma(t))
        return torch.cat([auxiliary_t, x], dim=1)

    torch.manual_seed(0)
    first = flow.restore(predict, y, steps=2, sampler="euler")
    torch.testing.assert_close(seen[0], seen[1])
    assert not torch.equal(flow.restore(predict, y, steps=2, sampler="euler"), first)
    torch.manual_seed(0)
    assert torch.equal(flow.restore(predict, y, steps=2, sampler="euler"), first)


@pytest.mark.parametrize("auxiliary", AUXILIARIES)
def test_a_batch_split_draws_and_restores_the_same(auxiliary):
    flow, y, mu = ResFlow(auxiliary), image(3, 3, 5, 6), image(3, 3, 5, 6, seed=1)
    position = torch.tensor([0.1, 0.5, 0.9])

    def predict(x, auxiliary_t, t):
        return x if auxiliary_t is None else torch.cat([auxiliary_t * x, x], dim=1)

    def both(part: slice) -> list:
        restored = flow.restore(predict, y[part], steps=2, sampler="euler", seed=SEEDS[part])
        return [restored, *flow.draw(y[part], mu[part], position[part], SEEDS[part])]

    for whole, *parts in zip(both(slice(3)), both(slice(1)), both(slice(1, 3))):
        assert whole is None or torch.equal(whole, torch.cat(parts))


def test_noise_is_standard_normal_and_differs_between_images():
    noise = ResFlow("constant").auxiliary_at(0.3, torch.zeros(2, 3, 64, 64), seed=SEEDS[:2]).double()
    assert abs(noise.mean().item()) < 5 / noise.numel() ** 0.5
    assert noise.std().item() == pytest.approx(1, abs=5 / (2 * noise.numel()) ** 0.5)
    assert not torch.equal(noise[0], noise[1])


# SciPy's distributions of mean 0 and variance 1, by their own formulas
SCIPY = {
    "gaussian": stats.norm(),
    "uniform": stats.uniform(-math.sqrt(3), 2 * math.sqrt(3)),
    "laplace": stats.laplace(scale=math.sqrt(0.5)),
    "rademacher": stats.rv_discrete(values=([-1, 1], [0.5, 0.5])),
}


@pytest.mark.parametrize("distribution", SCIPY)
def test_other_distributions_are_scipys_quantiles_of_the_same_noise(distribution):
    """With the moments that its own formulas give: mean 0, variance 1, and a kurtosis that tells the four apart."""
    flow = ResFlow("constant", distribution=distribution)
    found = flow.auxiliary_at(0.3, torch.zeros(3, 3, 64, 64), seed=SEEDS).double().flatten()
    eps = y_1(SEEDS, 3, 3, 64, 64).double().flatten()
    expected = torch.from_numpy(SCIPY[distribution].ppf(stats.norm.cdf(eps.numpy())).astype(float))
    torch.testing.assert_close(found, expected, rtol=2e-6, atol=1e-6)
    mean, variance, kurtosis = (float(value) for value in SCIPY[distribution].stats(moments="mvk"))
    assert (mean, variance) == pytest.approx((0, 1))
    assert found.mean().item() == pytest.approx(0, abs=5 / len(found) ** 0.5)
    assert found.pow(4).mean().item() == pytest.approx(3 + kurtosis, rel=0.1)


@pytest.mark.parametrize("distribution", list(SCIPY)[1:])
def test_other_distributions_in_draws_and_restorations(distribution):
    """The target is the derivative of the path, a seed means one y_1 everywhere, and a y_1 that is given is taken."""
    flow, y, mu = ResFlow("entropy", BETA, distribution=distribution), image(3, 3, 5, 6), image(3, 3, 5, 6, seed=1)
    ones, position = torch.zeros(3, 3, 5, 6), torch.tensor([0.1, 0.5, 0.9])
    drawn, seen = flow.auxiliary_at(1.0, ones, seed=SEEDS), []
    draw = flow.draw(y, mu, position, SEEDS)
    torch.testing.assert_close(draw.auxiliary, per_image(SIGMA["entropy"](1 - position)) * drawn)
    torch.testing.assert_close(draw.target[:, 3:], per_image(BETA / (position + BETA) ** 2) * drawn)

    def predict(x, auxiliary_t, t):
        seen.append(auxiliary_t / flow.sigma(t))
        return torch.zeros(3, 6, 5, 6)

    flow.restore(predict, y, steps=2, sampler="euler", seed=SEEDS)
    flow.restore(predict, y, steps=2, sampler="euler", noise=drawn[None])
    for auxiliary in seen:
        torch.testing.assert_close(auxiliary, drawn)


def test_the_tails_of_laplace_are_finite():
    flow = ResFlow("constant", distribution="laplace")
    noise = DISTRIBUTIONS["laplace"](torch.tensor([-40.0, -6.0, 0.0, 6.0, 40.0]))
    assert flow.distribution == "laplace" and noise.isfinite().all()
    assert noise[3].item() == pytest.approx(SCIPY["laplace"].isf(stats.norm.sf(6.0)), rel=1e-5)


def test_clean_is_a_step_to_the_end_with_gradients():
    flow, y, mu = ResFlow(), image(2, 3, 4, 4), image(2, 3, 4, 4, seed=1)
    draw = flow.draw(y, mu, torch.tensor([0.2, 0.7]), SEEDS[:2])
    prediction = draw.target.clone().requires_grad_()
    clean = flow.clean(prediction, draw.state, y, draw.time)
    torch.testing.assert_close(clean, mu, rtol=0, atol=1e-6)
    clean.sum().backward()
    expected = torch.cat([-per_image(draw.time).expand(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)], dim=1)
    torch.testing.assert_close(prediction.grad, expected)
    torch.testing.assert_close(flow.clean(draw.target, y, y, 1.0), mu, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_states_are_float32_whatever_the_network_answers(dtype):
    def predict(x, auxiliary_t, t):
        assert x.dtype == auxiliary_t.dtype == torch.float32
        return torch.full((1, 6, 4, 4), 5.0, dtype=dtype)

    restored = ResFlow().restore(predict, image(1, 3, 4, 4).to(dtype), steps=2, sampler="euler", seed=0)
    assert restored.dtype == torch.float32
    assert (restored == -1).all()  # clamped


def test_errors():
    y = image(2, 3, 4, 4)
    with pytest.raises(ValueError, match=r"auxiliary must be one of entropy, boundary, constant, none.*got 'linear'"):
        ResFlow("linear")
    with pytest.raises(ValueError, match=r"distribution must be one of gaussian, uniform.*got 'cauchy'"):
        ResFlow(distribution="cauchy")
    for wrong in ({"beta": 0.0}, {"gamma": -1.0}, {"beta": math.nan}):
        with pytest.raises(ValueError, match="beta must be > 0 and gamma >= 0"):
            ResFlow(**wrong)

    def restore(**changes):
        arguments = {"steps": 4, "sampler": "euler", **changes}
        return ResFlow().restore(lambda x, a, t: torch.zeros(2, 6, 4, 4), y, **arguments)

    with pytest.raises(ValueError, match=r"sampler must be one of euler.*got 'MC'"):
        restore(sampler="MC")
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        restore(steps=0)
    with pytest.raises(ValueError, match=r"one y_1 for all steps, \(1, 2, 3, 4, 4\)"):
        restore(noise=torch.zeros(4, 2, 3, 4, 4))
    with pytest.raises(ValueError, match="noise and seed are mutually exclusive"):
        restore(noise=torch.zeros(1, 2, 3, 4, 4), seed=1)
    with pytest.raises(ValueError, match=r"position must be one per image, \[2\].*got \(1,\)"):
        ResFlow().draw(y, y, torch.zeros(1), SEEDS[:2])
    with pytest.raises(ValueError, match="shape of terms"):
        ResFlow().draw(y, y[..., :3], torch.zeros(2), SEEDS[:2])
    with pytest.raises(ValueError, match="one per sample"):
        ResFlow().draw(y, y, torch.zeros(2), SEEDS)
