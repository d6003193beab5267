"""ResShift: the residual is shifted in over a few steps, with noise in proportion.

# before                                                        # after
x = diffusion.prior_sample(y)                                   process = ResShift(diffusion.etas, kappa=2.0)
for t in reversed(range(T)):                                    x = process.prior(y, seed=7)
    x_0 = model(x, y, t)                                        for t in process.times:
    mean = coef1[t] * x + coef2[t] * x_0                            x = process.step(x, model(x, y, t), t, seed=7)
    x = mean + exp(0.5 * log_variance[t]) * randn
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from f2d_kernels.integrations._tables import MAX_STREAM, Tables, before, levels, streamed


class ResShift(Tables):
    """``x_t = x_0 + eta_t (y - x_0) + kappa sqrt(eta_t) ε`` at times t = 0..T-1, y the degraded image.

    etas: [T], rising (`exponential` gives the published ones). kappa: strength of the noise, > 0.
    ValueError for schedules that do not fit. (ResShift, NeurIPS 2023, eq. 2, 6, 7; the paper counts from 1.)
    """

    def __init__(self, etas: Tensor | Sequence[float], kappa: float = 2.0):
        eta = levels("ResShift", "etas", etas)
        if not (eta[0] > 0 and eta[-1] <= 1 and (eta.diff() > 0).all()):
            raise ValueError("ResShift: etas must rise, from above 0 to at most 1")
        if not kappa > 0:
            raise ValueError(f"ResShift: kappa must be > 0, got {kappa}")
        times = range(len(eta) - 1, -1, -1)
        super().__init__(times)
        last = before(times, eta, 0.0).flip(0)
        share = last / eta
        self._add("state", range(len(eta)), [1 - eta, eta, kappa * eta.sqrt()])
        self._add("step", range(len(eta)), [share, 1 - share, kappa * (share * (eta - last)).sqrt()])
        self._add("prior", [0], [torch.ones(1), kappa * eta[-1:].sqrt()])

    @classmethod
    def exponential(
        cls, steps: int = 15, kappa: float = 2.0, power: float = 0.3, first: float = 0.04, last: float = 0.999
    ) -> "ResShift":
        """``sqrt(eta_t) = sqrt(eta_1) (eta_T / eta_1)^{((t - 1) / (T - 1))^power / 2}``, t = 1..T (eq. 8, 9), with
        eta_T = `last` and sqrt(eta_1) = min(first / kappa, sqrt(0.001))."""
        if steps < 2:
            raise ValueError(f"ResShift: at least 2 steps, got {steps}")
        low = min(first / kappa, math.sqrt(0.001)) ** 2
        place = torch.linspace(0, 1, steps, dtype=torch.float64) ** power
        return cls(low * (last / low) ** place, kappa)

    def prior(self, y: Tensor, **noise: Any) -> Tensor:
        """x_T = y + kappa sqrt(eta_T) ε, where sampling starts; noise as `f2d_kernels.gaussian_transition` takes it,
        with a stream of its own beside the steps'."""
        return self._linear("prior", [y], 0, streamed(noise, MAX_STREAM))

    def sample(self, x_0: Tensor, y: Tensor, t: int | Tensor, **noise: Any) -> Tensor:
        """The training state x_t, [B,C,H,W], of clean x_0 and degraded y, at t (int or [B]) in 0..T-1."""
        return self._linear("state", [x_0, y], t, noise)

    def step(self, x: Tensor, x_0: Tensor, t: int | Tensor, **noise: Any) -> Tensor:
        """A draw of x_{t-1} from x at t and the predicted clean image x_0, [B,C,H,W]; at t = 0 it is x_0.

        (eta_{t-1} / eta_t) x + (1 - eta_{t-1} / eta_t) x_0 + kappa sqrt(eta_{t-1} / eta_t (eta_t - eta_{t-1})) ε
        """
        return self._linear("step", [x, x_0], t, noise)
