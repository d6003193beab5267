"""ResFlow: the image flows to the clean one while an auxiliary variable carries what the degradation destroyed."""

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from f2d_kernels import gaussian_transition

from .interface import Draw, Predict, Transport

TINY = torch.finfo(torch.float32).tiny
AUXILIARY_STREAM = 0  # stream of the noise y_1: the same for draw and every step, as y_1 is one tensor per image


class Auxiliary(NamedTuple):
    """sigma_t of y_t = sigma_t y_1 and its derivative, as functions of (t, beta) for numbers and tensors."""

    sigma: Callable
    rate: Callable


AUXILIARIES = {
    "entropy": Auxiliary(lambda t, beta: beta / (1 - t + beta), lambda t, beta: beta / (1 - t + beta) ** 2),
    "boundary": Auxiliary(
        lambda t, beta: beta * t / (1 - t + beta), lambda t, beta: beta * (1 + beta) / (1 - t + beta) ** 2
    ),
    "constant": Auxiliary(lambda t, beta: 0 * t + 1, lambda t, beta: 0 * t),
    "none": Auxiliary(lambda t, beta: 0 * t, lambda t, beta: 0 * t),
}


def _laplace(eps: Tensor) -> Tensor:
    return -eps.sign() * (eps.abs() / math.sqrt(2)).erfc().clamp_min(TINY).log() / math.sqrt(2)


# y_1 from eps ~ N(0, 1), which the kernels draw by position: the quantile at Phi(eps), with variance 1 as eps has
DISTRIBUTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gaussian": lambda eps: eps,
    "uniform": lambda eps: math.sqrt(3) * (eps / math.sqrt(2)).erf(),
    "laplace": _laplace,
    "rademacher": lambda eps: 1 - 2 * (eps < 0).to(eps.dtype),
}


