"""Arguments of the scheduler: numbers of Python, NumPy and PyTorch are one, and all else is refused."""

import math

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers")

from f2d.integrations.scheduler import LogNormalScheduler

X = torch.linspace(-1, 1, 96).reshape(2, 3, 4, 4)
RATES = [0.1, 0.2]


def scheduler(count=10, **options):
    made = LogNormalScheduler(**options)
    made.set_timesteps(count)
    return made


def begun(index):
    made = scheduler()
    made.set_begin_index(index)
    return made


# name in the message -> (what comes of a value, a value)
WHOLE = {
    "num_train_timesteps": (lambda v: LogNormalScheduler(num_train_timesteps=v).config, 7),
    "num_inference_steps": (lambda v: scheduler(v)._times, 7),
    "timesteps": (lambda v: (s := LogNormalScheduler(), s.set_timesteps(timesteps=[0, v]))[0]._times, 7),
    "begin_index": (lambda v: begun(v).begin_index, 7),
    "timestep": (lambda v: scheduler().step(X, v, X, seed=1, original_sample=X).prev_sample.tolist(), 10),
    "dt": (
        lambda v: LogNormalScheduler(num_train_timesteps=2, theta=RATES, sigma2=RATES, dt=v).transport.schedule.dt,
        7,
    ),
}


@pytest.mark.parametrize("name", WHOLE)
def test_numbers_of_all_libraries_are_one(name):
    call, value = WHOLE[name]
    for kind in (np.int64, np.uint8, np.array, torch.tensor, lambda v: torch.tensor(v, dtype=torch.uint8)):
        assert call(kind(value)) == call(value)


@pytest.mark.parametrize("name", WHOLE)
def test_what_is_no_number_is_refused_by_name(name):
    call, value = WHOLE[name]
    wrong = [True, np.bool_(True), torch.tensor(True), "7", 1j, [7], {7: 7}, np.array([7, 8])]
    wrong += [] if name == "dt" else [float(value), np.float32(value), torch.tensor(float(value))]
    for v in wrong:
        with pytest.raises(TypeError, match=f"^LogNormalScheduler: {name} must be"):
            call(v)


@pytest.mark.parametrize("name", ["theta", "sigma2"])
def test_rates_are_numbers(name):
    def call(v):
        made = {"theta": RATES, "sigma2": RATES, "dt": 0.1} | {name: v}
        return LogNormalScheduler(num_train_timesteps=2, **made).transport.schedule

    for kind in (tuple, np.array, lambda v: torch.tensor(v, dtype=torch.float64)):
        assert torch.equal(getattr(call(kind(RATES)), name), getattr(call(RATES), name))
    for v in (3, None, {1: 2}, [True, 1.0], [[0.1], [0.2]], ["a", "b"], torch.tensor([1j, 1j])):
        with pytest.raises(TypeError, match=f"^LogNormalScheduler: {name} must be"):
            call(v)


def test_times_generators_and_places_of_other_kinds_are_refused():
    for times in (3, 3.0, "ab", {1, 2}, torch.tensor(3)):
        with pytest.raises(TypeError, match="timesteps must be a sequence"):
            LogNormalScheduler().set_timesteps(timesteps=times)
    for index in (-1, 10, 10**6):
        with pytest.raises(ValueError, match="begin_index must lie in 0 to 9"):
            begun(index)
    for generator in (3, True, "ab", [1, 2], {1: 2}, torch.tensor([1, 2]), math.nan):
        for call in (
            lambda g: scheduler().step(X, 0, X, generator=g),
            lambda g: scheduler().add_noise(X, X, 3, generator=g),
        ):
            with pytest.raises(TypeError, match=r"generator must be a torch\.Generator, or a list"):
                call(generator)
    with pytest.raises(ValueError, match="one for each of 2 images, got 3"):
        scheduler().step(X, 0, X, generator=[torch.Generator()] * 3)
