"""The straight flow: the path of rectified flow from the degraded image to the clean one, without noise."""

import itertools

import torch
from torch import Tensor

from f2d_kernels import gaussian_transition

from .interface import Draw, Predict, Transport


class StraightFlow(Transport):
    """``x_k = (1 - k / T) y + (k / T) mu,  v(x_k, k) ≈ mu - y``, at integer times k = 0..T.

    k is 0 at the degraded image y and T = num_steps at the clean one mu; the network is told k, as F²D-Net is. Nothing
    is random: seeds and noise are accepted, for the interface, and not used. ValueError for num_steps < 1.

    Rectified flow between pairs: Liu et al., Flow Straight and Fast (ICLR 2023).
    """

    samplers = ("euler",)

    def __init__(self, num_steps: int = 100):
        if num_steps < 1:
            raise ValueError(f"StraightFlow: num_steps is {num_steps}; give at least 1")
        self.num_steps = num_steps

    def draw(self, y: Tensor, mu: Tensor, position: Tensor, seeds: Tensor) -> Draw:
        """The state at ``k = round(position T)``, exactly on that time of the grid, and its target mu - y.

        y, mu [B, 3, H, W]: degraded and clean image; position [B] in [0, 1). ValueError for shapes that do not fit.
        """
        if position.shape != y.shape[:1]:
            raise ValueError(f"StraightFlow: position is {tuple(position.shape)}; give one per image, [{len(y)}]")
        y, mu = y.float(), mu.float()
        time = (position.float() * self.num_steps).round()
        shares = torch.stack([self.num_steps - time, time], dim=1) / self.num_steps
        return Draw(gaussian_transition([y, mu], shares, 0.0), None, time, mu - y, None)

    def clean(self, prediction: Tensor, state: Tensor, y: Tensor, time: Tensor | int | float) -> Tensor:
        """``x_k + (1 - k / T) v``: a step to T. time k: a number or [B]; y is not used."""
        return self.step(state, prediction, time, self.num_steps)

    def step(self, state: Tensor, prediction: Tensor, s: Tensor | int | float, t: Tensor | int | float) -> Tensor:
        """``x + (t - s) / T · v``: Euler's step from time s to t > s, times being numbers or [B]."""
        return gaussian_transition([state, prediction], [1.0, (t - s) / self.num_steps], 0.0)

    def times(self, steps: int, sampler: str) -> list[int]:
        """``floor(i T / steps)``, i = 0..steps; ValueError unless 1 <= steps <= T."""
        if sampler not in self.samplers:
            raise ValueError(f"StraightFlow: no sampler {sampler!r}; there is {', '.join(self.samplers)}")
        if not 1 <= steps <= self.num_steps:
            raise ValueError(f"StraightFlow: {steps} steps; give 1 to {self.num_steps}")
        return [i * self.num_steps // steps for i in range(steps + 1)]

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
        """From y at 0 to T in `steps` Euler steps, float32, clamped to [-1, 1] at the end; noise and seed not used."""
        x = y.float()
        for s, t in itertools.pairwise(self.times(steps, sampler)):
            x = self.step(x, predict(x, None, s), s, t).float()
        return x.clamp(-1, 1)