class ResFlow(Transport):
    """``x_t = (1 - t) mu + t y,  y_t = alpha_t y_0 + sigma_t y_1,  v(x_t, y_t, t) ≈ d/dt [x_t; y_t]``, t from 1 to 0.

    t is 1 at the degraded image y and 0 at the clean one mu: t = 1 - position. y_0 = 0 and y_1 is drawn, so y_t is
    sigma_t y_1, and the target [B, 6, H, W] is [y - mu; sigma'_t y_1] ([B, 3, H, W] without an auxiliary). The loss is
    weighted with lambda(t) = (cos(π/2 (t - 2)) + 1)^gamma, which rises from 0 at t = 0 to 1 at t = 1. auxiliary:

        entropy   sigma = beta / (1 - t + beta), sigma' = beta / (1 - t + beta)²; as printed
        boundary  sigma = beta t / (1 - t + beta), sigma' = beta (1 + beta) / (1 - t + beta)²
        constant  sigma = 1, sigma' = 0: y_t is y_1 at all times (the paper's ablation)
        none      no auxiliary: the network sees None and predicts y - mu

    distribution: that of y_1, with mean 0 and variance 1 per element:

        gaussian    N(0, 1), the paper's choice
        uniform     on (-√3, √3)
        laplace     density exp(-√2 |y|) / √2
        rademacher  -1 or 1, each with probability 1/2

    Each is computed as the quantile at Φ(ε) for the same ε ~ N(0, 1), so that a seed gives the same y_1, up to
    rounding, on every device.

    "entropy" preserves entropy because (1 - t + beta) sigma_t = beta: the auxiliary gains what the image loses as its
    distance to y shrinks like 1 - t (beta keeps it above 0), d ln sigma / dt = 1 / (1 - t + beta). The paper
    contradicts itself in two places, where this class follows the printed formulas:

    - sigma_0 is beta / (1 + beta) = 10/11 (beta = 10), where its eq. (5) asks for 0. No schedule with sigma_0 = 0 can
      preserve entropy, as ln sigma starts at -∞. "boundary" is the one that maps the printed schedule linearly to
      0 .. 1, (sigma_t - sigma_0) / (1 - sigma_0) = t sigma_t: its velocity is the printed one times 1 + beta, and its
      d ln sigma / dt the printed one plus 1 / t.
    - The abstract speaks of fewer than four steps, the text of four. Any number of steps is supported.

    Raises ValueError for an unknown auxiliary or distribution, beta <= 0 or gamma < 0.

    Reversing Flow for Image Restoration (CVPR 2025), eqs. 4 to 11; no public implementation is known.
    """

    samplers = ("euler",)
    default_steps = 4  # as in the paper

    def __init__(
        self, auxiliary: str = "entropy", beta: float = 10.0, gamma: float = 1.75, distribution: str = "gaussian"
    ):
        if auxiliary not in AUXILIARIES:
            raise ValueError(f"ResFlow: auxiliary must be one of {', '.join(AUXILIARIES)}, got {auxiliary!r}")
        if distribution not in DISTRIBUTIONS:
            raise ValueError(f"ResFlow: distribution must be one of {', '.join(DISTRIBUTIONS)}, got {distribution!r}")
        if not (beta > 0 and gamma >= 0):
            raise ValueError(f"ResFlow: beta must be > 0 and gamma >= 0, got {beta} and {gamma}")
        self.auxiliary = auxiliary
        self.beta = beta
        self.gamma = gamma
        self.distribution = distribution

    @property
    def channels(self) -> int:
        """Channels of a prediction: 6, or 3 without an auxiliary."""
        return 3 if self.auxiliary == "none" else 6

    def sigma(self, t: Tensor | float) -> Tensor | float:
        """``sigma_t``: the standard deviation of the auxiliary at time t in [0, 1]."""
        return AUXILIARIES[self.auxiliary].sigma(t, self.beta)

    def sigma_rate(self, t: Tensor | float) -> Tensor | float:
        """``d sigma_t / dt``."""
        return AUXILIARIES[self.auxiliary].rate(t, self.beta)

    def weight(self, t: Tensor) -> Tensor:
        """``lambda(t) = (cos(π/2 (t - 2)) + 1)^gamma``, t in [0, 1]."""
        # the same as (2 sin²(π t / 4))^gamma, which does not cancel near t = 0
        return (2 * (math.pi / 4 * t).sin().square()) ** self.gamma

    def auxiliary_at(self, t: Tensor | float, like: Tensor, **source: Any) -> Tensor | None:
        """``y_t = sigma_t y_1`` in the shape of `like` [B, 3, H, W], t a number or [B]; None without an auxiliary.

        source: `seed`, one or [B] (the same y_1 in `draw`, in `restore` and at every t), or y_1 itself as `noise`.
        """
        return None if self.auxiliary == "none" else self._scaled(like, self.sigma(t), source)

    def draw(self, y: Tensor, mu: Tensor, position: Tensor, seeds: Tensor) -> Draw:
        """Draw a training state at each position [B] in [0, 1), with y_1 from seeds [B] (int64), and its target.

        y and mu [B, 3, H, W] are the degraded and the clean image. Without an auxiliary the seeds are not used. Raises
        ValueError for shapes that do not fit.
        """
        if position.shape != y.shape[:1]:
            raise ValueError(f"ResFlow: position must be one per image, [{len(y)}], got {tuple(position.shape)}")
        y, mu, position = y.float(), mu.float(), position.float()
        t = 1 - position
        state = gaussian_transition([mu, y], torch.stack([position, t], dim=1), 0.0)
        auxiliary, target = self.auxiliary_at(t, y, seed=seeds), y - mu
        if auxiliary is not None:
            target = torch.cat([target, self._scaled(y, self.sigma_rate(t), {"seed": seeds})], dim=1)
        return Draw(state, auxiliary, t, target, self.weight(t))

    def clean(self, prediction: Tensor, state: Tensor, y: Tensor, time: Tensor | float) -> Tensor:
        """``x_t - t v_x``: a step to t = 0. time is a number or [B]; y is not used."""
        return self.step(state, prediction, y, time, 0.0)

    def step(
        self,
        state: Tensor,
        prediction: Tensor,
        y: Tensor,
        s: Tensor | float,
        t: Tensor | float,
        sampler: str = "euler",
        source: dict | None = None,
    ) -> Tensor:
        """``x + (t - s) v_x``: Euler's step from time s to t < s; times are numbers or [B].

        The step draws no noise and does not use y. It only integrates the first three channels of the prediction
        [B, 6 or 3, H, W]. As in the paper, the integral of the others is discarded, and y_t at the next time is
        computed again from the same y_1.
        """
        return gaussian_transition([state, prediction[:, :3]], [1.0, t - s], 0.0)

    def times(self, steps: int, sampler: str) -> list[float]:
        """``1 - i / steps``, i = 0..steps."""
        if sampler not in self.samplers:
            raise ValueError(f"ResFlow: sampler must be one of {', '.join(self.samplers)}, got {sampler!r}")
        if steps < 1:
            raise ValueError(f"ResFlow: steps must be at least 1, got {steps}")
        return [1 - i / steps for i in range(steps + 1)]

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
        """Restore y from t = 1 to t = 0 in `steps` uniform Euler steps, float32, clamped to [-1, 1] at the end.

        One y_1 serves the whole trajectory. Pass it as noise [1, B, 3, H, W] for any number of steps, or pass a seed
        (one, or [B]), from which y_t is recomputed at every step, so that no noise is stored. Without either, the seed
        comes from PyTorch's default generator. Without an auxiliary, no noise is used. Raises ValueError as in the
        interface.
        """
        times = self.times(steps, sampler)
        if noise is not None and noise.shape != (1, *y.shape):
            raise ValueError(f"ResFlow: noise must be one y_1 for all steps, {(1, *y.shape)}, got {tuple(noise.shape)}")
        if noise is not None and seed is not None:
            raise ValueError("ResFlow: noise and seed are mutually exclusive")
        if noise is None and seed is None and self.auxiliary != "none":
            seed = torch.randint(-(2**63), 2**63 - 1, (1,), dtype=torch.int64, device=y.device)
        source = {"seed": seed} if noise is None else {"noise": noise[0].float()}
        x = y = y.float()
        for s, t in itertools.pairwise(times):
            prediction = predict(x, self.auxiliary_at(s, y, **source), s)
            x = self.step(x, prediction, y, s, t).float()
        return x.clamp(-1, 1)

    def _scaled(self, like: Tensor, std: Tensor | float, source: dict) -> Tensor:
        """Compute ``std · y_1``, in one pass for Gaussian y_1, in the shape and layout and on the device of `like`."""
        if self.distribution == "gaussian" or "noise" in source:
            return gaussian_transition([like], [0.0], std, stream=AUXILIARY_STREAM, **source)
        eps = gaussian_transition([like], [0.0], 1.0, stream=AUXILIARY_STREAM, **source)
        return gaussian_transition([DISTRIBUTIONS[self.distribution](eps)], [std], 0.0)
