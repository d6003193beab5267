"""Details of an image that need the model to run: its maps, its gates over time, the spread of its samples."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from f2d.engine import Predictor
from f2d.engine.restorer import Restorer
from f2d.report.pictures import shrunk
from f2d.transport import LogNormal, sampling

GATE_STEPS = 10
SPREAD_STEPS = (1, 4, 10)
SEEDS = 3  # samples per standard deviation: 45 calls for the three numbers of steps
SPREAD_SIDE = 256  # pixels of the sampled centre; 45 calls take 4.7 s on one core (384 pixels: 9 s)


class Spread(NamedTuple):
    """Standard deviation over `SEEDS` seeds in grey levels, averaged over the channels. values: [h, w], downscaled.
    mean: over all pixels."""

    steps: int
    values: np.ndarray
    mean: float


class Details(NamedTuple):
    """The details of one image from a model with K factors; maps and gates are empty for a model without factors.

    maps: K maps [h, w] in (0, 1), downscaled; means: over all pixels of each. gates, presence: by factor, at the first
    step. times: t/T of `GATE_STEPS` steps; paths [steps, K]: the gates at these times. spread: by number of steps, for
    the centre of the image. sampled: (width, height) of that centre in pixels.
    """

    factors: tuple[str, ...]
    maps: tuple[np.ndarray, ...]
    means: tuple[float, ...]
    gates: tuple[float, ...]
    presence: tuple[float, ...]
    times: tuple[float, ...]
    paths: np.ndarray
    spread: tuple[Spread, ...]
    sampled: tuple[int, int]


def check_steps(restorer: Restorer) -> None:
    """Raise ValueError for a model whose process has fewer steps than the details take."""
    sampling(restorer.transport, max(GATE_STEPS, *SPREAD_STEPS))


@torch.inference_mode()
def look(restorer: Restorer, picture: Tensor) -> Details:
    """Run the model on an image [3, H, W] in [0, 1]."""
    factors = restorer.config.factors
    spread, sampled = spread_of(restorer, picture)
    if not factors:
        return Details((), (), (), (), (), (), np.zeros((0, 0)), spread, sampled)
    times, paths, maps, presence = _along_the_way(restorer, picture)
    gates = tuple(paths[0].tolist())
    whole = tuple(shrunk(values.numpy()) for values in maps)
    means = tuple(maps.mean((1, 2)).tolist())
    return Details(factors, whole, means, gates, tuple(presence.tolist()), times, paths, spread, sampled)


def spread_of(restorer: Restorer, picture: Tensor) -> tuple[tuple[Spread, ...], tuple[int, int]]:
    """``std_seeds(restored)`` for the image's centre at each of `SPREAD_STEPS`, and the centre's (width, height)."""
    top, left = (max(0, (length - SPREAD_SIDE) // 2) for length in picture.shape[1:])
    centre = picture[:, top : top + SPREAD_SIDE, left : left + SPREAD_SIDE]
    images, seeds = centre.expand(SEEDS, -1, -1, -1), torch.arange(SEEDS)
    found = []
    for steps in SPREAD_STEPS:
        samples = restorer.restore_batch(images, steps=steps, seed=seeds).float().cpu()
        levels = samples.std(0).mean(0).mul(255)
        found.append(Spread(steps, shrunk(levels.numpy()), float(levels.mean())))
    return tuple(found), (centre.shape[2], centre.shape[1])


def _along_the_way(restorer: Restorer, picture: Tensor) -> tuple[tuple[float, ...], np.ndarray, Tensor, Tensor]:
    """Return (times, gates [steps, K], maps [K, H, W], presence [K]) of one restoration by MC with seed 0."""
    predictor, transport = restorer.engine.predictor(), restorer.transport
    # every network with factors has these
    assert isinstance(transport, LogNormal) and isinstance(predictor, Predictor)
    y = picture[None].to(predictor.device, predictor.dtype) * 2 - 1
    analysis = predictor.analyse(y)
    times, paths = [], []

    def predict(x: Tensor, auxiliary: Tensor | None, t: Any) -> Tensor:
        found = predictor.velocity(x.to(y.dtype), analysis, t)
        times.append(t / transport.schedule.num_steps)
        paths.append(found.gates[0].float().cpu())
        return found.prediction

    transport.restore(predict, analysis.enhanced.float(), steps=GATE_STEPS, sampler="MC", seed=0)
    return tuple(times), torch.stack(paths).numpy(), analysis.maps[0].float().cpu(), analysis.weights[0].float().cpu()
