"""A schedule that learns at which times the network's error falls."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .schedules import LogNormalSchedule

MIXED = 0.1  # share of the identity in the warp, which keeps it invertible where the error does not fall
MEMORY = 0.999  # decay of the running error of a time per observation


class LearnedSchedule(nn.Module):
    """``M_t = M(s(t)), S_t² = S²(s(t))`` of a given schedule, with s(t) such that the error of mu_hat is linear in t.

    With e(s) = E|mu_hat - mu| at time s of the original schedule, made non-increasing, s is the inverse of
    F(s) = (e(0) - e(s)) / (e(0) - e(T)), mixed with a tenth of the identity. Initially s(t) = t. The endpoints, and
    therefore the remaining residual, never change. The state, e(s), is part of the state dict.

    Time warping of Dieleman et al., "Continuous diffusion for categorical data" (2022), section 4.2.
    """

    error: Tensor  # [T + 1] float64
    seen: Tensor  # [T + 1] float64: number of observations

    def __init__(self, start: LogNormalSchedule):
        super().__init__()
        self.start = start
        steps = start.num_steps
        self.register_buffer("error", torch.linspace(1, 0, steps + 1, dtype=torch.float64))
        self.register_buffer("seen", torch.zeros(steps + 1, dtype=torch.float64))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "LearnedSchedule":
        """Move with the network but keep float64, as errors in lower precision would distort the schedule."""

        def moved(buffer: Tensor) -> Tensor:
            new = fn(buffer)
            return new.double() if buffer.is_meta else buffer.to(new.device)  # of "meta" there is nothing to keep

        return super()._apply(moved, recurse)

    @torch.no_grad()
    def observe(self, t: Tensor, error: Tensor) -> None:
        """Update with errors [B] of mu_hat at times t [B] (0..T) of the current schedule.

        Raises ValueError for times that are not whole numbers from 0 to T.
        """
        times = t.tolist()
        if not all(type(time) is int and 0 <= time <= self.start.num_steps for time in times):
            raise ValueError(
                f"LearnedSchedule: times must be whole numbers from 0 to {self.start.num_steps}, got {times}"
            )
        places = self.places().round().long().tolist()
        for place, value in zip((places[time] for time in times), error.double().tolist(), strict=True):
            count = float(self.seen[place]) + 1
            keep = 0.0 if count == 1 else min(MEMORY, 1 - 1 / count)  # a plain mean for the first observations
            self.error[place] = keep * self.error[place] + (1 - keep) * value
            self.seen[place] = count

    def places(self) -> Tensor:
        """Return s(t) for t = 0..T, [T + 1] float64, from 0 to T."""
        steps = self.start.num_steps
        identity = torch.linspace(0, 1, steps + 1, dtype=torch.float64, device=self.error.device)
        if not bool((self.seen > 0).all()):  # errors are comparable only once every time was observed
            return identity * steps
        falling = self.error.cummin(0).values
        span = falling[0] - falling[-1]
        gained = identity if span <= 0 else (falling[0] - falling) / span
        level = MIXED * identity + (1 - MIXED) * gained
        return _interpolated(identity, level, identity * steps)

    def schedule(self) -> LogNormalSchedule:
        """Return the current schedule."""
        places = self.places().cpu()
        grid = torch.arange(self.start.num_steps + 1, dtype=torch.float64, device="cpu")
        log_mean, variance = (_interpolated(places, grid, v) for v in (self.start.log_mean, self.start.variance))
        sigma2 = variance.diff().clamp_min(0)
        theta = (-log_mean.diff() - sigma2 / 2).clamp_min(0)
        return LogNormalSchedule(theta, sigma2, 1.0)


def _interpolated(x: Tensor, known: Tensor, values: Tensor) -> Tensor:
    """Interpolate linearly through (known, values), with known increasing, at x."""
    right = torch.searchsorted(known, x.contiguous()).clamp(1, len(known) - 1)
    low, high = known[right - 1], known[right]
    share = ((x - low) / (high - low)).clamp(0, 1)
    return values[right - 1] + share * (values[right] - values[right - 1])
