"""Pictures through a network: what stands between image files and `restore_tensor`."""

import os
import time
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from f2d.execution import Execution, choose_execution
from f2d.images import to_picture, to_tensor
from f2d.nets import F2DNet
from f2d.restore import restore_tensor


class Restored(NamedTuple):
    """image: RGB, or RGBA with the transparency that came in. seconds: model time, from tensor to tensor."""

    image: Image.Image
    seconds: float


class Explanation(NamedTuple):
    """What the network sees in one picture, K factors in the order of `factors`.

    maps [K, H, W] in (0, 1): where each factor acts. gates [K]: alpha, summing to 1. presence [K] in (0, 1): w.
    """

    factors: tuple[str, ...]
    maps: Tensor
    gates: Tensor
    presence: Tensor


class Restorer:
    """``restored = Restorer.load("f2d-lite")(picture).image``: a network ready to run, for any number of pictures.

    The network is moved to the device of `execution` and into channels_last (on two AVX512-BF16 cores 1080x720 takes
    0.85 s with f2d-lite, 1.1 s without, 1.35 s in float32). Results follow from the picture, the options and the seed.
    """

    def __init__(self, net: F2DNet, execution: Execution | None = None):
        self.execution = execution or choose_execution()
        self.net = net.eval().to(self.execution.device, memory_format=torch.channels_last)

    @classmethod
    def load(
        cls, model: str | os.PathLike = "f2d-lite", *, device: str = "auto", precision: str = "auto"
    ) -> "Restorer":
        """A preset with shipped weights, or a folder with a checkpoint; device and precision as in `choose_execution`.

        FileNotFoundError or ValueError for a model that is not there or damaged, a device or precision that is not.
        """
        execution = choose_execution(device, precision)
        return cls(F2DNet.from_pretrained(model), execution)

    def __call__(
        self, image: Image.Image, *, steps: int = 1, sampler: str = "MC", seed: int = 0, tta: bool = False
    ) -> Restored:
        """Restore one picture of any mode and size; options as in `restore_tensor`."""
        pixels = to_tensor(image)[None]
        self.execution.synchronize()
        start = time.perf_counter()
        restored = self.restore_batch(pixels, steps=steps, sampler=sampler, seed=seed, tta=tta)
        self.execution.synchronize()
        seconds = time.perf_counter() - start
        result = to_picture(restored[0])
        if image.has_transparency_data:
            result.putalpha(image.convert("RGBA").getchannel("A"))
        return Restored(result, seconds)

    @torch.inference_mode()
    def restore_batch(self, images: Tensor, **options) -> Tensor:
        """[B, 3, H, W] in [0, 1] -> float32 of the same on the network's device; options as in `restore_tensor`."""
        with self.execution.autocast():
            restored = restore_tensor(self.net, self._to_network(images), **options)
        return restored.float().add(1).div(2)

    @torch.inference_mode()
    def explain(self, image: Image.Image) -> Explanation:
        """Maps, gates and presence at t = 0, the state that a one-step restoration sees: one more network call."""
        y = self._to_network(to_tensor(image)[None])
        with self.execution.autocast():
            analysis = self.net.analyse(y)
            output = self.net.velocity(analysis.enhanced, analysis, 0)
        tensors = (analysis.maps[0], output.gates[0], analysis.weights[0])
        return Explanation(self.net.config.factors, *(tensor.float().cpu() for tensor in tensors))

    def _to_network(self, images: Tensor) -> Tensor:
        images = images.to(self.execution.device, memory_format=torch.channels_last)
        return images * 2 - 1
