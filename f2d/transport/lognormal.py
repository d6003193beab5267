"""The log-normal stochastic transport of F²D-Net and FoD, and its noise-free limit, the straight flow."""

from typing import Any

from torch import Tensor

from .interface import Draw, Predict, Transport
from .samplers import SAMPLERS, advance, sampling_times, transport
from .schedules import LogNormalSchedule
from .targets import mu_of, target_of


class LogNormal(Transport):
    """``dx = theta (mu - x) dt + sigma (x - mu) dw, x_0 = y``; the network sees integer times 0..T.

    schedule holds theta and sigma² (`LogNormalSchedule.named` has FoD's schedules, too). target is what the network
    predicts: "SFLOW" (mu - x_t), "FLOW" (mu - x_0) or "FINAL_X" (mu).

    With theta "straight" and sigma2 "none", this is the deterministic flow x_t = (1 - t/T) y + (t/T) mu, whose target
    "FLOW" is the derivative of the path with respect to t/T. It is failure mode 1 of the paper: it averages over
    solutions.

    Factorized Stochastic Transport, "The process"; FoD (Forward-only Diffusion) for the other schedules.
    """

    samplers = SAMPLERS
    default_steps = 1  # the conditional mean

    def __init__(self, schedule: LogNormalSchedule, target: str = "SFLOW"):
        self.schedule, self.target = schedule, target

    def draw(self, y: Tensor, mu: Tensor, position: Tensor, seeds: Tensor) -> Draw:
        """``x_t = mu + (y - mu) exp(M_t + S_t ε)`` at t = floor(position (T + 1)), uniform if positions are."""
        t = (position * (self.schedule.num_steps + 1)).long()
        x_t = self.schedule.sample(y, mu, t, seed=seeds)
        return Draw(x_t, None, t, target_of(self.target, x_t, y, mu), None)

    def clean(self, prediction: Tensor, state: Tensor, y: Tensor, time: Tensor | int | float) -> Tensor:
        return mu_of(self.target, prediction, state, y)

    def times(self, steps: int, sampler: str) -> list[int]:
        return sampling_times(self.schedule, steps, sampler)

    def step(self, state: Tensor, prediction: Tensor, y: Tensor, s: Any, t: Any, sampler: str, source: dict) -> Tensor:
        """Take a step of `f2d.transport.transport` from s to t; source holds the noise arguments of its op."""
        mu = self.clean(prediction.float(), state, y, s)
        return advance(state, mu, y, self.schedule, sampler, s, t, source)

    def restore(
        self,
        predict: Predict,
        y: Tensor,
        *,
        steps: int,
        sampler: str,
        noise: Tensor | None = None,
        seed: int | Tensor | None = None,
    ) -> Tensor:
        y = y.float()

        def predict_mu(x: Tensor, t: int) -> Tensor:
            return self.clean(predict(x, None, t).float(), x, y, t)

        return transport(predict_mu, y, self.schedule, steps=steps, sampler=sampler, noise=noise, seed=seed)
