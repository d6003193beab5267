"""Ten thousand pixels on their way from y to mu by the transition, against the closed form of its law."""

import math

import torch

from f2d.transport import LogNormalSchedule
from f2d_kernels import lognormal_transition

Y, MU, SIDE, SEED = 0.8, -0.2, 100, 7
LEVELS = (0.05, 0.5, 0.95)


def compute() -> dict:
    """paths [T+1, SIDE²], one per pixel; their law: quantiles [T+1, 3], mean [T+1], deviation [T+1]. float64."""
    schedule = LogNormalSchedule.named("cosine", "linear", 100)
    x = torch.full((1, 1, SIDE, SIDE), Y, dtype=torch.float64)
    mu, states = torch.full_like(x, MU), [x]
    for t in range(schedule.num_steps):
        x = lognormal_transition(x, mu, *schedule.transition(t, t + 1), seed=SEED, stream=t)
        states.append(x)
    z = torch.tensor([-1.6448536269514722, 0.0, 1.6448536269514722], dtype=torch.float64)
    log_mean, log_std = schedule.log_mean[:, None], schedule.log_std[:, None]
    mean = (schedule.log_mean + schedule.variance / 2).exp()  # exp(-∫theta)
    return {
        "paths": torch.stack(states).reshape(len(states), -1),
        "quantiles": MU + (Y - MU) * (log_mean + log_std * z).exp(),
        "mean": MU + (Y - MU) * mean,
        "deviation": abs(Y - MU) * mean * (schedule.variance.exp() - 1).sqrt(),
    }


def draw(figure) -> None:
    found = compute()
    (left, right), t = figure.subplots(1, 2), torch.arange(len(found["paths"]))
    left.plot(t, found["paths"][:, :24], color="C0", alpha=0.35, linewidth=0.7)
    left.plot(t, found["quantiles"], color="black", linewidth=1.2)
    left.axhline(MU, color="C1", linestyle="--")
    left.set(title="24 pixels; 5, 50 and 95 % of the law", xlabel="time t", ylabel="x_t")
    at = 60
    left.axvline(at, color="grey", linewidth=0.7)
    states = found["paths"][at]
    right.hist(states.numpy(), bins=80, density=True, alpha=0.5, label=f"{len(states)} pixels at t = {at}")
    schedule = LogNormalSchedule.named("cosine", "linear", 100)
    log_mean, log_std = schedule.transition(0, at)
    x = torch.linspace(float(states.min()), float(states.max()), 300, dtype=torch.float64)
    factor = (x - MU) / (Y - MU)
    density = (-((factor.log() - log_mean) ** 2) / (2 * log_std**2)).exp()
    density /= factor * log_std * math.sqrt(2 * math.pi) * abs(Y - MU)
    right.plot(x, density, color="black", label="its density")
    right.set(title="the law at one time", xlabel="x_t")
    right.legend()
