"""FoD, forward-only diffusion: multiplicative noise around the clean image, from the degraded image to it.

    # before: FoDiffusion, by default Euler-Maruyama with mu clipped to [-1, 1]
    x = diffusion.forward_loop(model, x_start, num_steps=n, model_kwargs={})

    # after; its arrays begin with a 0 for time 0, and its sigmas are variances
    fod = FoD(diffusion.thetas[1:], diffusion.sigmas[1:], diffusion.dt, n, "SFLOW", clamp=(-1, 1))
    x = x_start
    for t in fod.times:
        v = model(x, torch.full((len(x),), t), x_start)
        x, mu = fod.step(x, v, t, "EM", x_start, seed=7)

"MC" here is the loop's other sample_type. Its "NMC" raises a TypeError; the one here follows the paper.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from f2d_kernels._checks import bounds, check_floating, check_shape
from f2d_kernels.integrations._options import count, levels, number
from f2d_kernels.integrations._tables import Tables, keyed
from f2d_kernels.ops.gaussian_transition import gaussian_transition
from f2d_kernels.ops.lognormal_transition import lognormal_transition
from f2d_kernels.ops.transport_step import transport_step

SAMPLERS = ("MC", "NMC", "EM")
TARGETS = ("SFLOW", "FLOW", "FINAL_X")
NO_LIMIT = (-math.inf, math.inf)


class FoD(Tables):
    """``dx = theta (mu - x) dt + sigma (x - mu) dw, x_0`` the degraded and mu the clean image, whose states are

        x_t = mu + (x_s - mu) exp(M + S ε),  M = -dt Σ (theta_i + sigma2_i / 2),  S² = dt Σ sigma2_i,  s < i <= t.

    theta, sigma2: rates of the steps 1..T, [T] each, >= 0. dt: length of a step. steps: number of sampling steps, by
    default T; their times are i (T / steps), rounded down in float64 as in the published loop. target: what the network
    predicts: "SFLOW" mu - x_t, "FLOW" mu - x_0 or "FINAL_X" mu. clamp: (low, high), the range of mu; None for no limit.

    Raises ValueError for an invalid schedule. (Forward-only Diffusion Probabilistic Models.)
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
        pull, spread, dt = levels("FoD", "theta", theta), levels("FoD", "sigma2", sigma2), number("FoD", "dt", dt)
        if len(pull) != len(spread) or min(pull.min(), spread.min()) < 0 or not dt > 0:
            raise ValueError(
                f"FoD: needs a theta and sigma2 >= 0 per step and dt > 0, got {len(pull)}, {len(spread)}, {dt}"
            )
        if pull[0] == spread[0] == 0:
            raise ValueError("FoD: theta and sigma2 begin with 0, so omit FoDiffusion's entry for time 0")
        steps = len(pull) if steps is None else count("FoD", "steps", steps)
        if not 1 <= steps <= len(pull):
            raise ValueError(f"FoD: steps must be 1 to {len(pull)}, got {steps}")
        if target not in TARGETS:
            raise ValueError(f"FoD: target must be one of {', '.join(TARGETS)}, got {target!r}")
        path = [int(i * (len(pull) / steps)) for i in range(steps)] + [len(pull)]
        super().__init__(path[:-1])
        self.target, self.clamp = target, NO_LIMIT if clamp is None else bounds("FoD", "clamp", clamp)
        zero = torch.zeros(1, dtype=torch.float64)
        mean = torch.cat([zero, -dt * (pull + spread / 2).cumsum(0)])
        variance = torch.cat([zero, dt * spread.cumsum(0)])
        self._add("state", range(len(pull) + 1), [mean, variance.sqrt()])
        start, end = map(list, zip(*pairwise(path)))
        last = [t - 1 for t in end]
        self._add("MC", start, [mean[end] - mean[start], (variance[end] - variance[start]).clamp_min(0).sqrt()])
        self._add("NMC", start, [mean[end], variance[end].sqrt()])
        self._add("EM", start, [1 - pull[last] * dt, (spread[last] * dt).sqrt()])
        self._one: Tensor
        self.register_buffer("_one", torch.ones(1, 1, dtype=torch.float32), persistent=False)

    def sample(self, x_0: Tensor, mu: Tensor, t: int | Tensor, **noise: Any) -> Tensor:
        """``mu + (x_0 - mu) exp(M_t + S_t ε)``: the training state [B,C,H,W] at t (int, [] or [B]) in 0..T.

        noise: the sources of `f2d_kernels.lognormal_transition`: noise, seed, generator, stream, window.
        """
        t = self._time("state", t, x_0)
        row = self._row("state", t, (x_0, mu))
        return lognormal_transition(x_0, mu, row[..., 0], row[..., 1], **keyed(noise, t, x_0))

    def step(
        self,
        x: Tensor,
        prediction: Tensor,
        t: int | Tensor,
        sampler: str = "MC",
        x_0: Tensor | None = None,
        **noise: Any,
    ) -> tuple[Tensor, Tensor]:
        """Compute (next state, mu) from the state x and the prediction at t (int, [] or [B]), all [B,C,H,W]:

            MC    mu + (x - mu) exp(M + S ε), (M, S) of this step: the Markov chain
            NMC   mu + (x_0 - mu) exp(M + S ε), (M, S) from time 0: every step starts from x_0 again
            EM    x + theta (mu - x) dt + sqrt(sigma2 dt) (x - mu) ε, rates of the next time: Euler-Maruyama, the
                  default of the published loop; every step advances by one dt, so with fewer than T steps the state
                  stops short of mu

        x_0: the degraded image, which NMC and the target FLOW need. Raises ValueError if it is missing.
        """
        if sampler not in SAMPLERS:
            raise ValueError(f"FoD: sampler must be one of {', '.join(SAMPLERS)}, got {sampler!r}")
        if x_0 is None and (sampler == "NMC" or self.target == "FLOW"):
            raise ValueError(f"FoD: sampler {sampler} with target {self.target} needs x_0, the degraded image")
        images: Any = {"x": x, "prediction": prediction, "x_0": x_0}
        for name, image in images.items():
            if image is not None or name != "x_0":
                check_floating("FoD", name, image)
                check_shape("FoD", name, image, x.shape, "the shape of x")
        t = self._time(sampler, t, x)
        start: Any = x_0 if sampler == "NMC" else x
        row = self._row(sampler, t, (x, prediction, start))
        schedule = (row[..., 0], row[..., 1])
        source = keyed(noise, t, x)
        if sampler != "EM" and self.target != "FINAL_X":
            gates = self._one.expand(len(x), 1)
            anchor = x if self.target == "SFLOW" else x_0
            return transport_step(
                start, [prediction], gates, None, None, *schedule, anchor=anchor, clamp=self.clamp, **source
            )
        mu: Any = prediction
        if self.target != "FINAL_X":
            mu = mu + (x if self.target == "SFLOW" else x_0)
        mu = mu if self.clamp == NO_LIMIT else mu.clamp(*self.clamp)
        if sampler != "EM":
            return lognormal_transition(start, mu, *schedule, **source), mu
        ones = torch.ones_like(x, dtype=row.dtype)
        share = gaussian_transition([ones], row[..., :1], row[..., 1], **source)
        dtype = torch.promote_types(x.dtype, mu.dtype)
        return torch.lerp(mu.to(row.dtype), x.to(row.dtype), share).to(dtype), mu.to(dtype)
