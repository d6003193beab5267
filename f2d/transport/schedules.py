"""Schedules of the log-normal transport, exact in float64."""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, SupportsIndex, cast

import torch
from torch import Tensor

from f2d_kernels import lognormal_transition

RESIDUAL_AT_END = 0.001  # exp(log_mean) at t = T, the median share of the residual that remains


def _constant(steps: int) -> Tensor:
    return torch.ones(steps, dtype=torch.float64)


def _linear(steps: int) -> Tensor:
    scale = 1000 / steps
    return torch.linspace(1e-4 * scale, 2e-2 * scale, steps, dtype=torch.float64)


def _cosine(steps: int) -> Tensor:
    time = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    level = torch.cos((time + 0.008) / 1.008 * (math.pi / 2)) ** 2
    return (1 - level[1:] / level[:-1]).clamp(max=0.999)


def _jsd(steps: int) -> Tensor:
    return torch.arange(steps, 0, -1, dtype=torch.float64) ** -1.5


def _none(steps: int) -> Tensor:
    return torch.zeros(steps, dtype=torch.float64)


def _straight(steps: int) -> Tensor:
    left = torch.arange(steps, -1, -1, dtype=torch.float64)
    left[-1] = steps * math.exp(-20)  # zero would need an infinite rate, so 2e-9 of the residual remains
    return torch.log(left[:-1] / left[1:])


THETA: dict[str, Callable[[int], Tensor]] = {
    "constant": _constant,
    "linear": _linear,
    "cosine": _cosine,
    "jsd": _jsd,
    "straight": _straight,
}
SIGMA2: dict[str, Callable[[int], Tensor]] = {
    "constant": _constant,
    "linear": _linear,
    "cosine": _cosine,
    "jsd": _jsd,
    "none": _none,
}


