"""Read a file to a `Photo`: decoded, upright, grey or RGB, 8 or 16 bits; any fault becomes a one-line error."""

import stat
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from f2d.images import colour_chunks, embedded, heif, metadata, tiff_colours
from f2d.images.decoding import decoded
from f2d.images.formats import ImageError, TooManyPixelsError, why_unread
from f2d.images.headers import Header, header_of
from f2d.images.metadata import Metadata
from f2d.images.modes import pixels_of
from f2d.images.photo import Photo
from f2d.images.tiff_reading import AnyTiff

# These formats are decoded by libraries; others run programs (EPS) or are not photographs.
_UNSPECIFIED, _SRGB = 2, (1, 13)  # primaries and transfer by ITU-T H.273
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM", "JPEG2000", "AVIF")


class Stored(NamedTuple):
    """format: Pillow's name of it. size: (width, height) before the EXIF orientation is applied (except for TIFF)."""

    format: str
    size: tuple[int, int]


def read(path: str | Path) -> Photo:
    """Read the photograph in `path` with its depth, transparency and metadata, and apply the EXIF orientation.

    Grey stays grey; palette, YCbCr, L*a*b* and CMYK become RGB (CMYK by its ICC profile, if it has one). Floats in
    [0, 1] and integers of 32 bits become 16 bits. The first of several frames is read. `Photo.notes` says what was
    reduced or dropped.

    Raises ImageError, one line, for a file that is missing, unreadable, truncated, not an image, or larger than
    Pillow's limit of 179 megapixels.
    """
    path = Path(path)
    with _one_line_errors(path):
        header = _header(path)
        with _open(path, header) as image:
            return _photo(path, image, header)


def stored(path: str | Path) -> Stored:
    """Return what the header of the file says, without decoding it: whether it fits into memory is decided first.

    Raises ImageError as `read` does.
    """
    path = Path(path)
    with _one_line_errors(path):
        header = _header(path)
        if header.canvas:
            return Stored("WEBP", header.canvas)
        with _open(path, header) as image:
            _check_size(image.size)
            return Stored(image.format or header.kind, image.size)


def upright_size(path: str | Path) -> tuple[int, int]:
    """Return (width, height) of the image that `read` gives, without decoding it; raise ImageError as `read` does."""
    path = Path(path)
    with _one_line_errors(path):
        header = _header(path)
        with _open(path, header) as image:
            _check_size(image.size)
            # the size of a TIFF is given as it will be turned, and a HEIC is opened upright
            turned = header.kind == "" and _orientation(path, image) >= 5
            return image.size[::-1] if turned else image.size


def from_picture(image: Image.Image) -> Photo:
    """Convert a Pillow image to a photo without metadata; raise ImageError if its pixels have no defined range."""
    pixels, note = pixels_of(image)
    return replace(_as_photo(pixels), notes=(note,) if note else ())


def _orientation(path: Path, image: ImageFile) -> int:
    """Return the orientation of an image that has not been decoded; Pillow decodes any PNG for it."""
    if image.format != "PNG":
        return metadata.orientation(image)
    with path.open("rb") as file:
        return metadata.orientation(image, decode=colour_chunks.described_after_pixels(file))


def _header(path: Path) -> Header:
    _check_regular(path)
    with path.open("rb") as file:
        header = header_of(file)
    if header.canvas:
        _check_size(header.canvas)
    return header


def _check_regular(path: Path) -> None:
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise ImageError(f"{path}: is a folder, not an image file")
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would block forever
        raise ImageError(f"{path}: is a pipe or a device, not an image file")


def _check_size(size: tuple[int, int]) -> None:
    (width, height), limit = size, Image.MAX_IMAGE_PIXELS
    if not (width and height):
        raise ImageError(f"has no pixels: {width}x{height}")
    if limit and width * height > 2 * limit:  # as Pillow does for the formats that it opens itself
        raise TooManyPixelsError(f"its size of {width}x{height} exceeds limit of {2 * limit} pixels")


