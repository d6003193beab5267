"""Read a file to a `Photo`: decoded, upright, grey or RGB, 8 or 16 bits; any fault becomes a one-line error."""

import io
import stat
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from f2d.images import metadata
from f2d.images.deep import read_deep
from f2d.images.formats import ImageError
from f2d.images.photo import Photo

# These formats are decoded by libraries; others run programs (EPS) or are not photographs.
_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000")

# the transformation that a viewer applies to the stored rows and columns: EXIF 2.3, tag 274
_TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a[::-1].swapaxes(0, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a[:, ::-1].swapaxes(0, 1),
}


def read(path: str | Path) -> Photo:
    """Read the photograph in `path` with its depth, transparency and metadata, and apply the EXIF orientation.

    Grey stays grey; palette, YCbCr and CMYK become RGB (CMYK by its ICC profile, if it has one). The first of several
    frames is read. Raises ImageError, one line, for a file that is missing, unreadable, truncated, not an image, or
    larger than Pillow's limit of 179 megapixels.
    """
    path = Path(path)
    with _one_line_errors(path):
        _check_regular(path)
        with warnings.catch_warnings():
            # half the limit; the limit itself is an error
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=_FORMATS) as image:
                return _photo(path, image)


def from_picture(image: Image.Image) -> Photo:
    """Convert a Pillow image to a photo without metadata; raise ImageError if its pixels have no defined range."""
    return _as_photo(_pixels(image))


def _check_regular(path: Path) -> None:
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise ImageError(f"{path}: is a folder, not an image file")
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would block forever
        raise ImageError(f"{path}: is a pipe or a device, not an image file")


@contextmanager
def _one_line_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except ImageError as error:
        raise error if str(error).startswith(str(path)) else ImageError(f"{path}: {error}") from None
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file") from None
    except UnidentifiedImageError:
        reason = "is not a readable image" if path.stat().st_size else "is an empty file"
        raise ImageError(f"{path}: {reason}") from None
    except Image.DecompressionBombError as error:
        raise ImageError(f"{path}: {error}") from None
    except MemoryError:
        raise ImageError(f"{path}: does not fit into memory") from None
    # decoders report damage with any of these
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error) as error:
        if isinstance(error, OSError) and error.errno:
            raise ImageError(f"{path}: cannot be read ({error.strerror})") from None
        raise ImageError(f"{path}: damaged or truncated image ({error})") from None


def _photo(path: Path, image: ImageFile) -> Photo:
    if not all(image.size):
        raise ImageError(f"has no pixels: {image.size[0]}x{image.size[1]}")
    if image.format == "TIFF":
        _check_whole(path, image)
    frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)  # MPO: a phone's preview or second lens
    pixels = read_deep(path, image)
    if pixels is None:
        image.load()
        pixels = _pixels(image)
    elif "transparency" in image.info:  # the colour that is transparent, in 16 bits
        clear = (pixels == np.array(image.info["transparency"], np.uint16)).all(axis=2)
        pixels = np.dstack([pixels, np.where(clear, 0, 65535).astype(np.uint16)])
    # a TIFF is turned by Pillow as it is loaded, which also drops the tag: all others are turned here
    turn = 1 if image.format == "TIFF" else metadata.orientation(image)
    photo = _as_photo(np.ascontiguousarray(_TURNS[turn](pixels)))
    data = metadata.read_metadata(image, photo.size)
    if image.mode == "CMYK" and data.icc:  # the pixels are sRGB now
        data = metadata.without_icc(data)
    return Photo(photo.levels, photo.alpha, data, frames)


def _check_whole(path: Path, image: ImageFile) -> None:
    """Find strips or tiles beyond the end of the file, for which libtiff would print its own line."""
    end = path.stat().st_size
    tags = getattr(image, "tag_v2", {})
    for offsets, lengths in ((273, 279), (324, 325)):
        parts = zip(tags.get(offsets, ()), tags.get(lengths, ()))
        if any(offset + length > end for offset, length in parts):
            raise ImageError("damaged or truncated image (some of its pixels are missing)")


def _pixels(image: Image.Image) -> np.ndarray:
    """Return [H, W, 1 to 4] uint8 or uint16: grey or RGB, followed by alpha if there is any."""
    if image.mode.startswith("I") or image.mode == "F":
        return _grey_pixels(image)
    if image.mode == "CMYK":
        image = _cmyk_to_rgb(image)
    elif image.mode in ("1", "L", "LA", "La"):
        image = image.convert("LA" if image.has_transparency_data or image.mode == "La" else "L")
    elif image.mode == "LAB":
        raise ImageError("L*a*b* pixels are not supported (convert the file to RGB)")
    else:
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    pixels = np.array(image)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _grey_pixels(image: Image.Image) -> np.ndarray:
    if image.mode == "F":
        raise ImageError("32-bit float pixels have no defined range (convert the file to 8 or 16 bits)")
    values = np.asarray(image)
    if image.mode == "I" and values.size and not 0 <= values.min() <= values.max() <= 65535:
        raise ImageError("32-bit pixels have no defined range (convert the file to 8 or 16 bits)")
    values = values.astype(np.uint16)
    tags = getattr(image, "tag_v2", {})
    if tags.get(258) in (12, (12,)):
        values = (values.astype(np.uint32) * 65535 // 4095).astype(np.uint16)
    if tags.get(262) == 0:  # white is zero
        values = 65535 - values
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        return np.dstack([values, np.where(values == clear, 0, 65535).astype(np.uint16)])
    return values[..., None]


def _cmyk_to_rgb(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if profile:
        try:
            converted = ImageCms.profileToProfile(
                image, io.BytesIO(profile), ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
            assert converted is not None  # as it is where nothing is done in place
            return converted
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            warnings.warn("an unusable ICC profile is dropped", RuntimeWarning, stacklevel=2)
    return image.convert("RGB")


def _as_photo(pixels: np.ndarray) -> Photo:
    channels = pixels.shape[2] - (pixels.shape[2] in (2, 4))
    alpha = pixels[..., channels] if pixels.shape[2] > channels else None
    return Photo(pixels[..., :channels], alpha)
