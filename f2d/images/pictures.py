"""Convert 8-bit Pillow images and tensors, without 16-bit depth or metadata.

PyTorch is imported by the functions that need it, so that the command line can check files before the 1.4 s of that
import.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from f2d.images.reading import from_picture, read

if TYPE_CHECKING:
    from torch import Tensor


def open_image(path: str | Path) -> Image.Image:
    """Open the image in `path`: upright (EXIF orientation applied), 8 bits, RGB, or RGBA if it has transparency.

    Raises ImageError as `f2d.images.read` does.
    """
    photo = read(path)
    return photo.picture().convert("RGB" if photo.alpha is None else "RGBA")


def image_to_tensor(path: str | Path) -> "Tensor":
    """Read the image in `path` as [3, H, W] float32 in [0, 1]: 8 or 16 bits, upright, without transparency."""
    return read(path).tensor()


def to_tensor(image: Image.Image) -> "Tensor":
    """Convert an image of any mode to [3, H, W] float32 in [0, 1]; raise ImageError if its range is undefined."""
    return from_picture(image).tensor()


def to_picture(tensor: "Tensor") -> Image.Image:
    """Convert [3, H, W] to an RGB image, [H, W] to a grey one; values in [0, 1] are clamped and rounded to 8 bits."""
    import torch

    levels = tensor.detach().float().clamp(0, 1).mul(255).round().to(torch.uint8).cpu()
    return Image.fromarray((levels if levels.ndim == 2 else levels.permute(1, 2, 0)).contiguous().numpy())
