"""Restore images of any kind: the layer between image files and `restore_tensor`."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypedDict, TypeVar, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from typing_extensions import Unpack

from f2d.engine import Engine, engine_of
from f2d.engine.bands.restore import in_network_range, restore_banded
from f2d.engine.control import Adjust, strengths
from f2d.engine.execution import Execution, choose_execution, telling_memory
from f2d.engine.layers import without_autocast
from f2d.engine.plan import Plan, available_memory
from f2d.images import stored
from f2d.images.kinds import ImageLike, check_range, unpack
from f2d.nets.models import Network, load_network
from f2d.transport import sampling
from f2d.transport.restore import restore_tensor

Kind = TypeVar("Kind")  # the type of an image: Pillow image, array or tensor


class Options(TypedDict, total=False):
    """Options of a call of `Restorer`, which documents them."""

    steps: int | None
    sampler: str | None
    tta: bool
    strength: Mapping[str, float] | None
    only: Iterable[str] | None
    max_memory: int | None
    exact: bool
    adjust: Adjust | None


class BatchOptions(Options, total=False):
    """Options of `Restorer.restore_batch` in addition to those of a call."""

    seed: int | Tensor | None
    noise: Tensor | None


@dataclass(frozen=True)
class Restored(Generic[Kind]):
    """The result of a restoration, for K factors in the order of `factors`; tensors are float32 on the CPU.

    image: the restored image, of the input's type (a Pillow image for a path). seconds: the model's time, from tensor
    to tensor. maps [K, H, W] in (0, 1): where each factor acts. gates [K]: each factor's share of the correction (alpha
    at the first step), summing to 1. presence [K] in (0, 1): how present each factor is. For a batch, maps, gates and
    presence have a leading dimension B. A model without factors (ResFlow) has K = 0.
    """

    image: Kind
    seconds: float
    factors: tuple[str, ...]
    maps: Tensor
    gates: Tensor
    presence: Tensor


class Explanation(NamedTuple):
    """The network's analysis of one image, for K factors in the order of `factors`.

    maps [K, H, W] in (0, 1): where each factor acts. gates [K]: each factor's share of the correction (alpha), summing
    to 1. presence [K] in (0, 1): how present each factor is in the image (w).
    """

    factors: tuple[str, ...]
    maps: Tensor
    gates: Tensor
    presence: Tensor


class Restorer:
    """``restored = Restorer.load("f2d-lite")(picture).image``: a network prepared to restore any number of images.

    It runs the network's engine (see `f2d.engine`) on the device and in the precision of `execution`. F²D-Net's weights
    are folded and their layout is changed; other networks run as they were trained. A result depends on the image, the
    options and the seed. On a CPU, where images run one by one, it does not depend on the rest of the batch nor, for
    F²D-Net, on the number of threads. Several threads may call one restorer.
    """

    def __init__(self, net: Network, execution: Execution | None = None):
        self.execution = execution or choose_execution()
        self.engine = engine_of(net, self.execution.dtype, self.execution.device)
        self.config, self.transport = net.config, self.engine.transport

    @classmethod
    def load(
        cls,
        model: str | os.PathLike | Network = "f2d-lite",
        *,
        device: str = "auto",
        precision: str = "auto",
        **download: Any,
    ) -> "Restorer":
        """Load a preset with shipped weights, a checkpoint folder, or owner/name on the Hugging Face Hub.

        model may also be a network (an F2DNet or a ResFlowNet), whose weights are copied. device and precision are
        those of `choose_execution`; download holds revision, token, ... as in `f2d.checkpoints.find`. Raises
        FileNotFoundError or ValueError for a missing or damaged model, and for a device or precision that is not
        available; raises TypeError for a model of another type.
        """
        execution = choose_execution(device, precision)
        if not isinstance(model, nn.Module):
            return cls(load_network(model, **download), execution)
        if download:
            raise TypeError(f"{', '.join(download)} must be omitted for a network, since nothing is downloaded for it")
        return cls(model, execution)

    @overload
    def __call__(
        self, image: str | os.PathLike | Image.Image, *, seed: int = 0, **options: Unpack[Options]
    ) -> Restored[Image.Image]: ...
    @overload
    def __call__(self, image: np.ndarray, *, seed: int = 0, **options: Unpack[Options]) -> Restored[np.ndarray]: ...
    @overload
    def __call__(self, image: Tensor, *, seed: int = 0, **options: Unpack[Options]) -> Restored[Tensor]: ...
    def __call__(self, image: ImageLike, *, seed: int = 0, **options: Unpack[Options]) -> Restored[Any]:
        """Restore a path, Pillow image, NumPy array or tensor: one image or a batch (see `f2d.images.kinds.unpack`).

        steps, sampler and tta are those of `restore_tensor`; strength and only are those of
        `f2d.engine.control.strengths`. max_memory is the number of bytes that the process may use, by default 80 % of
        what is free. An image that does not fit is restored in bands of rows, with its features in temporary files if
        necessary (see `f2d.engine.plan`); the result equals the whole-image result up to rounding. With exact, images
        are never split. ResFlow has neither factors nor bands. adjust, for videos, is `f2d.engine.control.Adjust`.

        Raises ValueError for options that the model does not support. Raises BudgetError, a ValueError that names the
        least memory that suffices, if max_memory is too small, and DoesNotFitError, a BudgetError, if memory runs out.
        """
        if isinstance(image, (str, os.PathLike)):
            self.plan_for(stored(Path(image)).size, **options)  # before it is decoded: 20 kB can decode to gigabytes
        pixels, batched, pack = unpack(image)
        with telling_memory(_size(pixels)), without_autocast(self.execution.device):
            self.execution.synchronize()
            start = time.perf_counter()
            restored, explanation = self._run(pixels, seed=seed, **options)
            self.execution.synchronize()
            seconds = time.perf_counter() - start
            found = (tensor if batched else tensor[0] for tensor in explanation)
            return Restored(pack(restored.cpu()), seconds, self.config.factors, *(t.float().cpu() for t in found))

    def restore_batch(self, images: Tensor, **options: Unpack[BatchOptions]) -> Tensor:
        """Restore images [B, 3, H, W] in [0, 1] to float32 on the network's device; the options are those of a call.

        With a seed, every image of the batch gets the noise that it would get alone. Raises ValueError for values
        outside [0, 1] (see `f2d.images.kinds.check_range`).
        """
        if not isinstance(images, Tensor):
            raise TypeError(
                f"images must be a tensor [B, 3, H, W], got {type(images).__name__} (a call takes other kinds of image)"
            )
        if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
            raise ValueError(f"images must be [B, 3, H, W] with B, H, W >= 1, got {tuple(images.shape)}")
        if not images.is_floating_point():
            raise TypeError(f"images must hold floating-point values in [0, 1], got {images.dtype}")
        check_range(images)
        with telling_memory(_size(images)), without_autocast(self.execution.device):
            return self._run(images, **options)[0]

    @torch.no_grad()
    def explain(self, image: ImageLike) -> Explanation:
        """Compute maps, gates and presence at t = 0, as in a one-step restoration, in one network call.

        image: of any kind that a call accepts. For a batch, the results have a leading dimension B.
        """
        pixels, batched, _ = unpack(image)
        with without_autocast(self.execution.device):
            found = self.engine.predictor().look(in_network_range(pixels, self.engine))
        return Explanation(self.config.factors, *((tensor if batched else tensor[0]).float().cpu() for tensor in found))

    @torch.no_grad()
    def _run(
        self,
        images: Tensor,
        *,
        steps: int | None = None,
        sampler: str | None = None,
        seed: int | Tensor | None = None,
        noise: Tensor | None = None,
        strength: Mapping[str, float] | None = None,
        only: Iterable[str] | None = None,
        max_memory: int | None = None,
        exact: bool = False,
        adjust: Adjust | None = None,
        **options: Any,
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return restored images in [0, 1], and (maps, gates, presence) of the first call."""
        only = only if only is None or isinstance(only, str) else set(only)
        seed, noise = _seed_of_each(seed, images), _noise_of_each(noise, images)
        steps, sampler = sampling(self.transport, steps, sampler)
        options |= {"steps": steps, "sampler": sampler}
        plan = self.plan(images, max_memory, exact=exact, steps=steps)
        folder = _folder_for(plan)
        # One by one in bands and on a CPU: a batch gains nothing there, and no sum depends on the rest of the batch
        batch = max(1, images.shape[0])
        size = batch if plan.whole and self.execution.device.type != "cpu" else 1
        parts: list[Any] = []
        for i in range(0, batch, size):
            here = slice(i, i + size)
            options["seed"] = None if seed is None else seed[here].to(self.engine.device)
            options["noise"] = None if noise is None else noise[:, here]
            if plan.whole:
                predictor = self.engine.predictor(strength=strength, only=only, adjust=adjust)
                restored = restore_tensor(predictor, in_network_range(images[here], self.engine), **options)
                parts.append((restored.float().add(1).div(2), *(predictor.seen or ())))
            else:
                assert isinstance(self.engine, Engine)  # other networks only restore whole images
                bands: dict[str, Any] = {"positions": plan.positions, "folder": folder, "maps": True, "adjust": adjust}
                of_each = strengths(self.config.factors, strength, only)
                parts.append(restore_banded(self.engine, images[here], strength=of_each, **bands, **options))
        # a single part is not copied, as it may be large
        restored, *found = parts[0] if len(parts) == 1 else map(torch.cat, zip(*parts))
        return restored.to(self.engine.device), tuple(found)

    def plan(self, images: Tensor, max_memory: int | None = None, *, exact: bool = False, steps: int = 1) -> Plan:
        """Plan how to restore images [B, 3, H, W] within `max_memory` bytes."""
        device = self.execution.device
        if max_memory is None:
            max_memory = available_memory(device)
        if not isinstance(max_memory, int):
            raise TypeError(f"max_memory must be a number of bytes, such as 4 * 2**30, got {type(max_memory).__name__}")
        batch, _, height, width = images.shape
        batch = 1 if device.type == "cpu" else max(1, batch)
        return self.engine.plan(height, width, max_memory, steps=steps, batch=batch, exact=exact)

    def plan_for(
        self,
        size: tuple[int, int],
        *,
        steps: int | None = None,
        sampler: str | None = None,
        max_memory: int | None = None,
        exact: bool = False,
        **_: Any,
    ) -> Plan:
        """Plan a call with these options for one image of size (width, height), before it is decoded.

        Raises BudgetError if it does not fit.
        """
        steps, _sampler = sampling(self.transport, steps, sampler)
        width, height = size
        return self.plan(torch.empty(1, 3, height, width, device="meta"), max_memory, exact=exact, steps=steps)


