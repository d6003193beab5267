"""Euler-Maruyama and the closed form on the same Brownian paths: the numerical solution comes nearer with its step."""

import numpy as np

from f2d.transport import LogNormalSchedule

PATHS, TIME, SEED = 4000, 70, 0
SUBSTEPS = (1, 2, 4, 8, 16, 32, 64)


def compute() -> dict:
    """steps: lengths h. error: rms over paths of |d_h - d| / rms of d, at t = 70. finest: |mean of both| apart."""
    schedule = LogNormalSchedule.named("cosine", "linear", 100)
    theta, sigma2 = (rate.numpy()[1 : TIME + 1] for rate in (schedule.theta, schedule.sigma2))
    finest = schedule.dt / SUBSTEPS[-1]
    shape = (PATHS, TIME, SUBSTEPS[-1])
    increments = np.random.default_rng(SEED).normal(0, np.sqrt(finest), shape)
    noise = (np.sqrt(sigma2)[None] * increments.sum(2)).sum(1)
    exact = np.exp(-schedule.dt * (theta + sigma2 / 2).sum() + noise)
    errors, lengths = [], []
    for count in SUBSTEPS:
        h = schedule.dt / count
        dw = increments.reshape(PATHS, TIME, count, -1).sum(3)
        factors = 1 - theta[None, :, None] * h + np.sqrt(sigma2)[None, :, None] * dw
        errors.append(float(np.sqrt(((factors.prod((1, 2)) - exact) ** 2).mean() / (exact**2).mean())))
        lengths.append(h)
    return {"steps": np.array(lengths), "error": np.array(errors), "exact": exact, "schedule": schedule}


def draw(figure) -> None:
    found = compute()
    ax = figure.subplots()
    ax.loglog(found["steps"], found["error"], "o-", label="Euler-Maruyama against the closed form")
    half = found["error"][-1] * np.sqrt(found["steps"] / found["steps"][-1])
    ax.loglog(found["steps"], half, "--", color="grey", label="order 1/2")
    ax.set(xlabel="step h", ylabel="relative error (rms)", title=f"one path, two solutions, t = {TIME}")
    ax.legend()
