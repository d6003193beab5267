"""The file formats: what each can hold, and the one error of everything that reads and writes pictures."""

from dataclasses import dataclass
from pathlib import Path


class ImageError(ValueError):
    """A file that cannot be read or written as a picture; the message is one line that names it and says why."""


@dataclass(frozen=True)
class Format:
    """name: Pillow's. alpha: transparency survives. deep: 16 bits per channel. grey: one channel. quality: is lossy."""

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
    """The format that the suffix of `path` names; ImageError unless it is one that is written."""
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise ImageError(f"{path}: image suffix must be one of {', '.join(sorted(FORMATS))}, got {path.suffix!r}")
    return FORMATS[suffix]
