"""Samplers: carry the degraded image to a restored one in a few evaluations of the network."""

import itertools
import math
import sys
import warnings
from collections.abc import Callable

from torch import Tensor

from f2d_kernels import gaussian_transition, lognormal_transition

from .schedules import LogNormalSchedule

SAMPLERS = ("MC", "NMC", "EM", "mean")
MC_VARIANCE_FLOOR = 1e-8  # added to S² of every MC step by the paper's code; golden trajectories contain it
# theta dt of a step of EM, which multiplies the residual by 1 - theta dt; with 10 steps, noisy schedules reach 2.8 and
# the straight flow 18
EM_RATE_BOUND = 5.0
STATE_BOUND = 2.0  # images lie in [-1, 1]; a state outside [-2, 2] comes from the tail of the log-normal


def transport(
    predict_mu: Callable[[Tensor, int], Tensor],
    x_0: Tensor,
    schedule: LogNormalSchedule,
    *,
    steps: int = 1,
    sampler: str = "MC",
    noise: Tensor | None = None,
    seed: int | Tensor | None = None,
) -> Tensor:
    """``x <- step(x, mu = clamp(predict_mu(x, t_i), -1, 1))`` from t_0 = 0 to t_n = T, clamped to [-1, 1] at the end.

    predict_mu: (state [B, C, H, W], integer time) -> estimate of the clean image, same shape.
    x_0 [B, C, H, W] in [-1, 1] may have any dtype, and is converted to float32. With n = steps, t_i = floor(i T / n):

        MC    x = mu + (x - mu) · exp(M + S ε), (M, S) of t_i -> t_{i+1}            (default)
        NMC   x = mu + (x_0 - mu) · exp(M + S ε), (M, S) of 0 -> t_{i+1}
        EM    x = x + theta (mu - x) dt + sigma sqrt(dt) (x - mu) ε, rates at t_{i+1}: Euler-Maruyama, for n = T
        mean  x = mu: the transition 0 -> T with factor 0 and no noise; one step only

    States are clamped to [-2, 2], the exponent to [-20, 20]. ε is noise[i] (noise [n, B, C, H, W]), or comes from
    `seed` with stream = i; with neither, from PyTorch's default generator.

    After one step the median residual factor is 0.001, so one-step results equal the prediction (the conditional mean)
    to within 0.04 grey levels on average and a few in single pixels; samples differ only with steps > 1. EM
    advances by one dt per step, as in the paper's code, so with steps < T it stops short of the target, with a
    RuntimeWarning.

    Raises ValueError for an unknown sampler, an invalid number of steps, EM with a schedule that is too fast for it
    (the straight flow), or noise of the wrong shape.
    """
    times = sampling_times(schedule, steps, sampler)
    check_noise(noise, seed, steps, x_0)
    warn_if_short(schedule, steps, sampler)
    x_0 = x_0.float()
    x = x_0
    for i, (s, t) in enumerate(itertools.pairwise(times)):
        source = {"seed": seed, "stream": i} if noise is None else {"noise": noise[i].float()}
        x = advance(x, predict_mu(x, s), x_0, schedule, sampler, s, t, source)
    return x.clamp(-1, 1)


def advance(
    x: Tensor, mu: Tensor, x_0: Tensor, schedule: LogNormalSchedule, sampler: str, s: int, t: int, source: dict
) -> Tensor:
    """Take one step of `transport` from time s to t; mu is clamped to [-1, 1] before, the state to [-2, 2] after.

    x, mu and x_0 [B, C, H, W] are the state, the prediction of the clean image, and the initial state. source holds the
    noise arguments of `lognormal_transition`; with a `window`, x may be a part of the image.
    """
    mu = mu.float().clamp(-1, 1)
    log_mean, log_std = schedule.transition(s, t)  # times out of range are errors of every sampler
    if sampler == "MC":
        if log_std > 0:  # a deterministic flow stays deterministic
            log_std = math.sqrt(log_std**2 + MC_VARIANCE_FLOOR)
        x = lognormal_transition(x, mu, log_mean, log_std, **source)
    elif sampler == "NMC":
        x = lognormal_transition(x_0, mu, *schedule.transition(0, t), **source)
    elif sampler == "EM":
        x = _euler_maruyama(x, mu, schedule, t, source)
    else:
        x = mu
    return x.clamp(-STATE_BOUND, STATE_BOUND)


def check_noise(noise: Tensor | None, seed: int | Tensor | None, steps: int, x_0: Tensor) -> None:
    """Raise ValueError unless at most one of both is given, and noise has one tensor like x_0 per step."""
    if noise is not None and noise.shape != (steps, *x_0.shape):
        raise ValueError(
            f"transport: noise must be {(steps, *x_0.shape)}, one tensor per step, got {tuple(noise.shape)}"
        )
    if noise is not None and seed is not None:
        raise ValueError("transport: noise and seed are mutually exclusive")


def warn_if_short(schedule: LogNormalSchedule, steps: int, sampler: str) -> None:
    """Warn if Euler-Maruyama takes fewer steps than the schedule has."""
    if sampler == "EM" and steps < schedule.num_steps:
        warnings.warn(
            f"EM advances one dt per step, so {steps} of {schedule.num_steps} steps stop short of the target: "
            f"use steps={schedule.num_steps}, or MC",
            RuntimeWarning,
            stacklevel=_callers_level(),
        )


def sampling_times(schedule: LogNormalSchedule, steps: int, sampler: str) -> list[int]:
    """``floor(i T / steps)``, the times of `transport`; raises ValueError if `sampler` cannot take that many steps."""
    if sampler not in SAMPLERS:
        raise ValueError(f"transport: sampler must be one of {', '.join(SAMPLERS)}, got {sampler!r}")
    if sampler == "mean" and steps != 1:
        raise ValueError(f"transport: steps must be 1 for sampler mean, one evaluation at t = 0, got {steps}")
    if sampler == "EM" and (rate := float(schedule.theta.max()) * schedule.dt) > EM_RATE_BOUND:
        raise ValueError(
            f"transport: sampler must be MC or NMC with this schedule, got 'EM', one of whose steps would multiply the "
            f"residual by {1 - rate:.1f} (theta dt must be at most {EM_RATE_BOUND:g})"
        )
    return schedule.times(steps)


def _callers_level() -> int:
    """Find the stacklevel of the first caller outside this package and PyTorch's decorators (`no_grad`)."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back and frame.f_globals["__name__"].partition(".")[0] in ("f2d", "torch"):
        level, frame = level + 1, frame.f_back
    return level


def _euler_maruyama(x: Tensor, mu: Tensor, schedule: LogNormalSchedule, t: int, source: dict) -> Tensor:
    eps = source.get("noise")
    if eps is None:
        eps = gaussian_transition([x], [0.0], 1.0, **source)
    drift = float(schedule.theta[t]) * schedule.dt
    spread = math.sqrt(float(schedule.sigma2[t]) * schedule.dt)
    return x + (mu - x) * drift + (x - mu) * (spread * eps)