def _folder_for(plan: Plan) -> str | None:
    """Return the folder for the features of a plan, None if they stay in memory; raise OSError if it has no room."""
    folder = tempfile.gettempdir() if plan.in_files else None
    if folder and shutil.disk_usage(folder).free < plan.disk_bytes:
        raise OSError(
            f"{folder} has no room for {plan.disk_bytes >> 20} MiB of features, so set TMPDIR or allow more memory"
        )
    return folder


def _size(images: Tensor) -> str:
    return f"{images.shape[-1]}x{images.shape[-2]}"


def _seed_of_each(seed: int | Tensor | None, images: Tensor) -> Tensor | None:
    """Return seeds [B] int64, so that each image has the noise it would have alone; errors are those of the ops."""
    batch = images.shape[0]
    if isinstance(seed, Tensor):
        if seed.numel() not in (1, batch):
            raise ValueError(
                f"a seed tensor must hold one seed, or one per image of the batch of {batch}, got {tuple(seed.shape)}"
            )
        return seed.reshape(-1).expand(batch)
    if seed is None:
        return None
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
        raise TypeError(f"a seed must be an int or an int64 tensor, got {type(seed).__name__}")
    seed = int(seed)
    if not -(2**63) <= seed < 2**64:
        raise ValueError(f"a seed must fit in 64 bits, got {seed}")
    return torch.full((batch,), seed - 2**64 if seed >= 2**63 else seed, dtype=torch.int64, device=images.device)


def _noise_of_each(noise: Tensor | None, images: Tensor) -> Tensor | None:
    """Return noise [steps, B, 3, H, W]; raise ValueError for a shape that does not match the images."""
    if noise is not None and (not isinstance(noise, Tensor) or noise.shape[1:] != images.shape):
        shape = tuple(noise.shape) if isinstance(noise, Tensor) else type(noise).__name__
        raise ValueError(f"noise must be a tensor [steps, B, 3, H, W] for images {tuple(images.shape)}, got {shape}")
    return noise


load = Restorer.load