class LogNormalSchedule:
    """``log_mean_t = -dt Σ_{i<=t} (theta_i + sigma2_i / 2)``, ``log_std_t² = dt Σ_{i<=t} sigma2_i``, t = 0..T.

    The process is dx = theta (mu - x) dt + sigma (x - mu) dw, pixel by pixel, so that in law

        x_t = mu + (x_s - mu) · exp(M + S ε),  M = log_mean_t - log_mean_s,  S² = log_std_t² - log_std_s².

    theta and sigma2 are T rates >= 0 for steps 1..T; the attributes of these names have a leading 0, so that the index
    is the time. dt is the length of one step. Raises ValueError for invalid rates. All attributes are float64 on the
    CPU. Lookups with integer times return plain numbers; lookups with tensors use a copy on the tensor's device, so no
    call waits for the host.

    Factorized Stochastic Transport (paper schedule: `named("cosine", "linear", 100)`); FoD for the other names.
    """

    def __init__(self, theta: Tensor, sigma2: Tensor, dt: float):
        if theta.ndim != 1 or theta.shape != sigma2.shape or len(theta) == 0:
            raise ValueError(
                "LogNormalSchedule: theta and sigma2 must hold one rate per step each, "
                f"got {tuple(theta.shape)} and {tuple(sigma2.shape)}"
            )
        if not (dt > 0 and theta.min() >= 0 and sigma2.min() >= 0):
            raise ValueError(f"LogNormalSchedule: rates must be >= 0 and dt > 0, got dt = {dt}")
        zero = torch.zeros(1, dtype=torch.float64, device="cpu")
        self.theta = torch.cat([zero, theta.double().cpu()])
        self.sigma2 = torch.cat([zero, sigma2.double().cpu()])
        self.dt = float(dt)
        self.log_mean = -self.dt * torch.cumsum(self.theta + self.sigma2 / 2, dim=0)
        self.variance = self.dt * torch.cumsum(self.sigma2, dim=0)
        self.log_std = self.variance.sqrt()
        self._numbers = (self.log_mean.tolist(), self.variance.tolist())
        self._on_device: dict[torch.device, tuple[Tensor, Tensor]] = {}

    @classmethod
    @lru_cache(maxsize=32)
    def named(cls, theta: str = "cosine", sigma2: str = "linear", num_steps: int = 100) -> "LogNormalSchedule":
        """``dt = ln(0.001) / -(Σ theta + Σ sigma2 / 2)``, so that log_mean_T = ln 0.001; Σ sigma2 = 1.

        The rates, for i = 1..T: "constant" 1; "linear" from 0.1 / T to 20 / T; "cosine" 1 - c(i / T) / c((i - 1) / T),
        c(u) = cos²((u + 0.008) / 1.008 · π / 2), at most 0.999; "jsd" (T + 1 - i)^-1.5; "none" (sigma2 only) 0, a
        deterministic flow; "straight" (theta only, with "none"): the straight path x_t = (1 - t / T) y + (t / T) mu,
        dt = 1. Raises ValueError for unknown names.
        """
        for kind, name, known in (("theta", theta, THETA), ("sigma2", sigma2, SIGMA2)):
            if name not in known:
                raise ValueError(f"LogNormalSchedule: {kind} must be one of {', '.join(known)}, got {name!r}")
        if num_steps < 1:
            raise ValueError(f"LogNormalSchedule: num_steps must be at least 1, got {num_steps}")
        if theta == "straight" and sigma2 != "none":
            raise ValueError(f"LogNormalSchedule: theta 'straight' needs sigma2 'none', not {sigma2!r}")
        with torch.device("cpu"):  # whatever the default device is
            drift, spread = THETA[theta](num_steps), SIGMA2[sigma2](num_steps)
        if theta == "straight":
            return cls(drift, spread, 1.0)
        spread = spread / spread.sum() if sigma2 != "none" else spread
        return cls(drift, spread, -math.log(RESIDUAL_AT_END) / float(drift.sum() + spread.sum() / 2))

    @property
    def num_steps(self) -> int:
        """The number of steps T."""
        return len(self.theta) - 1

    def times(self, steps: int) -> list[int]:
        """``floor(i T / steps)``, i = 0..steps: integer times from 0 to T. Raises ValueError unless 1 <= steps <= T."""
        if not 1 <= steps <= self.num_steps:
            raise ValueError(f"LogNormalSchedule: steps must be 1 to {self.num_steps}, got {steps}")
        return [i * self.num_steps // steps for i in range(steps + 1)]

    def transition(self, s: int | Tensor, t: int | Tensor) -> tuple[float, float] | tuple[Tensor, Tensor]:
        """``(M, S)`` of the step s -> t, s <= t: two numbers for two ints, otherwise two float32 tensors.

        Raises ValueError for times outside 0..T or in the wrong order, and TypeError for times that are not whole
        numbers. Tensors on a GPU are not read, because the host would have to wait: there PyTorch's own lookup refuses
        times outside 0..T when it runs, and the order is not checked.
        """
        self._check(s, t)
        if not isinstance(s, Tensor) and not isinstance(t, Tensor):
            means, variances = self._numbers
            return means[t] - means[s], math.sqrt(variances[t] - variances[s])
        device = t.device if isinstance(t, Tensor) else cast(Tensor, s).device
        if device not in self._on_device:
            self._on_device[device] = (self.log_mean.to(device), self.variance.to(device))
        log_mean, variance = self._on_device[device]
        mean, spread = (_at(table, t) - _at(table, s) for table in (log_mean, variance))
        return mean.float(), spread.clamp_min(0).sqrt().float()

    def _check(self, s: int | Tensor, t: int | Tensor) -> None:
        readable = not (torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active())
        spans = []  # (least, greatest) of each time that can be read
        for time in (s, t):
            if not isinstance(time, Tensor):
                if isinstance(time, bool) or not isinstance(time, SupportsIndex):
                    raise TypeError(f"LogNormalSchedule: a time must be a whole number, got {type(time).__name__}")
                spans.append((time, time))
            elif time.is_floating_point() or time.is_complex() or time.dtype == torch.bool:
                raise TypeError(f"LogNormalSchedule: a tensor of times must hold whole numbers, got {time.dtype}")
            elif readable and type(time) is Tensor and time.device.type == "cpu" and time.numel():
                spans.append((int(time.min()), int(time.max())))
        ordered = len(spans) < 2 or bool(torch.as_tensor(s <= t, device="cpu").all())
        if not ordered or not all(low >= 0 and high <= self.num_steps for low, high in spans):
            raise ValueError(
                f"LogNormalSchedule: a transition s -> t needs 0 <= s <= t <= {self.num_steps}, got {s} -> {t}"
            )

    def sample(self, x_0: Tensor, mu: Tensor, t: int | Tensor, **noise: Any) -> Tensor:
        """``x_t = mu + (x_0 - mu) · exp(M_t + S_t ε)``: the state at time t (int, or [B]) of images [B, C, H, W].

        noise: `noise` (ε itself), `seed`, `generator`, `stream` and `window` of `f2d_kernels.lognormal_transition`.
        """
        return lognormal_transition(x_0, mu, *self.transition(0, t), **noise)


def _at(table: Tensor, time: int | Tensor) -> Tensor:
    """Return the entries at `time`; table[time] would count negative times from the end."""
    if not isinstance(time, Tensor):
        return table[time]
    return table.index_select(0, time.long().reshape(-1)).reshape(time.shape)
