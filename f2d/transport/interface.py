"""The interface of all transports: they draw training states with targets, take single steps, and restore."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

Predict = Callable[[Tensor, "Tensor | None", "int | float"], Tensor]
"""(state x [B, 3, H, W], auxiliary of the same shape or None, time) -> the network's prediction [B, C, H, W]."""


class Draw(NamedTuple):
    """One training batch as the network sees it. All tensors are float32."""

    state: Tensor  # x_t [B, 3, H, W]
    auxiliary: Tensor | None  # auxiliary variable of the process, in the shape of the state
    time: Tensor  # [B]: the time given to the network
    target: Tensor  # [B, C, H, W]: the target of the prediction
    weight: Tensor | None  # [B]: lambda(t) of the loss, or None for ones


class Transport(ABC):
    """A path from a degraded image y to the clean one mu, both [B, 3, H, W] in [-1, 1].

    Positions on the path run from 0 (degraded) to 1 (clean) for every transport. Times are those of the process, which
    are what its network sees. Noise is keyed by each sample's seed, so that splitting a batch does not change it.
    """

    samplers: tuple[str, ...]  # names of the samplers, the default first
    default_steps: int  # number of steps of a restoration by default

    @abstractmethod
    def draw(self, y: Tensor, mu: Tensor, position: Tensor, seeds: Tensor) -> Draw:
        """Draw a training state at each position [B] in [0, 1), with noise from seeds [B] (int64), and its target."""

    @abstractmethod
    def clean(self, prediction: Tensor, state: Tensor, y: Tensor, time: Tensor | int | float) -> Tensor:
        """Compute the clean image [B, 3, H, W] that a prediction for this state and time implies, not clamped."""

    @abstractmethod
    def times(self, steps: int, sampler: str) -> list[int] | list[float]:
        """Return steps + 1 times from the degraded end to the clean one; raise ValueError for an invalid number."""

    @abstractmethod
    def step(
        self, state: Tensor, prediction: Tensor, y: Tensor, s: int | float, t: int | float, sampler: str, source: dict
    ) -> Tensor:
        """Compute the state at time t from the state at time s and its prediction, [B, 3, H, W] or part of the image.

        source holds the noise arguments of the ops: `noise`, or `seed` and `stream`, and `window`.
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
        """Restore y to an image in [-1, 1], float32, in `steps` evaluations of `predict`.

        Pass noise [steps, B, 3, H, W] (for ResFlow [1, B, 3, H, W]), or a seed (one, or [B]) from which it is drawn.
        Raises ValueError for a sampler that is not among `samplers`, an invalid number of steps, or noise of the wrong
        shape.
        """


class Restorable(Protocol):
    """What `f2d.transport.restore.restore_tensor` can restore with: a network, or its engine for one restoration."""

    @property
    def device(self) -> torch.device: ...
    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type that `begin` takes images in."""

    @property
    def transport(self) -> Transport: ...
    def begin(self, y: Tensor) -> tuple[Tensor, Predict]:
        """Return (x_0 [B, 3, H, W] float32, predict) for an image y [B, 3, H, W]: the initial state and the network."""


def sampling(transport: Transport, steps: int | None = None, sampler: str | None = None) -> tuple[int, str]:
    """Return (steps, sampler) of a restoration; None selects the transport's default number and its first sampler.

    Samplers are "MC" (one step by default), "NMC", "EM" and "mean" for F²D-Net (see `f2d.transport.transport`) and
    "euler" (four steps by default) for ResFlow. Raises ValueError for a sampler that this transport does not have, or
    an invalid number of steps.
    """
    steps = transport.default_steps if steps is None else steps
    sampler = transport.samplers[0] if sampler is None else sampler
    transport.times(steps, sampler)
    return steps, sampler
