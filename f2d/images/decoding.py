"""Decode an opened file to upright pixels, with the decoder that keeps the most of it."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile

from f2d.images import heif, tiff_reading
from f2d.images.deep import raw_mode, read_deep
from f2d.images.headers import Header
from f2d.images.metadata import orientation
from f2d.images.modes import cmyk_to_rgb, pixels_of
from f2d.images.photo import converted
from f2d.images.tiff_reading import AnyTiff

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
_STEPS = {"L;2": 85, "L;4": 17}  # by which Pillow scales the grey levels of a PNG, but not the transparent one
_CONVERTED = ("CMYK", "LAB")  # Pillow's modes that become sRGB, which the file's ICC profile does not describe


class Decoded(NamedTuple):
    """Upright pixels [H, W, 1 to 4]: grey or RGB, then alpha if there is any; what was reduced; space: "sRGB" if they
    were converted to it, "" if they are in the file's own colour space; whether the orientation exchanged the sides."""

    pixels: np.ndarray
    notes: tuple[str, ...]
    space: str
    turned: bool


def decoded(path: Path, image: ImageFile, header: Header) -> Decoded:
    """Decode all pixels of `image`, opened from `path`, and apply the EXIF orientation."""
    if isinstance(image, AnyTiff):
        return _tiff(image)
    pixels, note = _pixels(path, image, header)
    turn = orientation(image)  # now, as that of a PNG can come after the pixels
    if pixels.itemsize == 1 and header.bits > 8:
        note = f"{header.bits} bits became 8"
    space = "sRGB" if image.mode in _CONVERTED else ""
    return Decoded(np.ascontiguousarray(_TURNS[turn](pixels)), (note,), space, turn >= 5)


def _tiff(image: AnyTiff) -> Decoded:
    turn = orientation(image)
    tiff_reading.check_developed(image)
    tiff_reading.check_whole(image)
    layout = tiff_reading.layout_of(image)
    if layout is None:  # Pillow also turns a TIFF as it is loaded
        image.load()
        pixels, note = pixels_of(image)
        dropped = tiff_reading.dropped(image.tag_v2.get(277, 1) - len(image.getbands()))
        return Decoded(pixels, (note, dropped), "sRGB" if image.mode in _CONVERTED else "", turn >= 5)
    levels, alpha, notes = tiff_reading.read_pixels(image, layout)
    if layout.colours == 4:
        levels, note = _cmyk_levels(levels, image.tag_v2.get(34675))
        notes = (*notes, note)
        if alpha is not None and levels.dtype != alpha.dtype:
            alpha = converted(alpha, 8)
    pixels = levels if alpha is None else np.dstack([levels, alpha])
    space = "sRGB" if layout.colours == 4 else ""
    return Decoded(np.ascontiguousarray(_TURNS[turn](pixels)), notes, space, turn >= 5)


def _pixels(path: Path, image: ImageFile, header: Header) -> tuple[np.ndarray, str]:
    if image.format == "HEIF" and heif.bits(image) > 8:
        return _stretched(heif.deep_pixels(path), heif.bits(image)), ""
    step = _STEPS.get(raw_mode(image), 1)
    if step > 1 and "transparency" in image.info:
        image.info["transparency"] *= step
    pixels = read_deep(path, image)
    if pixels is None:
        image.load()
        pixels, note = pixels_of(image)
        return (_stretched(pixels, header.bits) if pixels.itemsize == 2 and 8 < header.bits < 16 else pixels), note
    if "transparency" in image.info:  # the colour that is transparent, in 16 bits
        clear = (pixels == np.array(image.info["transparency"], np.uint16)).all(axis=2)
        pixels = np.dstack([pixels, np.where(clear, 0, 65535).astype(np.uint16)])
    return pixels, ""


def _stretched(pixels: np.ndarray, bits: int) -> np.ndarray:
    """Scale values that have their `bits` in the high bits of 16 to the whole range."""
    largest = 65536 - (1 << (16 - bits))
    return np.minimum(pixels.astype(np.uint32) * 65535 // largest, 65535).astype(np.uint16)


def _cmyk_levels(inks: np.ndarray, profile: bytes | None) -> tuple[np.ndarray, str]:
    """Convert [H, W, 4] to sRGB: by the ICC profile, which works in 8 bits, or by (1 - ink) (1 - black)."""
    deep = inks.itemsize == 2
    if profile or not deep:
        picture = Image.fromarray(np.ascontiguousarray(converted(inks, 8)), "CMYK")
        picture.info["icc_profile"] = profile
        rgb, note = cmyk_to_rgb(picture)
        if not (deep and note):
            return np.array(rgb), "16 bits became 8, as its ICC profile converts 8" if deep else note
    else:
        note = ""
    paper = 65535 - inks.astype(np.uint32)
    return ((paper[..., :3] * paper[..., 3:] + 32767) // 65535).astype(np.uint16), note
