"""FoD, forward-only diffusion: multiplicative noise around the clean image, from the degraded image to it.

# before                                                        # after
for t in range(T):                                              fod = FoD(thetas, sigmas ** 2, dt)
    mu = x + model(x, t)                                        for t in fod.times:
    log = -(theta + sigma**2 / 2) * dt                              x, mu = fod.step(x, model(x, t), t, seed=7)
          + sigma * sqrt(dt) * torch.randn_like(x)
    x = mu + (x - mu) * torch.exp(log)
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from f2d_kernels.integrations._tables import Tables, levels, streamed
from f2d_kernels.ops.lognormal_transition import lognormal_transition
from f2d_kernels.ops.transport_step import transport_step

SAMPLERS = ("MC", "NMC")
TARGETS = ("SFLOW", "FLOW", "FINAL_X")
NO_LIMIT = (-math.inf, math.inf)


class FoD(Tables):
    """``dx = theta (mu - x) dt + sigma (x - mu) dw, x_0`` the degraded and mu the clean image, whose states are

        x_t = mu + (x_s - mu) exp(M + S ε),  M = -dt Σ (theta_i + sigma2_i / 2),  S² = dt Σ sigma2_i,  s < i <= t.

    theta, sigma2: rates of the steps 1..T, [T] each, >= 0. dt: length of a step. steps: how many the sampler takes,
    at times floor(i T / steps); by default T. target: what the network predicts: "SFLOW" mu - x_t, "FLOW" mu - x_0 or
    "FINAL_X" mu. clamp: (low, high), the range of mu; None for no limit.

    ValueError for schedules that do not fit. (Forward-only Diffusion Probabilistic Models.)
    """

    def __init__(
        self,
        theta: Tensor | Sequence[float],
        sigma2: Tensor | Sequence[float],
        dt: float,
        steps: int | None = None,
        target: str = "SFLOW",
        clamp: tuple[float, float] | None = None,
    ):
        pull, spread = levels("FoD", "theta", theta), levels("FoD", "sigma2", sigma2)
        if len(pull) != len(spread) or min(pull.min(), spread.min()) < 0 or not dt > 0:
            raise ValueError(f"FoD: {len(pull)} theta and {len(spread)} sigma2 >= 0, dt > 0 ({dt}); give one per step")
        count = len(pull) if steps is None else steps
        if not 1 <= count <= len(pull):
            raise ValueError(f"FoD: {count} steps; this schedule has 1 to {len(pull)}")
        if target not in TARGETS:
            raise ValueError(f"FoD: no target {target!r}; there are {', '.join(TARGETS)}")
        path = [i * len(pull) // count for i in range(count + 1)]
        super().__init__(path[:-1])
        self.target, self.clamp = target, NO_LIMIT if clamp is None else clamp
        zero = torch.zeros(1, dtype=torch.float64)
        mean = torch.cat([zero, -dt * (pull + spread / 2).cumsum(0)])
        variance = torch.cat([zero, dt * spread.cumsum(0)])
        self._add("state", range(len(pull) + 1), [mean, variance.sqrt()])
        start, end = map(list, zip(*pairwise(path)))
        self._add("MC", start, [mean[end] - mean[start], (variance[end] - variance[start]).clamp_min(0).sqrt()])
        self._add("NMC", start, [mean[end], variance[end].sqrt()])
        self._one: Tensor
        self.register_buffer("_one", torch.ones(1, 1), persistent=False)

    def sample(self, x_0: Tensor, mu: Tensor, t: int | Tensor, **noise: Any) -> Tensor:
        """The training state ``mu + (x_0 - mu) exp(M_t + S_t ε)``, [B,C,H,W], at t (int or [B]) in 0..T.

        noise: any of noise, seed, generator, stream, window, as `f2d_kernels.lognormal_transition` takes them.
        """
        row = self._row("state", t, (x_0, mu))
        return lognormal_transition(x_0, mu, row[..., 0], row[..., 1], **streamed(noise, t))

    def step(
        self,
        x: Tensor,
        prediction: Tensor,
        t: int | Tensor,
        sampler: str = "MC",
        x_0: Tensor | None = None,
        **noise: Any,
    ) -> tuple[Tensor, Tensor]:
        """(state at the next time, mu) from the state x and the network's prediction at t, all [B,C,H,W]:

            MC    mu + (x - mu) exp(M + S ε), (M, S) of this step: the Markov chain
            NMC   mu + (x_0 - mu) exp(M + S ε), (M, S) from time 0: every step starts from x_0 again

        x_0: the degraded image, needed by NMC and by the target FLOW. After the last of `times` the state is it.
        """
        if sampler not in SAMPLERS:
            raise ValueError(f"FoD: no sampler {sampler!r}; there are {', '.join(SAMPLERS)}")
        if x_0 is None and (sampler == "NMC" or self.target == "FLOW"):
            raise ValueError(f"FoD: sampler {sampler} with target {self.target} needs x_0, the degraded image")
        start: Any = x if sampler == "MC" else x_0
        row = self._row(sampler, t, (x, prediction, start))
        schedule = (row[..., 0], row[..., 1])
        source = streamed(noise, t)
        if self.target == "FINAL_X":
            mu = prediction if self.clamp == NO_LIMIT else prediction.clamp(*self.clamp)
            return lognormal_transition(start, mu, *schedule, **source), mu
        gates = self._one.expand(len(x), 1)
        anchor = x if self.target == "SFLOW" else x_0
        return transport_step(
            start, [prediction], gates, None, None, *schedule, anchor=anchor, clamp=self.clamp, **source
        )
