"""Image files: any of the usual formats in, RGB or RGBA pictures and tensors out, files replaced in one piece.

PyTorch is imported by the two functions that need it: the command line checks files with this module before it pays the
1.4 s of that import.
"""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from f2d import replacing as files

if TYPE_CHECKING:
    from torch import Tensor

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp"})

# What each format is written with; quality 95 keeps a restored picture within a grey level or two of the tensor.
_SAVE_OPTIONS = {
    ".jpg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    ".jpeg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    ".png": {"format": "PNG", "compress_level": 3},  # 1080x720: 0.06 s against 0.2 s at the default 6, 3 % larger
    ".webp": {"format": "WEBP", "quality": 95},
    ".tif": {"format": "TIFF", "compression": "tiff_lzw"},
    ".tiff": {"format": "TIFF", "compression": "tiff_lzw"},
    ".bmp": {"format": "BMP"},
}
_WITHOUT_ALPHA = {".jpg", ".jpeg", ".bmp"}


class ImageError(ValueError):
    """A file that cannot be read or written as a picture; the message is one line that names it and says why."""


def open_image(path: str | Path) -> Image.Image:
    """The picture in `path`: decoded, upright (EXIF orientation applied), 8 bits, RGB, or RGBA if it has transparency.

    Grey, palette, CMYK, YCbCr and 16-bit grey are converted; of several frames the first is taken.
    ImageError for a file that is missing, not an image, truncated, or larger than Pillow's limit of 179 megapixels.
    """
    path = Path(path)
    if path.is_dir():
        raise ImageError(f"{path}: is a folder, not an image file")
    try:
        with Image.open(path) as image:
            image.load()
            return _as_rgb(ImageOps.exif_transpose(image), path)
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file") from None
    except UnidentifiedImageError:
        raise ImageError(f"{path}: not an image that can be read") from None
    except Image.DecompressionBombError as error:
        raise ImageError(f"{path}: {error}") from None
    except ImageError:
        raise
    # decoders report damage with any of these
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error) as error:
        raise ImageError(f"{path}: damaged or truncated image ({error})") from None


def _as_rgb(image: Image.Image, path: Path) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow's own conversion to RGB would clip at 255
        image = Image.fromarray((np.asarray(image).clip(0, 65535) / 257).round().astype(np.uint8))
    if image.mode == "F":
        raise ImageError(f"{path}: 32-bit float pixels have no defined range; convert the file to 8 or 16 bits")
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def image_to_tensor(path: str | Path) -> "Tensor":
    """[3, H, W] float32 in [0, 1]: `open_image`, transparency dropped."""
    return to_tensor(open_image(path))


def to_tensor(image: Image.Image) -> "Tensor":
    """[3, H, W] float32 in [0, 1] of a picture of any mode Pillow converts to RGB."""
    import torch

    pixels = torch.from_numpy(np.array(image.convert("RGB")))
    return pixels.permute(2, 0, 1).contiguous().float().div_(255)


def to_picture(tensor: "Tensor") -> Image.Image:
    """RGB picture of [3, H, W], or grey one of [H, W]; values in [0, 1], clamped, rounded to 8 bits."""
    import torch

    levels = tensor.detach().float().clamp(0, 1).mul(255).round().to(torch.uint8).cpu()
    return Image.fromarray((levels if levels.ndim == 2 else levels.permute(1, 2, 0)).contiguous().numpy())


def save_image(image: Image.Image, path: str | Path) -> None:
    """Write `image` in the format of the suffix of `path`, under a temporary name that then replaces `path`.

    ImageError for an unknown suffix, a format that cannot hold the picture's transparency, and a failed write; the
    temporary file is removed then.
    """
    path = Path(path)
    check_holds(image, path)
    with replacing(path) as temporary:
        image.save(temporary, **_SAVE_OPTIONS[path.suffix.lower()])


def check_writable_as_image(path: Path) -> None:
    """ImageError unless the suffix of `path` names a format that is written."""
    if path.suffix.lower() not in _SAVE_OPTIONS:
        raise ImageError(f"{path}: unknown image suffix {path.suffix!r}; known are {', '.join(sorted(_SAVE_OPTIONS))}")


def check_holds(image: Image.Image, path: Path) -> None:
    """ImageError unless the format of `path` is written and can hold the transparency of `image`."""
    check_writable_as_image(path)
    if image.mode == "RGBA" and path.suffix.lower() in _WITHOUT_ALPHA:
        raise ImageError(f"{path}: this format cannot hold the picture's transparency; write .png, .webp or .tif")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """`f2d.replacing.replacing`, in which an OSError becomes an ImageError of one line."""
    try:
        with files.replacing(path) as temporary:
            yield temporary
    except OSError as error:
        raise ImageError(f"{path}: cannot be written ({error.strerror or error})") from None
