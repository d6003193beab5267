"""The file formats and their capabilities, and the error that all reading and writing raises."""

from dataclasses import dataclass
from pathlib import Path


class ImageError(ValueError):
    """A file cannot be read or written as an image; the message is one line with its name and the reason."""


@dataclass(frozen=True)
class Format:
    """A format by Pillow's name; the flags are transparency, 16 bits (deep), one channel (grey), lossy (quality)."""

    name: str
    alpha: bool = True
    deep: bool = False
    grey: bool = True
    quality: bool = False


_JPEG = Format("JPEG", alpha=False, quality=True)
_TIFF = Format("TIFF", deep=True)
FORMATS = {
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".png": Format("PNG", deep=True),
    ".webp": Format("WEBP", grey=False, quality=True),
    ".tif": _TIFF,
    ".tiff": _TIFF,
    ".bmp": Format("BMP", alpha=False),
}
IMAGE_SUFFIXES = frozenset(FORMATS)


def format_of(path: Path) -> Format:
    """Return the format named by the suffix of `path`; raise ImageError unless it can be written."""
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise ImageError(f"{path}: image suffix must be one of {', '.join(sorted(FORMATS))}, got {path.suffix!r}")
    return FORMATS[suffix]
