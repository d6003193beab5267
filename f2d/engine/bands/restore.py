"""Restore one image of any size within a given amount of memory, in bands of rows."""

import itertools
import os
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from f2d.engine.control import Adjust
from f2d.engine.engine import Engine
from f2d.engine.plain import PlainEngine
from f2d.transport.restore import FLIPS
from f2d.transport.samplers import check_noise, warn_if_short

from .layers import Bands
from .network import BandedNetwork
from .stored import Rows, Scratch, View


class Banded(NamedTuple):
    """A banded restoration.

    image: float32 [1, 3, H, W] in [0, 1] on the input's device. maps: [1, K, H, W] there, or None if not requested.
    gates, weights: [1, K], those of the first call.
    """

    image: Tensor
    maps: Tensor | None
    gates: Tensor
    weights: Tensor


@torch.no_grad()
def restore_banded(
    engine: Engine,
    image: Tensor,
    *,
    positions: int,
    folder: str | os.PathLike | None = None,
    strength: tuple[float, ...] | None = None,
    steps: int = 1,
    sampler: str = "MC",
    seed: int | Tensor | None = None,
    noise: Tensor | None = None,
    tta: bool = False,
    maps: bool = False,
    adjust: Adjust | None = None,
) -> Banded:
    """Apply `restore_tensor` to one image [1, 3, H, W] in [0, 1] in bands; results agree up to rounding.

    The image stays on its device. positions and folder are the size of a band and where features are stored (None: in
    memory), as chosen by `plan`. strength holds one number per factor, or is None. adjust is that of
    `Engine.predictor`. The other options are those of `f2d.restore_tensor`. Noise is keyed by a pixel's position in the
    image, so bands draw the noise of the whole image. Raises OSError if the folder is full.
    """
    times = engine.transport.times(steps, sampler)
    check_noise(noise, seed, steps, image)
    warn_if_short(engine.transport.schedule, steps, sampler)
    if noise is None and seed is None:
        seed = torch.randint(-(2**63), 2**63 - 1, (1,), dtype=torch.int64, device=engine.device)
    bands = Bands(Scratch(engine.device, folder), positions)
    found: Banded | None = None
    flips = FLIPS if tta else FLIPS[:1]
    for flip in flips:
        flipped_noise = None if noise is None else noise.flip([axis + 1 for axis in flip])
        pixels = image.flip(flip) if flip else image
        rows = View(pixels.shape[2], pixels.shape[3], partial(_pixels, engine, pixels))
        network = BandedNetwork(engine, bands, rows, strength, engine.device.type == "cpu", adjust)
        restored = _transport(network, times, sampler, seed, flipped_noise, pixels).div_(len(flips))
        if found is None:  # maps and gates are those of the image as it is
            found = Banded(restored, _maps(network, image) if maps else None, network.gates, network.weights)
        else:
            found.image.add_(restored.flip(flip))
    assert found is not None  # there is at least one flip
    return found


def _pixels(engine: Engine, image: Tensor, top: int, bottom: int) -> Tensor:
    return in_network_range(image[:, :, top:bottom], engine)


def in_network_range(images: Tensor, engine: Engine | PlainEngine) -> Tensor:
    """``2 images - 1`` on the engine's device, float32 or wider, of images [B, 3, H, W] in [0, 1] on any device."""
    wide = torch.promote_types(images.dtype, engine.wide)  # in bfloat16 the difference would be off by half a level
    return (images.to(engine.device, wide, memory_format=torch.channels_last) * 2 - 1).to(engine.wide)


def _transport(
    network: BandedNetwork,
    times: list[int],
    sampler: str,
    seed: int | Tensor | None,
    noise: Tensor | None,
    image: Tensor,
) -> Tensor:
    """Run `f2d.transport.transport` band by band; the last step is written into the result."""
    bands, height, width = network.bands, *image.shape[2:]
    result = torch.empty(image.shape, dtype=torch.float32, device=image.device)
    state: Rows = network.enhanced
    for i, (s, t) in enumerate(itertools.pairwise(times)):
        source = {"seed": seed, "stream": i} if noise is None else {"noise": noise[i]}
        step = Step(network, state, network.velocity(state, s), (s, t), sampler, source)
        if i < len(times) - 2:
            state = bands.keep(height, width, step.read)
            continue
        for top, bottom in bands.of(height, width):
            result[:, :, top:bottom] = step.read(top, bottom).clamp_(-1, 1).add_(1).div_(2)
    return result


class Step(NamedTuple):
    """Rows of the state after one step of the sampler from `state`. velocity: v at it; times: from, to."""

    network: BandedNetwork
    state: Rows
    velocity: Rows
    times: tuple[int, int]
    sampler: str
    source: dict

    def read(self, top: int, bottom: int) -> Tensor:
        engine = self.network.engine
        x, x_0 = (rows.read(top, bottom).float() for rows in (self.state, self.network.enhanced))
        patched = bottom + -bottom % engine.config.patch  # whole patches are read, and the padding is cut off
        v = self.velocity.read(top, patched)[:, :, : bottom - top, : x.shape[3]]
        if "noise" in self.source:
            here = {"noise": self.source["noise"][:, :, top:bottom].to(x.device).float()}
        else:
            here = self.source | {"window": (top, 0)}
        return engine.transport.step(x, v, x_0, *self.times, self.sampler, here)


def _maps(network: BandedNetwork, image: Tensor) -> Tensor:
    """Return the maps [1, K, H, W] float32, as `Analysis.maps` does."""
    factors, height, width = network.weights.shape[1], *image.shape[2:]
    if network.maps is None:
        return torch.ones((), dtype=torch.float32, device=image.device).expand(1, factors, height, width)
    maps = torch.empty(1, factors, height, width, dtype=torch.float32, device=image.device)
    patch = network.engine.config.patch
    for top, bottom in network.bands.of(network.maps.height, network.maps.width):
        rows = network.maps.read(top, bottom).repeat_interleave(patch, dim=2).repeat_interleave(patch, dim=3)
        end = min(bottom * patch, height)
        if top * patch < end:
            maps[:, :, top * patch : end] = rows[:, :, : end - top * patch, :width]
    return maps
