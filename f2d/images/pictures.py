"""Pillow pictures of 8 bits and tensors, for those who need neither depth nor metadata.

PyTorch is imported by the functions that need it: the command line checks files before it pays the 1.4 s of that
import.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from f2d.images.reading import from_picture, read

if TYPE_CHECKING:
    from torch import Tensor


def open_image(path: str | Path) -> Image.Image:
    """The picture in `path`: decoded, upright (EXIF orientation applied), 8 bits, RGB, or RGBA if it has transparency.

    ImageError as in `f2d.images.read`.
    """
    photo = read(path)
    return photo.picture().convert("RGB" if photo.alpha is None else "RGBA")


def image_to_tensor(path: str | Path) -> "Tensor":
    """[3, H, W] float32 in [0, 1] of the picture in `path`, 8 or 16 bits, upright, transparency dropped."""
    return read(path).tensor()


def to_tensor(image: Image.Image) -> "Tensor":
    """[3, H, W] float32 in [0, 1] of a picture of any mode, 8 or 16 bits; ImageError where its range is undefined."""
    return from_picture(image).tensor()


def to_picture(tensor: "Tensor") -> Image.Image:
    """RGB picture of [3, H, W], or grey one of [H, W]; values in [0, 1], clamped, rounded to 8 bits."""
    import torch

    levels = tensor.detach().float().clamp(0, 1).mul(255).round().to(torch.uint8).cpu()
    return Image.fromarray((levels if levels.ndim == 2 else levels.permute(1, 2, 0)).contiguous().numpy())
