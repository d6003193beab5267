"""The file formats by suffix: which are read, which are written and with what. The error of all reading and writing."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path, PurePath
from typing import TypeVar

from PIL import features

Name = TypeVar("Name", bound=PurePath)


class ImageError(ValueError):
    """A file cannot be read or written as an image; the message is one line with its name and the reason."""


class TooManyPixelsError(ImageError):
    """An image is larger than Pillow's limit, as its header says."""


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
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".jfi"), _JPEG),
    ".png": Format("PNG", deep=True),
    ".webp": Format("WEBP", grey=False, quality=True),
    ".tif": _TIFF,
    ".tiff": _TIFF,
    ".bmp": Format("BMP", alpha=False),
}
# suffixes that are read but not written: Pillow's name of the format
_READ_ONLY = {
    **dict.fromkeys((".gif",), "GIF"),
    **dict.fromkeys((".avif", ".avifs"), "AVIF"),
    **dict.fromkeys((".heic", ".heif", ".hif", ".heics", ".heifs"), "HEIF"),
    **dict.fromkeys((".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"), "JPEG2000"),
    **dict.fromkeys((".ppm", ".pgm", ".pbm", ".pnm", ".pfm"), "PPM"),
    **dict.fromkeys((".btf", ".tf8"), "TIFF"),
    ".apng": "PNG",
    ".mpo": "MPO",
}
IMAGE_SUFFIXES = frozenset(FORMATS) | frozenset(_READ_ONLY)  # of the files that are read
_RAW = ".dng .cr2 .cr3 .crw .nef .nrw .arw .srf .sr2 .orf .rw2 .raf .pef .srw .rwl .3fr .iiq .x3f .erf .kdc .mrw"
_PICTURES = ".jxl .jxr .wdp .psd .psb .xcf .kra .exr .hdr .tga .pcx .sgi .qoi .dib .ico .icns .eps .svg .pam .fits .dds"
NEEDS_HEIF = 'HEIC needs pillow-heif: pip install "f2d[heif]"'
NEEDS_DEVELOPING = "raw photographs must be developed to TIFF or JPEG first"


def format_of(path: Path) -> Format:
    """Return the format named by the suffix of `path`; raise ImageError unless it can be written."""
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise ImageError(f"{path}: image suffix must be one of {', '.join(sorted(FORMATS))}, got {path.suffix!r}")
    return FORMATS[suffix]


def image_name(path: Name, suffix: str | None) -> Name:
    """Return the name of an output: with this suffix; without one, formats that cannot be written become PNG."""
    if suffix:
        return path.with_suffix(suffix)
    return path if path.suffix.lower() in FORMATS else path.with_name(f"{path.name}.png")


def why_unread(suffix: str) -> str | None:
    """Return why files with this suffix (lower case) are not read: "" for those that are no pictures, None if read."""
    if suffix in IMAGE_SUFFIXES:
        return _missing_decoder(_READ_ONLY.get(suffix, ""))
    if suffix in _RAW.split():
        return NEEDS_DEVELOPING
    return "this format is not supported" if suffix in _PICTURES.split() else ""


def _missing_decoder(name: str) -> str | None:
    if name == "HEIF" and find_spec("pillow_heif") is None:
        return NEEDS_HEIF
    feature = {"AVIF": "avif", "JPEG2000": "jpg_2000"}.get(name)
    if feature and not (feature in features.modules | features.codecs and features.check(feature)):
        return f"this installation of Pillow reads no {name}"
    return None
