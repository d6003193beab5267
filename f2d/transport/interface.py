"""What a transport offers, whatever its process: training states with their targets, single steps, restorations."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

Predict = Callable[[Tensor, "Tensor | None", "int | float"], Tensor]
"""(state x [B, 3, H, W], auxiliary of the same shape or None, time) -> the network's prediction [B, C, H, W]."""


class Draw(NamedTuple):
    """One training batch as the network sees it, all float32."""

    state: Tensor  # x_t [B, 3, H, W]
    auxiliary: Tensor | None  # what the process carries beside the image, shape of the state
    time: Tensor  # [B]: what the network is told
    target: Tensor  # [B, C, H, W]: what the prediction is to equal
    weight: Tensor | None  # [B]: lambda(t) of the loss, or None for ones


class Transport(ABC):
    """A path from a degraded image y to the clean one mu, both [B, 3, H, W] in [-1, 1].

    Positions on the path run from 0 (degraded) to 1 (clean) for every transport; times are the process' own, and what
    its network is told. Noise is keyed by the seed of each sample, so that a batch split over machines draws the same.
    """

    samplers: tuple[str, ...]  # names of the ways to restore, the default first
    default_steps: int  # of a restoration that asks for no number

    @abstractmethod
    def draw(self, y: Tensor, mu: Tensor, position: Tensor, seeds: Tensor) -> Draw:
        """A training state at each position [B] in [0, 1), with noise from seeds [B] (int64), and its target."""

    @abstractmethod
    def clean(self, prediction: Tensor, state: Tensor, y: Tensor, time: Tensor | int | float) -> Tensor:
        """The clean image [B, 3, H, W] that a prediction for this state and time stands for, not clamped."""

    @abstractmethod
    def times(self, steps: int, sampler: str) -> list[int] | list[float]:
        """steps + 1 times from the degraded end to the clean one; ValueError for what the sampler cannot take."""

    @abstractmethod
    def step(
        self, state: Tensor, prediction: Tensor, y: Tensor, s: int | float, t: int | float, sampler: str, source: dict
    ) -> Tensor:
        """The state at time t from that at time s and the prediction for it, all [B, 3, H, W] or a part of the image.

        source: where noise comes from, in keywords of the ops: `noise`, or `seed` and `stream`, and `window`.
        """

    @abstractmethod
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
        """From y to a restored image in [-1, 1], float32, in `steps` evaluations of `predict`.

        noise [steps, B, 3, H, W] (of ResFlow [1, B, 3, H, W]), or a seed (one, or [B]) that it is drawn from.
        ValueError for a sampler that is not among `samplers`, a number of steps that it cannot take, or noise of the
        wrong shape.
        """


class Restorable(Protocol):
    """What `f2d.transport.restore.restore_tensor` restores with: a network, or its engine's view of one restoration."""

    @property
    def device(self) -> torch.device: ...
    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type that `begin` takes images in."""

    @property
    def transport(self) -> Transport: ...
    def begin(self, y: Tensor) -> tuple[Tensor, Predict]:
        """(x_0 [B, 3, H, W] float32, predict) of an image y [B, 3, H, W]: where its transport starts, and its steps."""


def sampling(transport: Transport, steps: int | None = None, sampler: str | None = None) -> tuple[int, str]:
    """(steps, sampler) of a restoration, None being the transport's own: its default number, its first sampler.

    "MC" (one step), "NMC", "EM" or "mean" of F²D-Net (see `f2d.transport.transport`), "euler" (four steps) of ResFlow.
    ValueError for a sampler that this transport does not have, or a number of steps that it cannot take.
    """
    steps = transport.default_steps if steps is None else steps
    sampler = transport.samplers[0] if sampler is None else sampler
    transport.times(steps, sampler)
    return steps, sampler
