"""Read HEIC and HEIF through pillow-heif, an extra; its Pillow plugin reduces 10 and 12 bits to 8."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL.ImageFile import ImageFile

from f2d.images.formats import NEEDS_HEIF, ImageError


def opened(path: Path) -> ImageFile:
    """Open the primary image of the file; raise ImageError if pillow-heif is missing, and SyntaxError for damage."""
    try:
        from pillow_heif import HeifImageFile
    except ImportError:
        raise ImageError(NEEDS_HEIF) from None
    image: ImageFile = HeifImageFile(path)
    return image


def bits(image: ImageFile) -> int:
    """Return the bits per channel that the file stores."""
    return int(image.info.get("bit_depth", 8))


def colours(image: ImageFile) -> tuple[int, int] | None:
    """Return (primaries, transfer) of the primary image by ITU-T H.273, None if they are not given."""
    said = image.info.get("nclx_profile")
    return (int(said["color_primaries"]), int(said["transfer_characteristics"])) if said else None


def further(image: ImageFile) -> int:
    """Return how many pictures belong to the primary image: gain maps, depth, mattes."""
    return sum(map(len, image.info.get("aux", {}).values())) + len(image.info.get("depth_images", ()))


def deep_pixels(path: Path) -> np.ndarray:
    """Decode [H, W, 1 to 4] uint16, with the stored bits in the high bits."""
    import pillow_heif

    file: Any = pillow_heif.open_heif(path, convert_hdr_to_8bit=False)
    pixels = np.asarray(file[file.primary_index])
    return pixels if pixels.ndim == 3 else pixels[..., None]
