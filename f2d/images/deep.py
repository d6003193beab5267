"""Read and write PNG, and read PPM, with 16 bits per channel in colour or with transparency; Pillow has 16-bit grey.

Reading PNG: Pillow decodes such files but unpacks one byte of each value. The raw mode of its tiles selects this byte,
so a second decoding with the other byte order gives the other byte. Reading PPM: a row of colours is three times as
many values of grey. Compression and interlacing are left to Pillow.
Writing PNG: the filters are differences, computed in NumPy.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.PngImagePlugin import putchunk

from f2d.images.colour_chunks import chunks_of

_OTHER_ORDER = {"B": "L", "L": "B"}  # the byte order that selects the other byte
_DEEP_MODES = ("RGB;16", "RGBA;16")
_ROWS = 64  # rows filtered at a time, so that the differences of a large image take little memory


def read_deep(path: Path, image: ImageFile) -> np.ndarray | None:
    """Read [H, W, 1 to 4] uint16 from an opened PNG or PPM with 16 bits per channel; None for others."""
    if image.format == "PPM":
        return _read_ppm(path, image)
    stored = raw_mode(image)
    if stored == "LA;16B":
        return _read_grey_alpha_png(path)
    if stored[:-1] not in _DEEP_MODES:
        return None
    with Image.open(path) as second:
        other = stored[:-1] + _OTHER_ORDER[stored[-1]]
        second.tile = [tile._replace(args=_with_raw_mode(tile.args, other)) for tile in second.tile]
        low = np.asarray(_loaded(second))
    high = np.asarray(_loaded(image))
    return (high.astype(np.uint16) << 8) | low


def png(pixels: np.ndarray, options: dict[str, Any]) -> bytes:
    """Encode [H, W, 1 to 4] uint16 as PNG; options are those of Pillow's `save` for the metadata of a PNG.

    Source: PNG specification, third edition, 9 (filters) and 11 (chunks).
    """
    height, width, channels = pixels.shape
    template = io.BytesIO()  # Pillow writes the metadata of an image with one pixel
    Image.new("L", (1, 1)).save(template, "PNG", **options)
    file = io.BytesIO(b"\x89PNG\r\n\x1a\n")
    file.seek(0, io.SEEK_END)
    putchunk(file, b"IHDR", struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0))
    for kind, length in chunks_of(template):
        if kind not in (b"IHDR", b"IDAT", b"IEND"):
            putchunk(file, kind, template.read(length))
    compressor = zlib.compressobj(4, zlib.DEFLATED, 15, 9, zlib.Z_FILTERED)
    putchunk(file, b"IDAT", *map(compressor.compress, _paeth_filtered(pixels)), compressor.flush())
    putchunk(file, b"IEND")
    return file.getvalue()


def raw_mode(image: ImageFile) -> str:
    """Return how Pillow unpacks the pixels of an opened PNG, "" for other formats."""
    if image.format != "PNG" or not image.tile:
        return ""
    arguments: Any = image.tile[0].args
    return arguments if isinstance(arguments, str) else str(arguments[0])


def _with_raw_mode(arguments: Any, mode: str) -> str | tuple:
    return mode if isinstance(arguments, str) else (mode, *arguments[1:])


def _loaded(image: Image.Image) -> Image.Image:
    image.load()
    return image


def _read_grey_alpha_png(path: Path) -> np.ndarray:
    """Read 16-bit grey and alpha as four channels of 8 bits, which have the same bytes in the file."""
    data = bytearray(path.read_bytes())
    data[24:26] = 8, 6  # bit depth, colour type: RGBA
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    with Image.open(io.BytesIO(data)) as image:
        height, width = image.size[::-1]
        return np.asarray(image).copy().view(">u2").reshape(height, width, 2).astype(np.uint16)


def _read_ppm(path: Path, image: ImageFile) -> np.ndarray | None:
    """Read P5 and P6 (binary), and P3 (text) as a P2 of three times the width; None for up to 8 bits, and for P2."""
    tile = image.tile[0]
    most = tile.args[1] if isinstance(tile.args, tuple) and tile.codec_name.startswith("ppm") else 0
    if most < 256 or image.mode not in ("I", "RGB"):
        return None
    (width, height), channels = image.size, 3 if image.mode == "RGB" else 1
    with path.open("rb") as file:
        file.seek(tile.offset)
        if tile.codec_name == "ppm":
            values = np.frombuffer(file.read(2 * width * height * channels), ">u2").astype(np.uint32)
            levels = np.minimum((values * 65535 + most // 2) // most, 65535)
        elif channels == 3:
            with Image.open(io.BytesIO(f"P2 {3 * width} {height} {most}\n".encode() + file.read())) as grey:
                levels = np.asarray(grey)
        else:
            return None
    return levels.astype(np.uint16).reshape(height, width, channels)


def _paeth_filtered(pixels: np.ndarray) -> Iterator[bytes]:
    """Return rows as big-endian bytes, minus the Paeth filter's prediction from left, above and above left."""
    height, width, channels = pixels.shape
    stride = 2 * channels
    above = np.zeros((1, stride * (width + 1)), np.int16)
    for top in range(0, height, _ROWS):
        rows = np.ascontiguousarray(pixels[top : top + _ROWS].astype(">u2")).view(np.uint8)
        here = np.pad(rows.reshape(len(rows), -1).astype(np.int16), ((0, 0), (stride, 0)))
        up = np.concatenate([above, here[:-1]])
        above = here[-1:]
        a, b, c = here[:, :-stride], up[:, stride:], up[:, :-stride]
        to_a, to_b, to_c = np.abs(b - c), np.abs(a - c), np.abs(a + b - 2 * c)
        predicted = np.where((to_a <= to_b) & (to_a <= to_c), a, np.where(to_b <= to_c, b, c))
        filtered = (here[:, stride:] - predicted).astype(np.uint8)
        yield np.pad(filtered, ((0, 0), (1, 0)), constant_values=4).tobytes()
