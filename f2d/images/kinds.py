"""Images as Python has them: a path, a Pillow picture, a NumPy array or a tensor in, the same kind out."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from f2d.images import Photo, from_picture, read, to_picture

ImageLike = str | os.PathLike | Image.Image | np.ndarray | Tensor


class Unpacked(NamedTuple):
    """pixels: float32 [B, 3, H, W] in [0, 1]. batched: whether B was given. pack: pixels -> the kind given."""

    pixels: Tensor
    batched: bool
    pack: Callable[[Tensor], Any]


def unpack(image: ImageLike) -> Unpacked:
    """The pixels of an image of any kind, and the way back.

        path, Pillow picture            -> picture, RGB, or RGBA with the transparency that came in
        array [H, W, 3] or [B, H, W, 3] -> array of that shape and type
        tensor [3, H, W] or [B, 3, H, W] -> tensor of that shape and type, on its device

    A file is turned upright by its EXIF orientation, a picture taken as it lies (`ImageOps.exif_transpose` turns it).
    Arrays and tensors are uint8 or floating point in [0, 1]; values beyond are not clamped on the way in. TypeError or
    ValueError for other types and shapes; `f2d.images.ImageError` for a file that cannot be read.
    """
    if isinstance(image, (str, os.PathLike, Image.Image)):
        photo = from_picture(image) if isinstance(image, Image.Image) else read(Path(image))
        return Unpacked(photo.tensor()[None], False, lambda pixels: _picture(pixels[0], photo))
    if isinstance(image, np.ndarray):
        if image.ndim not in (3, 4) or image.shape[-1] != 3 or 0 in image.shape:
            raise ValueError(f"an array must be [H, W, 3] or [B, H, W, 3] with B, H, W >= 1, got {image.shape}")
        native = image.dtype.newbyteorder("=")
        if native not in (np.uint8, np.float16, np.float32, np.float64):
            raise TypeError(f"an array must hold uint8, or float16, float32 or float64 in [0, 1], got {image.dtype}")
        # a copy only where PyTorch needs one: other byte orders, negative strides, read-only memory (of which it warns)
        tensor = torch.from_numpy(np.require(image, native, ["C", "W"])).movedim(-1, -3)
        inner = unpack(tensor)
        return Unpacked(inner.pixels, inner.batched, lambda pixels: inner.pack(pixels).movedim(-3, -1).numpy())
    if not isinstance(image, Tensor):
        raise TypeError(f"an image must be a path, a Pillow image, an array or a tensor, got {type(image).__name__}")
    if image.ndim not in (3, 4) or image.shape[-3] != 3 or 0 in image.shape:
        raise ValueError(f"a tensor must be [3, H, W] or [B, 3, H, W] with B, H, W >= 1, got {tuple(image.shape)}")
    if image.dtype != torch.uint8 and not image.is_floating_point():
        raise TypeError(f"a tensor must hold uint8, or floating point in [0, 1], got {image.dtype}")
    batched, levels = image.ndim == 4, image.dtype == torch.uint8
    pixels = image.detach().float().div(255 if levels else 1)

    def pack(restored: Tensor) -> Tensor:
        if levels:
            restored = restored.clamp(0, 1).mul_(255).round_()
        return (restored if batched else restored[0]).to(image.device, image.dtype).contiguous()

    return Unpacked(pixels if batched else pixels[None], batched, pack)


def _picture(pixels: Tensor, photo: Photo) -> Image.Image:
    restored = to_picture(pixels)
    if photo.alpha is not None:
        restored.putalpha(photo.picture().convert("RGBA").getchannel("A"))
    return restored
