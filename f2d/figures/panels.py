"""Panels of the figures: methods side by side, their errors, and the trajectory of x_t."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from f2d.degradation import FACTORS
from f2d.engine.restorer import Restorer
from f2d.evaluation.case import Case
from f2d.evaluation.folder import EvaluationFolder
from f2d.figures.grid import grid
from f2d.images import image_to_tensor
from f2d.metrics import psnr
from f2d.transport import LogNormal

ERROR_LEVELS = 64  # grey levels at which an error map is brightest
GROUND_TRUTH = "ground truth"
SHOWN = 6  # states of a trajectory
NOISE_RANGE = 6  # range from black to white, in standard deviations of the strongest step's noise


class Crop(NamedTuple):
    """A rectangle of an image, in pixels; x and y are those of its upper left corner."""

    x: int
    y: int
    width: int
    height: int


class Shown(NamedTuple):
    """A case with its restorations by method, all [3, H, W] in [0, 1]; clean is None if there is no ground truth.

    masks: the ground-truth mask [H, W] of each factor that is present, empty if unknown. crop: the part to draw of
    images, error maps and maps, None for all; numbers in captions are of the whole image.
    """

    name: str
    degraded: Tensor
    clean: Tensor | None
    restored: dict[str, Tensor]
    masks: dict[str, Tensor]
    crop: Crop | None = None

    def cut(self, image: Tensor) -> Tensor:
        """Return the part of an image [..., H, W] that is drawn."""
        if self.crop is None:
            return image
        x, y, width, height = self.crop
        return image[..., y : y + height, x : x + width]


def show(case: Case, methods: Mapping[str, EvaluationFolder], crop: Crop | None = None) -> Shown:
    """Read a case and its restoration by every method; raise ValueError for a missing one, or a `crop` outside."""
    pixels, restored = case.load(), {}
    height, width = pixels.degraded.shape[1:]
    if crop is not None and (
        min(crop) < 0 or 0 in crop[2:] or crop.x + crop.width > width or crop.y + crop.height > height
    ):
        raise ValueError(
            f"the crop of {crop.width}x{crop.height} pixels at ({crop.x}, {crop.y}) must lie inside {case.name}, "
            f"which is {width}x{height}"
        )
    for name, folder in methods.items():
        path, record = folder.restored(case.name), folder.record(case.name)
        if record is None or record.error is not None or not path.is_file():
            raise ValueError(f"{folder.path} has no restored image of {case.name}, so evaluate again with --images")
        if case.changed_since(record):
            raise ValueError(
                f"the files of {case.name} have changed since {folder.path} evaluated it: run f2d eval again"
            )
        restored[name] = image_to_tensor(path)
    masks = {} if pixels.maps is None else dict(zip(FACTORS, pixels.maps))
    present = {factor: mask for factor, mask in masks.items() if factor in case.factors}
    return Shown(case.name, pixels.degraded, pixels.clean, restored, present, crop)


def comparison(cases: Sequence[Shown]) -> Figure:
    """Draw a row for each case: input, every method, ground truth; RGB PSNR after 8 bits below each."""
    rows = []
    for case in cases:
        pictures = {"input": case.degraded, **case.restored}
        pictures |= {} if case.clean is None else {GROUND_TRUTH: case.clean}
        rows.append(
            [(name, picture(case.cut(image)), _decibels(name, image, case.clean)) for name, image in pictures.items()]
        )
    return grid(rows)


def errors(cases: Sequence[Shown]) -> Figure:
    """Draw a row for each case with a ground truth: |image - clean| in grey levels, mean over channels, input first."""
    rows = []
    for case in cases:
        if case.clean is not None:
            maps = {"input": case.degraded, **case.restored}
            rows.append(
                [
                    (name, case.cut(_levels_off(image, case.clean)).numpy(), _decibels(name, image, case.clean))
                    for name, image in maps.items()
                ]
            )
    if not rows:
        raise ValueError("an error map needs a ground truth, but none of these images has one")
    return grid(rows, limits=(0, ERROR_LEVELS), unit="|error|, grey levels")


def trajectory(restorer: Restorer, case: Shown, *, steps: int = 10, seed: int = 0) -> Figure:
    """Draw states x_t of one sample by MC in `steps` steps (above), and the noise that the last step to each added.

    The noise of a step is x_t minus the state that the same step reaches with ε = 0. Raises ValueError for a model
    whose process draws no noise at its steps.
    """
    transport = restorer.transport
    if not isinstance(transport, LogNormal):
        raise ValueError("this model's process draws no noise at its steps")
    path, noises, times = states(restorer, transport, case.degraded, steps, seed)
    picked = np.unique(np.linspace(0, steps, min(SHOWN, steps + 1)).round().astype(int))
    above = [(f"x_t, t/T = {times[i]:.2f}", picture(path[i]), "") for i in picked]
    loudest = max(float(noise.square().mean().sqrt()) for noise in noises) or 1.0
    below = [
        ("noise of the step", picture(noises[i] / (NOISE_RANGE * loudest) + 0.5), _levels(noises[i])) for i in picked
    ]
    return grid([above, below])


@torch.inference_mode()
def states(
    restorer: Restorer, transport: LogNormal, degraded: Tensor, steps: int, seed: int
) -> tuple[list[Tensor], list[Tensor], list[float]]:
    """Return (states [3, H, W] in [0, 1], the noise of the step to each, times t/T), steps + 1 of each.

    The first state is y; the last equals that of `f2d.transport.restore.restore_tensor` by MC with this seed.
    """
    predictor = restorer.engine.predictor()
    x, predict = predictor.begin((degraded[None] * 2 - 1).to(predictor.device, predictor.dtype))
    start = x = x.float()
    times = transport.times(steps, "MC")
    path, noises = [x], [torch.zeros_like(x)]
    for i, (s, t) in enumerate(pairwise(times)):
        prediction = predict(x, None, s)
        quiet = transport.step(x, prediction, start, s, t, "MC", {"noise": torch.zeros_like(x)})
        x = transport.step(x, prediction, start, s, t, "MC", {"seed": seed, "stream": i})
        path.append(x)
        noises.append(x - quiet)
    last = times[-1]
    unit = [state[0].cpu().add(1).div(2).clamp(0, 1) for state in path]
    return unit, [noise[0].cpu() / 2 for noise in noises], [t / last for t in times]


def picture(image: Tensor) -> np.ndarray:
    """[3, H, W] in [0, 1] -> [H, W, 3], clamped."""
    return image.clamp(0, 1).permute(1, 2, 0).numpy()


def _levels_off(image: Tensor, clean: Tensor) -> Tensor:
    return (image - clean).abs().mean(0).mul(255)


def _decibels(name: str, image: Tensor, clean: Tensor | None) -> str:
    if clean is None or name == GROUND_TRUTH:
        return ""
    return f"{float(psnr(image[None], clean[None])):.2f} dB"


def _levels(noise: Tensor) -> str:
    return f"{255 * float(noise.square().mean().sqrt()):.1f} levels rms"
