"""The learned schedule: time warped so that the error falls linearly, between endpoints that stay."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from f2d.nets import F2DNet
from f2d.transport import LearnedSchedule, LogNormalSchedule
from tests.nets.small import small_config

STEPS = 100


def learned(errors: torch.Tensor) -> LearnedSchedule:
    """What has seen one error at each time of the schedule it starts from."""
    schedule = LearnedSchedule(LogNormalSchedule.named("cosine", "linear", len(errors) - 1))
    schedule.observe(torch.arange(len(errors)), errors)
    return schedule


def test_at_first_it_is_what_it_starts_from():
    start = LogNormalSchedule.named("cosine", "linear", STEPS)
    schedule = LearnedSchedule(start)
    schedule.observe(torch.arange(STEPS), torch.rand(STEPS))  # all times but the last
    torch.testing.assert_close(schedule.places(), torch.arange(STEPS + 1).double(), rtol=0, atol=1e-12)
    for name in ("log_mean", "variance"):
        torch.testing.assert_close(getattr(schedule.schedule(), name), getattr(start, name), rtol=1e-12, atol=1e-12)


def test_the_warp_is_the_inverse_of_how_the_error_falls():
    """For e(s) = (1 - u)², u = s / T, the level is u/10 + 9/10 (2u - u²), whose inverse is known."""
    u = torch.linspace(0, 1, STEPS + 1, dtype=torch.float64)
    schedule = learned(3 * (1 - u) ** 2 + 1)
    places = schedule.places()
    wanted = (1.9 - (1.9**2 - 3.6 * u).sqrt()) / 1.8 * STEPS  # of 0.9 u² - 1.9 u + t / T = 0
    torch.testing.assert_close(places, wanted, rtol=0, atol=0.01)
    level = 0.1 * u + 0.9 * (2 * u - u**2)
    exact = np.interp(u.numpy(), level.numpy(), np.arange(STEPS + 1))
    np.testing.assert_allclose(places.numpy(), exact, rtol=0, atol=1e-9)
    # M and S² are those of the start at these places
    for name in ("log_mean", "variance"):
        wanted = np.interp(exact, np.arange(STEPS + 1), getattr(schedule.start, name).numpy())
        np.testing.assert_allclose(getattr(schedule.schedule(), name).numpy(), wanted, rtol=1e-9, atol=1e-12)


def test_a_linear_fall_leaves_time_as_it_is():
    schedule = learned(torch.linspace(2, 1, STEPS + 1))
    torch.testing.assert_close(schedule.places(), torch.arange(STEPS + 1).double(), rtol=0, atol=1e-4)


def test_errors_are_averaged_at_the_place_they_are_of():
    schedule = learned(torch.linspace(1, 0, STEPS + 1).double() ** 2)
    place = int(schedule.places()[30].round())
    assert place < 30  # most of the fall is early
    before = float(schedule.error[place])
    schedule.observe(torch.tensor([30, 30]), torch.tensor([0.25, 0.5]))
    assert float(schedule.error[place]) == pytest.approx((before + 0.25 + 0.5) / 3)
    assert float(schedule.seen.sum()) == STEPS + 3
    for times in (torch.tensor([-1]), torch.tensor([STEPS + 1]), torch.tensor([0.5])):  # -1 was the last time
        with pytest.raises(ValueError, match=f"times must be whole numbers from 0 to {STEPS}"):
            schedule.observe(times, torch.tensor([0.5]))
    for _ in range(20_000):  # and old ones are forgotten
        schedule.observe(torch.tensor([0]), torch.tensor([7.0]))
    assert float(schedule.error[0]) == pytest.approx(7, rel=1e-3)


@given(st.lists(st.floats(0, 10, width=32), min_size=2, max_size=30))
def test_laws_of_any_errors(errors):
    schedule = learned(torch.tensor(errors))
    start, now, places = schedule.start, schedule.schedule(), schedule.places()
    assert (places.diff() > 0).all() and places[0] == 0 and places[-1] == pytest.approx(len(errors) - 1)
    for name in ("log_mean", "variance"):
        ends = [getattr(s, name)[[0, -1]] for s in (now, start)]
        torch.testing.assert_close(*ends, rtol=1e-9, atol=1e-12)
    assert (now.log_mean.diff() <= 0).all() and (now.variance.diff() >= 0).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_it_is_restored_from_its_state(dtype):
    """In float32 too, the type of weight files."""
    schedule = learned(torch.rand(STEPS + 1, generator=torch.Generator().manual_seed(0)))
    state = {name: value.to(dtype) for name, value in schedule.state_dict().items()}
    other = LearnedSchedule(schedule.start)
    other.load_state_dict(state, assign=True)
    torch.testing.assert_close(other.places(), schedule.places(), rtol=0, atol=1e-3)
    assert (other.places() - torch.arange(STEPS + 1)).abs().max() > 1


def test_a_network_in_half_precision_keeps_its_schedule():
    net = F2DNet(small_config(learned_schedule=True))
    net.learned_schedule.observe(torch.arange(101), torch.rand(101, generator=torch.Generator().manual_seed(0)))
    before = net.transport.schedule.log_mean
    assert torch.equal(net.to(torch.bfloat16).transport.schedule.log_mean, before)
    assert net.gate.mlp[0].weight.dtype == torch.bfloat16


def test_a_network_built_without_memory_takes_a_schedule():
    """`to_empty` failed, as the schedule alone was copied from "meta"."""
    net = F2DNet(small_config(learned_schedule=True))
    net.learned_schedule.observe(torch.arange(101), torch.rand(101, generator=torch.Generator().manual_seed(0)))
    with torch.device("meta"):
        empty = F2DNet(net.config)
    filled = empty.to_empty(device="cpu")
    filled.load_state_dict(net.state_dict())
    assert torch.equal(filled.schedule.log_mean, net.schedule.log_mean)
    with torch.device("meta"):
        assert torch.equal(net.schedule.log_mean, filled.schedule.log_mean)


def test_a_saved_network_keeps_its_schedule(tmp_path):
    net = F2DNet(small_config(learned_schedule=True))
    net.learned_schedule.observe(torch.arange(101), torch.rand(101, generator=torch.Generator().manual_seed(0)))
    net.save_pretrained(tmp_path)
    loaded = F2DNet.from_pretrained(tmp_path)
    assert torch.equal(loaded.transport.schedule.log_mean, net.transport.schedule.log_mean)
    assert loaded.learned_schedule.error.dtype == torch.float64 and loaded.dtype == torch.float32
