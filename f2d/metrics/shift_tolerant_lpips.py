"""Shift-Tolerant LPIPS: a learned distance that tolerates a shift of the image by a pixel."""

import pickle
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from f2d.metrics.batch import eight_bits
from f2d.metrics.measure import About, FunctionMeasure

SMALLEST = 21  # pixels; smaller images leave the third blur too little to mirror
_STRIDE = 2  # of the blurs, the only layers that downsample
# the convolutions of AlexNet by their names in the authors' file: (name, outputs, inputs, size, padding, blur before)
_LAYERS = (
    ("net.slice1.0", 64, 3, 11, 2, None),
    ("net.slice2.5", 192, 64, 5, 2, "net.slice2.4.filt"),
    ("net.slice3.9", 384, 192, 3, 1, "net.slice3.8.filt"),
    ("net.slice4.11", 256, 384, 3, 1, None),
    ("net.slice5.13", 256, 256, 3, 1, None),
)
_FIRST_BLUR = "net.slice1.1.filt"  # between the first convolution and its ReLU


def _expected() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(("scaling_layer.shift", "scaling_layer.scale"), (1, 3, 1, 1))
    shapes[_FIRST_BLUR] = (64, 1, 3, 3)
    for i, (name, outputs, inputs, size, _, blur) in enumerate(_LAYERS):
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (outputs, inputs, size, size), (outputs,)
        shapes[f"lin{i}.model.1.weight"] = (1, outputs, 1, 1)
        if blur:
            shapes[blur] = (inputs, 1, 3, 3)
    return shapes


def st_lpips(weights: Path, device: str | torch.device = "cpu") -> FunctionMeasure:
    """``Σ_l mean_pixels w_l · (φ_l(x) / |φ_l(x)| - φ_l(y) / |φ_l(y)|)²`` over five layers of AlexNet.

    The AlexNet has stride 1 throughout. Blurs with [1 2 1] ⊗ [1 2 1] / 16, stride 2 and mirror padding of 2 pixels
    downsample it: one between the first convolution and its ReLU, and one after each of the first two poolings (3x3,
    stride 1).

    weights: `alex_shift_tolerant.pth` of the authors' package stlpips-pytorch (BSD-2); ValueError for any other file.
    The images are rounded to 8 bits first. The first layer alone takes 256 bytes per pixel, in float32. Ghildyal, Liu,
    "Shift-tolerant Perceptual Similarity Metric" (ECCV 2022).
    """

    on_device = {name: tensor.to(device) for name, tensor in _load(Path(weights)).items()}

    @torch.inference_mode()
    def distance(*images: Tensor) -> Tensor:
        pair = torch.stack([eight_bits(image) for image in images]).to(device)
        return _distance(2 * pair - 1, on_device)

    return FunctionMeasure(About("st-lpips alex", "ST-LPIPS", "lower", digits=4), distance, smallest=SMALLEST)


def _distance(pair: Tensor, weights: dict[str, Tensor]) -> Tensor:
    x = (pair - weights["scaling_layer.shift"]) / weights["scaling_layer.scale"]
    total = x.new_zeros(())
    for i, (name, _, _, _, padding, blur) in enumerate(_LAYERS):
        if blur:
            x = _blurred(F.max_pool2d(x, 3, stride=1), weights[blur])
        x = F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=padding)
        if i == 0:
            x = _blurred(x, weights[_FIRST_BLUR])
        x = x.relu()
        directions = x / (x.square().sum(dim=1, keepdim=True).sqrt() + 1e-10)
        difference = (directions[:1] - directions[1:]).square()
        total = total + F.conv2d(difference, weights[f"lin{i}.model.1.weight"]).mean()
    return total


def _blurred(x: Tensor, kernel: Tensor) -> Tensor:
    return F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), kernel, stride=_STRIDE, groups=len(kernel))


def _load(path: Path) -> dict[str, Tensor]:
    wanted = "the weights are alex_shift_tolerant.pth of the package stlpips-pytorch"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ValueError(f"st-lpips: there is no file {path} ({wanted})") from None
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"st-lpips: {path} cannot be read, {reason} ({wanted})") from None
    entries = state.items() if isinstance(state, dict) else ()
    shapes = {name: tuple(each.shape) for name, each in entries if isinstance(each, Tensor)}
    expected = _expected()
    if shapes != expected:
        wrong = next(name for name in [*expected, *shapes] if shapes.get(name) != expected.get(name))
        raise ValueError(
            f"st-lpips: {path} contains different weights: {wrong} is {shapes.get(wrong, 'missing')}, "
            f"not {expected.get(wrong, 'expected')} ({wanted})"
        )
    return state
