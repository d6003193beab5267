"""Write a `Photo` atomically, in the format of the file's suffix, with the depth and colour that it supports."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from f2d import replacing as files
from f2d.images import deep
from f2d.images.colour_chunks import with_chunks
from f2d.images.formats import Format, ImageError, format_of
from f2d.images.metadata import save_options
from f2d.images.photo import Photo
from f2d.images.tiff import tiff

QUALITY = 95  # keeps a restored image within one or two grey levels of the tensor
_OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"subsampling": 0},
    "WEBP": {"exact": True},  # the colours below full transparency too
    "PNG": {"compress_level": 3},  # 1080x720: 0.06 s against 0.2 s at the default 6, 3 % larger
}


def write(photo: Photo, path: str | Path, *, quality: int | None = None) -> tuple[str, ...]:
    """Write `photo` to a temporary file that then replaces `path`; quality is 1 to 100 for JPEG and WebP (default 95).

    Formats with 8 bits round the levels; WebP converts grey to RGB. Returns notes on what the format cannot hold.
    Raises ImageError for an unknown suffix, a format that cannot hold the photo's transparency, and a failed write, in
    which case the temporary file is removed.
    """
    path = Path(path)
    data, notes = encode(photo, path, quality=quality)
    with replacing(path) as temporary:
        temporary.write_bytes(data)
    return notes


def encode(photo: Photo, path: Path, *, quality: int | None = None) -> tuple[bytes, tuple[str, ...]]:
    """Encode the contents of the file `path` in memory, as Pillow's own writing gives no reason if a disk is full."""
    check_holds(photo, path)
    format = format_of(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of libraries; what a person must know is returned
            return _encoded(photo, format, quality)
    except MemoryError:
        raise ImageError(f"{path}: does not fit into memory") from None
    except Exception as error:  # encoders fail in many ways: too many pixels, or metadata that they do not expect
        reason = " ".join(str(error).split())
        raise ImageError(f"{path}: cannot be written as {format.name} ({reason})") from None


def _encoded(photo: Photo, format: Format, quality: int | None) -> tuple[bytes, tuple[str, ...]]:
    fitted = _fitted(photo, format)
    options, notes = save_options(fitted.metadata, format.name)
    if fitted.depth < photo.depth:
        notes = ("16 bits became 8", *notes)
    pixels = fitted.levels if fitted.alpha is None else np.dstack([fitted.levels, fitted.alpha])
    if format.name == "TIFF":
        return tiff(pixels, options), notes
    if fitted.depth == 16:
        data = deep.png(pixels, options)
    else:
        if format.quality:
            options["quality"] = QUALITY if quality is None else quality
        file = io.BytesIO()
        fitted.picture().save(file, format.name, **_OPTIONS.get(format.name, {}), **options)
        data = file.getvalue()
    return (with_chunks(data, fitted.metadata.png) if format.name == "PNG" else data), notes


def save_image(image: Image.Image, path: str | Path) -> None:
    """Write a Pillow image without metadata."""
    from f2d.images.reading import from_picture

    write(from_picture(image), path)


def check_holds(photo: Photo, path: Path) -> None:
    """Raise ImageError unless the format of `path` can be written and can hold the transparency of `photo`."""
    if not format_of(path).alpha and _transparent(photo):
        raise ImageError(f"{path}: this format cannot hold the image's transparency, unlike .png, .webp and .tif")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Apply `f2d.replacing.replacing`, converting an OSError to a one-line ImageError."""
    try:
        with files.replacing(path) as temporary:
            yield temporary
    except OSError as error:
        raise ImageError(f"{path}: cannot be written ({error.strerror or error})") from None


def _fitted(photo: Photo, format: Format) -> Photo:
    if not format.alpha:
        photo = replace(photo, alpha=None)
    if not format.deep:
        photo = photo.as_depth(8)
    if photo.grey and not format.grey:
        photo = _in_colour(photo)
    return photo


def _in_colour(photo: Photo) -> Photo:
    """Repeat grey of 8 bits three times; by its ICC profile, which would not suit colours, if it has one for grey."""
    profile = photo.metadata.icc
    if profile[16:20] != b"GRAY":
        return replace(photo, levels=np.repeat(photo.levels, 3, axis=2))
    grey = Image.fromarray(np.ascontiguousarray(photo.levels[..., 0]))
    srgb = ImageCms.createProfile("sRGB")
    try:
        levels = np.array(ImageCms.profileToProfile(grey, io.BytesIO(profile), srgb, outputMode="RGB"))
    except (ImageCms.PyCMSError, OSError):  # an unusable profile
        levels = np.repeat(photo.levels, 3, axis=2)
    return replace(photo, levels=levels, metadata=replace(photo.metadata, icc=b""))


def _transparent(photo: Photo) -> bool:
    """Whether any pixel is not fully opaque; an opaque alpha channel can be dropped."""
    return photo.alpha is not None and bool((photo.alpha < np.iinfo(photo.alpha.dtype).max).any())
