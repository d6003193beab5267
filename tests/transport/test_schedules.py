"""Schedules: published numbers, golden arrays, closed forms, bounds."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from f2d.transport import SIGMA2, THETA, LogNormalSchedule
from f2d.transport.samplers import advance

PAPER = LogNormalSchedule.named("cosine", "linear", 100)
PUBLISHED = {  # t: (log_mean, log_std)
    10: (-0.0274, 0.0908),
    30: (-0.2336, 0.2724),
    50: (-0.6791, 0.4540),
    70: (-1.4938, 0.6356),
    90: (-3.2832, 0.8172),
    100: (-6.9078, 0.9080),
}


def test_golden_arrays(shared):
    golden = load_file(shared / "golden" / "f2dnet_small.safetensors")
    for name in ("theta", "sigma2", "log_mean", "log_std"):
        torch.testing.assert_close(getattr(PAPER, name), golden[f"schedule_{name}"], rtol=0, atol=1e-14)


@pytest.mark.parametrize("as_tensor", [False, True])
def test_golden_transition_factor(shared, as_tensor):
    golden = load_file(shared / "golden" / "f2dnet_small.safetensors")
    for b in range(2):
        s, t = golden["s"][b], golden["t"][b]
        log_mean, log_std = PAPER.transition(s, t) if as_tensor else PAPER.transition(int(s), int(t))
        factor = torch.exp(log_mean + log_std * golden["noise"][b])
        torch.testing.assert_close(factor, golden["transition_factor"][b], rtol=0, atol=2e-6)


def test_published_numbers():
    assert float(PAPER.theta.sum()) == pytest.approx(7.8789, abs=5e-5)
    assert PAPER.dt == pytest.approx(0.8244230, abs=5e-8)
    assert float(PAPER.sigma2.sum()) == pytest.approx(1)
    for t, (log_mean, log_std) in PUBLISHED.items():
        assert float(PAPER.log_mean[t]) == pytest.approx(log_mean, abs=5e-5)
        assert float(PAPER.log_std[t]) == pytest.approx(log_std, abs=5e-5)


@pytest.mark.parametrize("theta", [name for name in THETA if name != "straight"])
@pytest.mark.parametrize("sigma2", SIGMA2)
@pytest.mark.parametrize("steps", [1, 10, 100])
def test_every_named_schedule_ends_at_a_thousandth(theta, sigma2, steps):
    if steps == 1 and sigma2 == "cosine":
        steps = 2
    schedule = LogNormalSchedule.named(theta, sigma2, steps)
    assert schedule.num_steps == steps
    assert float(schedule.log_mean[-1]) == pytest.approx(math.log(0.001), rel=1e-12)
    assert schedule.theta[0] == schedule.sigma2[0] == schedule.log_mean[0] == schedule.log_std[0] == 0
    assert (schedule.log_mean.diff() <= 0).all() and (schedule.variance.diff() >= 0).all()


def test_closed_forms_of_fod():
    """theta: constant 1; linear 0.1/T..20/T, so Σ = 10.05; jsd (T..1)^-1.5; cosine telescopes to c(1 - 1/T) / c(0)."""
    constant = LogNormalSchedule.named("constant", "none", 50)
    t = torch.arange(51, dtype=torch.float64)
    torch.testing.assert_close(constant.log_mean, math.log(0.001) * t / 50)
    linear = LogNormalSchedule.named("linear", "none", 40)
    assert float(linear.theta[1]) == pytest.approx(0.1 / 40) and float(linear.theta[-1]) == pytest.approx(20 / 40)
    assert float(linear.theta.sum()) == pytest.approx(10.05)
    torch.testing.assert_close(linear.theta[1:].diff(), torch.full((39,), (0.5 - 0.0025) / 39, dtype=torch.float64))
    jsd = LogNormalSchedule.named("jsd", "none", 4)
    expected = torch.tensor([0, 1 / 8, 1 / (3 * 3**0.5), 1 / (2 * 2**0.5), 1], dtype=torch.float64)
    torch.testing.assert_close(jsd.theta, expected)
    cosine = LogNormalSchedule.named("cosine", "none", 100)
    left = float((1 - cosine.theta[1:-1]).prod())
    assert left == pytest.approx(
        math.cos(0.998 / 1.008 * math.pi / 2) ** 2 / math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    )
    assert float(cosine.theta[-1]) == 0.999


def test_spread_of_constant_rates_grows_as_the_root_of_time():
    schedule = LogNormalSchedule.named("constant", "constant", 25)
    dt = -math.log(0.001) / 25.5
    assert schedule.dt == pytest.approx(dt)
    torch.testing.assert_close(schedule.log_std, (torch.arange(26, dtype=torch.float64) * dt / 25).sqrt())


def test_straight_path():
    """x_t = (1 - t/T) y + (t/T) mu, at every t and without noise."""
    schedule = LogNormalSchedule.named("straight", "none", 10)
    y, mu = torch.rand(1, 3, 4, 4), torch.rand(1, 3, 4, 4)
    for t in range(11):
        torch.testing.assert_close(schedule.sample(y, mu, t), (1 - t / 10) * y + t / 10 * mu, rtol=0, atol=1e-6)


@settings(deadline=None)
@given(st.integers(0, 100), st.integers(0, 100), st.integers(0, 100))
def test_transitions_compose(a, b, c):
    s, r, t = sorted((a, b, c))
    (m1, s1), (m2, s2), (m, total) = PAPER.transition(s, r), PAPER.transition(r, t), PAPER.transition(s, t)
    assert m1 + m2 == pytest.approx(m, abs=1e-12)
    assert s1**2 + s2**2 == pytest.approx(total**2, abs=1e-12)


def test_times_given_as_tensors_and_as_numbers_agree():
    s, t = torch.tensor([0, 5, 40]), torch.tensor([0, 50, 100])
    log_mean, log_std = PAPER.transition(s, t)
    assert log_mean.dtype == log_std.dtype == torch.float32
    for i in range(3):
        assert PAPER.transition(int(s[i]), int(t[i])) == pytest.approx(
            (float(log_mean[i]), float(log_std[i])), rel=1e-6
        )
    mixed, _ = PAPER.transition(0, t)
    torch.testing.assert_close(mixed, PAPER.log_mean[t].float())


@settings(deadline=None)
@given(st.integers(1, 100))
def test_times_are_evenly_spaced_integers(steps):
    times = PAPER.times(steps)
    assert times[0] == 0 and times[-1] == 100 and len(times) == steps + 1
    gaps = {b - a for a, b in itertools.pairwise(times)}
    assert gaps <= {100 // steps, -(-100 // steps)} and 0 not in gaps


def test_named_schedules_are_built_once():
    assert LogNormalSchedule.named("jsd", "linear", 30) is LogNormalSchedule.named("jsd", "linear", 30)


def test_errors():
    with pytest.raises(ValueError, match=r"theta must be one of constant, linear, cosine, jsd, straight.*got 'cubic'"):
        LogNormalSchedule.named("cubic")
    with pytest.raises(ValueError, match=r"sigma2 must be one of constant, linear, cosine, jsd, none.*got 'straight'"):
        LogNormalSchedule.named("cosine", "straight")
    with pytest.raises(ValueError, match="'straight' needs sigma2 'none', not 'linear'"):
        LogNormalSchedule.named("straight", "linear")
    with pytest.raises(ValueError, match="num_steps must be at least 1, got 0"):
        LogNormalSchedule.named(num_steps=0)
    with pytest.raises(ValueError, match=r"theta and sigma2 must hold one rate per step each, got \(3,\) and \(2,\)"):
        LogNormalSchedule(torch.ones(3), torch.ones(2), 1.0)
    with pytest.raises(ValueError, match="rates must be >= 0"):
        LogNormalSchedule(-torch.ones(3), torch.ones(3), 1.0)
    for s, t in ((5, 4), (-1, 4), (0, 101)):
        with pytest.raises(ValueError, match=rf"got {s} -> {t}"):
            PAPER.transition(s, t)
    with pytest.raises(ValueError, match="steps must be 1 to 100, got 0"):
        PAPER.times(0)


@pytest.mark.parametrize("call", ["transition", "sample"])
def test_times_in_tensors_are_not_counted_from_the_end(call):
    """-1 was T, and [False, True] a mask."""
    image = torch.zeros(2, 3, 1, 1)

    def look(s, t):
        return PAPER.transition(s, t) if call == "transition" else PAPER.sample(image, image, t, noise=image)

    two = torch.tensor([3, 4])
    wrong = [(0, torch.tensor([5, -1])), (0, torch.tensor([101, 2])), (0, torch.tensor(-100))]
    if call == "transition":
        wrong += [(two, torch.tensor([4, 3])), (-1, two), (two, 3), (torch.tensor([-1, 0]), two), (two, 101)]
    for s, t in wrong:
        with pytest.raises(ValueError, match="needs 0 <= s <= t <= 100, got"):
            look(s, t)
    for t in (0.5, True, two.float(), two > 3, "3", None):
        with pytest.raises(TypeError, match="whole number"):
            look(0, t)
    assert all(torch.isfinite(v).all() for v in PAPER.transition(two.to(torch.uint8), 100))


def test_traced_times_do_not_wrap_either():
    def mean(t):
        return PAPER.transition(0, t)[0]

    two = torch.tensor([3, 4])
    compiled = torch.compile(mean, backend="eager", fullgraph=True)
    assert torch.equal(compiled(two), mean(two))
    assert torch.equal(torch.func.vmap(mean)(two), mean(two))
    for traced in (compiled, torch.func.vmap(mean)):
        with pytest.raises((IndexError, RuntimeError), match=r"out of (range|bounds)"):
            traced(torch.tensor([3, -1]))


@pytest.mark.parametrize("sampler", ["MC", "NMC", "EM", "mean"])
def test_no_sampler_takes_times_out_of_range(sampler):
    x = torch.zeros(1, 3, 1, 1)
    for s, t in ((5, -1), (0, 101), (5, 4)):
        with pytest.raises(ValueError, match=f"got {s} -> {t}"):
            advance(x, x, x, PAPER, sampler, s, t, {"noise": x})


def test_the_default_device_has_no_effect():
    """ "meta" stands for any device but the CPU; no other test builds these schedules, which are kept once built."""
    with torch.device("meta"):
        found = LogNormalSchedule.named("jsd", "constant", 17)
        numbers, tensors = found.transition(3, 9), found.transition(torch.tensor([3], device="cpu"), 9)
    expected = LogNormalSchedule.named.__wrapped__(LogNormalSchedule, "jsd", "constant", 17)
    assert torch.equal(found.log_mean, expected.log_mean) and numbers == expected.transition(3, 9)
    assert tensors[0].item() == pytest.approx(numbers[0])
