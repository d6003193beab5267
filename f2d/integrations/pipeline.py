"""F²D-Net as a pipeline of diffusers.

Saved pipelines name this module and `scheduler`, in which diffusers looks for its base classes, so neither can move.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput, ModelMixin
from huggingface_hub import snapshot_download
from PIL import Image
from torch import Tensor
from typing_extensions import Self

from f2d import checkpoints
from f2d.images import to_picture
from f2d.images.kinds import ImageLike, unpack
from f2d.nets import F2DNet, F2DNetConfig
from f2d.transport.restore import evaluating

from .scheduler import Generators, LogNormalScheduler, Seed, noise_source

OUTPUTS = ("pil", "np", "pt")
UNET, SCHEDULER = "unet", "scheduler"


class RestorationModel(ModelMixin):
    """``model(x_t, image, t)``: an F²D-Net with the interface of a diffusers model; its files stay the same.

    forward(sample [B, 3, H, W], image of the same shape in [-1, 1], timestep an int or [B]) -> the network's
    prediction [B, 3, H, W] (see its config.target). `save_pretrained` writes an ordinary checkpoint, which
    `F2DNet.from_pretrained` and the command line can load.
    """

    def __init__(self, net: F2DNet):
        super().__init__()
        self.net = net

    @property
    def config(self) -> F2DNetConfig:
        return self.net.config

    def forward(self, sample: Tensor, image: Tensor, timestep: Tensor | int) -> Tensor:
        return self.net(sample, image, timestep).prediction

    def save_pretrained(self, save_directory: str | os.PathLike, *, push_to_hub: bool = False, **_: Any) -> None:
        """Write `config.json`, `model.safetensors` and a model card; diffusers' options for shards are ignored.

        Raises ValueError for push_to_hub, since the network's own `push_to_hub` uploads it.
        """
        if push_to_hub:
            raise ValueError("RestorationModel: push_to_hub must be False (model.net.push_to_hub(...) uploads)")
        self.net.save_pretrained(save_directory)

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike,
        *,
        dtype: torch.dtype | None = None,
        torch_dtype: torch.dtype | None = None,
        subfolder: str = "",
        **options: Any,
    ) -> Self:
        """Load any source of `F2DNet.from_pretrained`; dtype (or torch_dtype): of the weights, default float32.

        Diffusers' options for downloading are supported; those for loading with little memory are ignored.
        """
        known = {name: value for name, value in options.items() if name in DOWNLOAD and value is not None}
        net = F2DNet.from_pretrained(Path(source, subfolder) if subfolder else source, **known)
        return cls(net.to(dtype or torch_dtype or torch.float32)).eval()


DOWNLOAD = ("revision", "token", "cache_dir", "local_files_only", "force_download")


class RestorationPipeline(DiffusionPipeline):
    """``pipeline(image).images[0]``: restore an image by `unet` along the transport of `scheduler`.

    unet is an F²D-Net or its `RestorationModel`; by default, scheduler is the one it was trained for. Results
    are bit-exact with `f2d.restore_tensor` for the same steps, sampler and seed. Raises TypeError for other types. Each
    image is analysed once for all steps. This calls parts of `unet` rather than the whole module, so diffusers refuses
    to offload it.

        pipeline = RestorationPipeline(F2DNet.from_pretrained("f2d-lite"))
        pipeline.save_pretrained("folder"); RestorationPipeline.from_pretrained("folder")
    """

    _optional_components = [SCHEDULER]  # noqa: RUF012, otherwise a component with a default is not saved
    _callback_tensor_inputs = ["sample", "pred_original_sample"]  # noqa: RUF012

    def __init__(self, unet: RestorationModel | F2DNet, scheduler: LogNormalScheduler | None = None):
        super().__init__()
        if isinstance(unet, F2DNet):
            unet = RestorationModel(unet)
        if not isinstance(unet, RestorationModel):
            raise TypeError(f"RestorationPipeline: unet must be an F2DNet, got {type(unet).__name__}")
        scheduler = LogNormalScheduler.of(unet.net) if scheduler is None else scheduler
        if not isinstance(scheduler, LogNormalScheduler):
            raise TypeError(
                f"RestorationPipeline: scheduler must be a LogNormalScheduler, got {type(scheduler).__name__}"
            )
        self.register_modules(unet=unet, scheduler=scheduler)

    @torch.no_grad()
    def __call__(
        self,
        image: ImageLike | Sequence[Image.Image],
        num_inference_steps: int | None = None,
        *,
        timesteps: Sequence[int] | None = None,
        generator: Generators = None,
        seed: Seed = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[[Any, int, Tensor, dict[str, Tensor]], dict[str, Tensor]] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("sample",),
    ) -> ImagePipelineOutput | tuple[Any]:
        """Restore an image, or a batch of one size: path, Pillow image, list of images, array or tensor in [0, 1].

        Results are RGB, as in diffusers, without the transparency that `f2d.load` keeps. num_inference_steps is the
        number of network calls, by default 1 (the conditional mean) unless `timesteps` is given. seed is an int or
        int64 [B], as in `f2d.restore_tensor`; generator is one, or a list of B, from which seeds are drawn instead.
        output_type is "pil" (a list of images), "np" (float32 [B, H, W, 3]) or "pt" (float32 [B, 3, H, W]), in [0, 1].

        callback_on_step_end(pipeline, step, timestep, tensors) -> tensors is called after each step with the requested
        tensors: "sample", the state [B, 3, H, W] in [-2, 2], and "pred_original_sample". A returned "sample" replaces
        the state. Raises ValueError or TypeError for invalid images, options and outputs.
        """
        unknown = set(callback_on_step_end_tensor_inputs) - set(self._callback_tensor_inputs)
        if unknown:
            raise ValueError(
                f"callback tensors must be among {self._callback_tensor_inputs}, got {', '.join(sorted(unknown))}"
            )
        if output_type not in OUTPUTS:
            raise ValueError(f"output_type must be one of {', '.join(OUTPUTS)}, got {output_type!r}")
        device = self._execution_device
        y = pixels_of(image).contiguous().to(device) * 2 - 1  # in channels_last, sums round differently
        source = noise_source(y, generator, seed)
        if num_inference_steps is None and timesteps is None:
            num_inference_steps = 1
        self.scheduler.set_timesteps(num_inference_steps, device, timesteps)
        self.scheduler.set_begin_index(0)
        with evaluating(self.unet.net), self.progress_bar(total=self.scheduler.num_inference_steps) as bar:
            x, predict = self.unet.net.begin(y.to(self.unet.dtype))
            for i, t in enumerate(self.scheduler.timesteps):
                step = self.scheduler.step(predict(x, None, t), t, x, **source, original_sample=None if i else x)
                x = step.prev_sample
                if callback_on_step_end is not None:
                    tensors = {"sample": x, "pred_original_sample": step.pred_original_sample}
                    asked = {name: tensors[name] for name in callback_on_step_end_tensor_inputs}
                    x = (callback_on_step_end(self, i, t, asked) or {}).get("sample", x)
                bar.update()
        self.maybe_free_model_hooks()
        images = _output(x.float().add(1).div(2), output_type)
        return ImagePipelineOutput(images) if return_dict else (images,)

    @classmethod
    def download(cls, pretrained_model_name: str | os.PathLike, **options: Any) -> str:
        """Download a pipeline from the Hub into its cache: the files of `save_pretrained`, and no code."""
        files = ["model_index.json", f"{SCHEDULER}/scheduler_config.json"]
        files += [f"{UNET}/{name}" for name in (checkpoints.CONFIG, checkpoints.MODEL)]
        known = {name: value for name, value in options.items() if name in DOWNLOAD and value is not None}
        return snapshot_download(str(pretrained_model_name), allow_patterns=files, **known)


def pixels_of(image: ImageLike | Sequence[Image.Image]) -> Tensor:
    """Convert an image or a list to float32 [B, 3, H, W] in [0, 1]; raise ValueError unless all have one size."""
    if not isinstance(image, list | tuple):
        return unpack(image).pixels
    pixels = [unpack(one).pixels for one in image]
    sizes = {tuple(one.shape[2:]) for one in pixels}
    if len(sizes) != 1:
        raise ValueError(f"images of a batch must have one size, got {sorted(sizes) or 'none'}")
    return torch.cat(pixels)


def _output(pixels: Tensor, kind: str) -> list[Image.Image] | np.ndarray | Tensor:
    if kind == "pt":
        return pixels
    if kind == "np":
        return pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return [to_picture(one) for one in pixels]