@contextmanager
def _one_line_errors(path: Path) -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of libraries; what a person must know is in the notes
            yield
    except ImageError as error:
        raise error if str(error).startswith(str(path)) else type(error)(f"{path}: {error}") from None
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file") from None
    except UnidentifiedImageError:
        reason = why_unread(path.suffix.lower()) or "is not a readable image"
        reason = reason if path.stat().st_size else "is an empty file"
        raise ImageError(f"{path}: {reason}") from None
    except Image.DecompressionBombError as error:
        raise TooManyPixelsError(f"{path}: {error}") from None
    except MemoryError:
        raise ImageError(f"{path}: does not fit into memory") from None
    except Exception as error:  # decoders report damage with nearly anything
        if isinstance(error, OSError) and error.errno:
            raise ImageError(f"{path}: cannot be read ({error.strerror})") from None
        reason = " ".join(str(error).split())  # some end with a newline
        raise ImageError(f"{path}: damaged or truncated image ({reason})") from None


def _open(path: Path, header: Header) -> ImageFile:
    if header.kind == "HEIF":
        return heif.opened(path)
    if header.kind == "TIFF":
        try:
            return AnyTiff(path)
        except (SyntaxError, TypeError, ValueError, struct.error):  # Image.open calls these unidentified
            raise UnidentifiedImageError from None
    Image.init()
    image = Image.open(path, formats=[name for name in _FORMATS if name in Image.OPEN])  # an older Pillow has no AVIF
    image.info.update(embedded.metadata_of(path, image.format))
    return image


def _photo(path: Path, image: ImageFile, header: Header) -> Photo:
    _check_size(image.size)
    several = getattr(image, "n_frames", 1)
    frames = 1 if image.format == "MPO" else several
    others = several - 1 if image.format == "MPO" else heif.further(image)
    pixels, notes, space, turned = decoded(path, image, header)
    photo = _as_photo(pixels)
    data, damage = metadata.read_metadata(image, photo.size, turned=turned)
    if space == "sRGB":
        data, colours = replace(data, icc=b""), ""
    else:
        data, colours = _described(path, image, header, data, photo.grey)
    notes = (*notes, damage, colours, _further(others))
    return replace(photo, metadata=data, frames=frames, notes=tuple(filter(None, notes)))


def _further(pictures: int) -> str:
    words = f"{pictures} further picture{'s' if pictures > 1 else ''} of the file"
    return f"{words} dropped (a preview, gain map, depth or second lens)" if pictures > 0 else ""


def _described(path: Path, image: ImageFile, header: Header, data: Metadata, grey: bool) -> tuple[Metadata, str]:
    """Add what the file says about its colours besides an ICC profile; return also a note on what is lost."""
    chunks: dict[bytes, bytes] = {}
    colours = heif.colours(image) if header.kind == "HEIF" else header.colours
    if image.format == "PNG":
        with path.open("rb") as file:
            chunks = colour_chunks.read_chunks(file)
    elif isinstance(image, AnyTiff) and not data.icc:
        profile, note = tiff_colours.profile_of(image.tag_v2, grey)
        return replace(data, icc=profile), note
    elif colours and colours != (_UNSPECIFIED, _UNSPECIFIED) and not data.icc:
        filled = (other if number == _UNSPECIFIED else number for number, other in zip(colours, _SRGB))
        chunks = {b"cICP": bytes([*(min(255, number) for number in filled), 0, 1])}
    profile, note = colour_chunks.profile_of(chunks, data.icc, grey)
    return replace(data, icc=profile, png={} if note else chunks, made=profile != data.icc), note


def _as_photo(pixels: np.ndarray) -> Photo:
    channels = pixels.shape[2] - (pixels.shape[2] in (2, 4))
    alpha = pixels[..., channels] if pixels.shape[2] > channels else None
    return Photo(pixels[..., :channels], alpha)
