"""Convert a path, Pillow image, NumPy array or tensor to pixels, and results back to the same type."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from f2d.images import Photo, from_picture, read, to_picture
from f2d.images.icc import profile_if_rgb

ImageLike = str | os.PathLike | Image.Image | np.ndarray | Tensor


_FULL = {torch.uint8: 255, torch.uint16: 65535}  # the value of white
_OVERSHOOT = 0.1


class Unpacked(NamedTuple):
    """Pixels float32 [B, 3, H, W] in [0, 1], whether the input was a batch, and pack: pixels -> the input's type."""

    pixels: Tensor
    batched: bool
    pack: Callable[[Tensor], Any]


def unpack(image: ImageLike) -> Unpacked:
    """Return the pixels of an image of any type, and the conversion back.

        path, Pillow image               -> Pillow image, RGB, or RGBA with the input's transparency
        array [H, W, 3] or [B, H, W, 3]  -> array of the same shape and type
        tensor [3, H, W] or [B, 3, H, W] -> tensor of the same shape and type, on the same device

    The EXIF orientation of a file is applied, but not that of a Pillow image (use `ImageOps.exif_transpose`). An ICC
    profile of RGB stays in the `info` of the result, from which Pillow writes it to a PNG, and to a JPEG if it is
    passed on (``icc_profile=result.info.get("icc_profile")``). Arrays are uint8, uint16, float16, float32 or float64,
    tensors uint8, uint16 or floating point. Floating-point values must lie in [0, 1]; values up to 0.1 outside, which
    resampling can produce, are accepted and not clamped. Raises TypeError or ValueError for other types, shapes and
    values, and `f2d.images.ImageError` for a file that cannot be read.
    """
    if isinstance(image, (str, os.PathLike, Image.Image)):
        if isinstance(image, Image.Image):
            photo, profile = from_picture(image), image.info.get("icc_profile") or b""
        else:
            photo = read(Path(image))
            profile = photo.metadata.icc
        return Unpacked(photo.tensor()[None], False, lambda pixels: _picture(pixels[0], photo, profile))
    if isinstance(image, np.ndarray):
        if image.ndim not in (3, 4) or image.shape[-1] != 3 or 0 in image.shape:
            raise ValueError(f"an array must be [H, W, 3] or [B, H, W, 3] with B, H, W >= 1, got {image.shape}")
        native = image.dtype.newbyteorder("=")
        if native not in (np.uint8, np.uint16, np.float16, np.float32, np.float64):
            raise TypeError(
                f"an array must hold uint8 or uint16, or float16, float32 or float64 in [0, 1], got {image.dtype}"
            )
        # a copy only where PyTorch needs one: other byte orders, negative strides, read-only memory (of which it warns)
        tensor = torch.from_numpy(np.require(image, native, ["C", "W"])).movedim(-1, -3)
        inner = unpack(tensor)
        return Unpacked(inner.pixels, inner.batched, lambda pixels: inner.pack(pixels).movedim(-3, -1).numpy())
    if not isinstance(image, Tensor):
        raise TypeError(f"an image must be a path, a Pillow image, an array or a tensor, got {type(image).__name__}")
    if image.ndim not in (3, 4) or image.shape[-3] != 3 or 0 in image.shape:
        raise ValueError(f"a tensor must be [3, H, W] or [B, 3, H, W] with B, H, W >= 1, got {tuple(image.shape)}")
    if image.dtype not in _FULL and not image.is_floating_point():
        raise TypeError(f"a tensor must hold uint8 or uint16, or floating point in [0, 1], got {image.dtype}")
    batched, full = image.ndim == 4, _FULL.get(image.dtype)
    pixels = image.detach().float()
    if full:
        pixels = pixels.div(full)
    else:
        check_range(pixels)

    def pack(restored: Tensor) -> Tensor:
        if full:
            restored = restored.clamp(0, 1).mul_(full).round_()
        return (restored if batched else restored[0]).to(image.device, image.dtype).contiguous()

    return Unpacked(pixels if batched else pixels[None], batched, pack)


def check_range(pixels: Tensor) -> None:
    """Raise ValueError unless all values lie in [0, 1] or at most 0.1 outside."""
    least, most = (float(value) for value in pixels.aminmax())
    if not (least >= -_OVERSHOOT and most <= 1 + _OVERSHOOT):  # also for NaN
        raise ValueError(
            f"floating-point values must lie in [0, 1], got {least:.4g} to {most:.4g} (divide levels of 255 by 255, or "
            "pass them as uint8)"
        )


def _picture(pixels: Tensor, photo: Photo, profile: bytes) -> Image.Image:
    restored = to_picture(pixels)
    if photo.seen is not None:
        given = np.array(photo.picture().convert("RGBA"))
        given[photo.seen, :3] = np.asarray(restored)[photo.seen]
        restored = Image.fromarray(given)
    if profile := profile_if_rgb(profile):
        restored.info["icc_profile"] = profile
    return restored
