"""Smooth over time what the network decides about a whole frame, so that brightness and strength do not flicker.

    s_i = s_{i-1} + (1 - exp(-(t_i - t_{i-1}) / tau)) (x_i - s_{i-1}),  and s_i = x_i at the first frame after a cut

for each decision x: presence, gates, the enhancer's gate (`f2d.engine.control.Adjust`), and the mean change of each
colour, which also depends on the network's statistics of the frame. Gates still sum to one.
"""

import math
from collections import Counter
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from f2d.engine.control import Adjust
from f2d.engine.restorer import Restored

THUMBNAIL = (36, 64)  # rows, columns of the mean grey levels that tell a cut
CUT = 0.1  # of full scale; that of FFmpeg's scdet. Rain on a static camera reaches 0.01, a pan of 5 % a frame 0.05


class Restore(Protocol):
    """A `Restorer`, or a function that calls one with a seed and options of its own."""

    def __call__(self, image: Tensor, /, *, adjust: Adjust | None) -> Restored[Tensor]: ...


class State(NamedTuple):
    """The state of a `Smoother` in plain numbers, so that an interrupted video resumes without a seam."""

    time: float | None = None
    difference: float = 0.0
    thumbnail: list[list[float]] | None = None
    decisions: dict[str, list] = {}  # noqa: RUF012  # never changed in place


class Smoother:
    """``smoother.change(restorer, image, time)`` for each frame of a video in order.

    seconds: tau > 0, the time after which 63 % of a change has taken effect. cuts: how many cuts were found.
    """

    def __init__(self, seconds: float):
        self.seconds, self.cuts = seconds, 0
        self.state = State()
        self._weight = 1.0
        self._calls: Counter[str] = Counter()

    def change(self, restore: Restore, image: Tensor, time: float) -> tuple[Tensor, float]:
        """Return what a restoration adds to the frame `image` [1, 3, H, W] in [0, 1], shown at `time`, and its seconds.

        The change of every pixel is shifted by the amount by which smoothing changes the mean, so that brightness and
        colour of the restored video flicker no more than in its source.
        """
        self.advance(image, time)
        result = restore(image, adjust=self)
        change = result.image.clamp(0, 1) - image
        mean = change.mean(dim=(2, 3))
        change += (self("mean change", mean) - mean)[:, :, None, None]
        return (image + change).clamp_(0, 1) - image, result.seconds

    def advance(self, image: Tensor, time: float) -> None:
        """Advance to the frame `image` [1, 3, H, W] in [0, 1], shown at `time` in seconds."""
        before, self._calls = self.state, Counter()
        thumbnail = F.adaptive_avg_pool2d(image.mean(dim=1, keepdim=True), THUMBNAIL)[0, 0].cpu()
        difference, cut = 0.0, before.time is None
        if before.thumbnail is not None:
            # as FFmpeg's scdet: a fast pan changes every frame, a cut one, so the smaller of both measures counts
            difference = float((thumbnail - torch.tensor(before.thumbnail)).abs().mean())
            cut = min(difference, abs(difference - before.difference)) > CUT
            self.cuts += cut
        elapsed = 0.0 if before.time is None else max(0.0, time - before.time)
        self._weight = 1.0 if cut else 1.0 - math.exp(-elapsed / self.seconds)
        self.state = State(time, difference, thumbnail.tolist(), before.decisions)

    def __call__(self, name: str, value: Tensor) -> Tensor:
        """Return the smoothed decision; the n-th call with one name in a frame goes with the n-th of the last frame."""
        key = f"{name} {self._calls[name]}"
        self._calls[name] += 1
        last = self.state.decisions.get(key)
        if last is not None and self._weight < 1:
            value = torch.lerp(torch.tensor(last, dtype=value.dtype, device=value.device), value, self._weight)
        self.state = self.state._replace(decisions=self.state.decisions | {key: value.tolist()})
        return value
