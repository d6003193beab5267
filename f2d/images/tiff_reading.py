"""Read the pixels of TIFF files that Pillow reduces or refuses: 16 and 32 bits, floats, planes, any extra channels.

Pillow reads the tags. Strips and tiles are decompressed one at a time: by zlib, or by libtiff, to which each one is
given as a grey TIFF of its own with 8 bits. Predictors, byte order and channels are then NumPy.
"""

import io
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image
from PIL.ImageFile import _Tile
from PIL.TiffImagePlugin import COMPRESSION_INFO, ImageFileDirectory_v2, TiffImageFile

from f2d.images.formats import NEEDS_DEVELOPING, ImageError
from f2d.images.modes import check_range

_FULL = 65535
_COLOURS = {0: 1, 1: 1, 2: 3, 5: 4}  # photometric interpretation: white is zero, black is zero, RGB, CMYK
_BY_LIBTIFF = {5: "LZW", 32773: "PackBits", 34925: "LZMA", 50000: "ZSTD"}
_DEFLATE = (8, 32946)
_PACKED = (10, 12, 14)  # bits of a sample that are stored without gaps
_ASSOCIATED, _UNASSOCIATED = 1, 2  # of ExtraSamples
_DNG_VERSION, _SUBFILE, _SUBFILES = 50706, 254, 330


class AnyTiff(TiffImageFile):
    """A TIFF whose tags can be read though Pillow may know no mode for its pixels: `decodable` says so."""

    decodable: bool

    def _setup(self) -> None:
        self.decodable = True
        try:
            super()._setup()
            if self.tag_v2.get(262) == 6 and self.info["compression"] == "raw":  # YCbCr, which Pillow leaves to libtiff
                self.use_load_libtiff = True
                size = self.tag_v2[256], self.tag_v2[257]
                self.tile = [_Tile("libtiff", (0, 0, *size), 0, ("RGBX", "raw", False, self.tag_v2.offset))]
        except (SyntaxError, KeyError, AttributeError):
            self.decodable, self._mode, self.tile = False, "L", []
            size = self.tag_v2.get(256, 0), self.tag_v2.get(257, 0)
            self._size = size[::-1] if self.tag_v2.get(274) in (5, 6, 7, 8) else size


class Layout(NamedTuple):
    """The samples of one page: stored size, channels, their type and bits, and how they are compressed."""

    width: int
    height: int
    channels: int
    colours: int
    dtype: np.dtype
    bits: int
    compression: int
    predictor: int
    planar: bool


class Pixels(NamedTuple):
    """Stored rows: levels [H, W, 1, 3 or 4 (CMYK)] uint8 or uint16; alpha [H, W] or None; notes on what was reduced."""

    levels: np.ndarray
    alpha: np.ndarray | None
    notes: tuple[str, ...]


def check_developed(image: AnyTiff) -> None:
    """Raise ImageError for a raw photograph, whose first page is only its thumbnail: a DNG, or sub-files below one."""
    tags = image.tag_v2
    if _DNG_VERSION in tags or (_SUBFILES in tags and tags.get(_SUBFILE, 0) & 1):
        raise ImageError(NEEDS_DEVELOPING)


def check_whole(image: AnyTiff) -> None:
    """Raise ImageError for strips or tiles beyond the end of the file, for which libtiff would print its own line."""
    assert image.fp is not None
    end = image.fp.seek(0, io.SEEK_END)
    for offsets, lengths in ((273, 279), (324, 325)):
        parts = zip(image.tag_v2.get(offsets, ()), image.tag_v2.get(lengths, ()))
        if any(offset + length > end for offset, length in parts):
            raise ImageError("damaged or truncated image (some of its pixels are missing)")


def layout_of(image: AnyTiff) -> Layout | None:
    """Return the layout of the current page if `read_pixels` reads it; None if it is left to Pillow.

    Raises ImageError for a page that neither reads.
    """
    tags = image.tag_v2
    bits = set(tags.get(258, (1,)))
    photometric, compression = tags.get(262, 0), tags.get(259, 1)
    kinds = set(tags.get(339, (1,)))
    simple = len(bits) == len(kinds) == 1 and tags.get(266, 1) == 1 and photometric in _COLOURS
    known = compression == 1 or compression in _DEFLATE or compression in _BY_LIBTIFF
    kind = {1: "u", 3: "f", 4: "u"}.get(min(kinds), "")
    packed = kind == "u" and min(bits) in _PACKED
    name = "u2" if packed else f"{kind}{min(bits) // 8}"
    whole = name in ("u1", "u2", "u4", "f2", "f4", "f8") and not min(bits) % 8
    ours = simple and known and (whole or packed)
    if 2 in kinds and max(bits) != 32:  # Pillow writes 16 bits of grey as 32 with a sign
        raise ImageError("its signed integers have no defined range (convert the file to 8 or 16 bits without a sign)")
    if image.decodable and (not ours or name == "u1"):
        if max(bits) > 12 and not ours and photometric != 1:
            raise ImageError(_unknown(photometric, bits, compression))
        return None
    if not ours:
        raise ImageError(_unknown(photometric, bits, compression))
    colours, channels = _COLOURS[photometric], tags.get(277, 1)
    width, height = tags.get(256, 0), tags.get(257, 0)
    if not (isinstance(channels, int) and colours <= channels <= 16):
        raise ImageError(f"damaged image (it has {channels} channels per pixel, but at least {colours} are colours)")
    planar = tags.get(284, 1) == 2 and channels > 1
    dtype = np.dtype(f"{'<' if tags.prefix == b'II' else '>'}{name}")
    return Layout(width, height, channels, colours, dtype, min(bits), compression, tags.get(317, 1), planar)


def read_pixels(image: AnyTiff, layout: Layout) -> Pixels:
    """Decode the current page. Integers become 8 or 16 bits; floats must lie in [0, 1] and become 16 bits.

    Transparency that is multiplied into the colours (associated alpha) is divided out. Raises ImageError for damage and
    for floats outside [0, 1]. Source: TIFF 6.0; Adobe's Photoshop TIFF notes 3 (predictor of floats).
    """
    tags, colours = image.tag_v2, layout.colours
    extra = tags.get(338, ())
    # Pillow, too, takes a fourth channel without a description for transparency, except with CMYK
    kind = extra[0] if extra else (_UNASSOCIATED if layout.channels > colours != 4 else 0)
    clear = kind in (_ASSOCIATED, _UNASSOCIATED) and layout.channels > colours
    kept = colours + clear
    deep = layout.dtype.itemsize > 1
    levels = np.zeros((layout.height, layout.width, kept), np.uint16 if deep else np.uint8)
    least, most = _decode(image, layout, levels)
    if layout.dtype.kind == "f":
        check_range(least, most)
    full = np.iinfo(levels.dtype).max
    if tags.get(262) == 0:
        levels[..., :colours] = full - levels[..., :colours]
    alpha = levels[..., colours] if clear else None
    if alpha is not None and kind == _ASSOCIATED:
        divisor = np.maximum(alpha, 1)[..., None].astype(np.uint32)
        wide = (levels[..., :colours].astype(np.uint32) * full + divisor // 2) // divisor
        levels[..., :colours] = np.minimum(wide, full)
    return Pixels(levels[..., :colours], alpha, _notes(layout, layout.channels - kept))


def _notes(layout: Layout, extra: int) -> tuple[str, ...]:
    notes = []
    if layout.dtype.kind == "f":
        notes.append(f"{8 * layout.dtype.itemsize}-bit floats became 16 bits")
    elif layout.dtype.itemsize > 2:
        notes.append("32 bits became 16")
    return (*notes, dropped(extra))


def dropped(channels: int) -> str:
    """Return in words that so many channels are neither colours nor transparency."""
    return "" if channels <= 0 else f"{channels} extra channel{'s were' if channels > 1 else ' was'} dropped"


def _decode(image: AnyTiff, layout: Layout, out: np.ndarray) -> tuple[float, float]:
    """Fill `out`; return the least and largest stored value, NaN if there is one."""
    least, most = np.inf, -np.inf
    for plane, top, left, part in _parts(image, layout):
        part = part[: layout.height - top, : layout.width - left]
        channels = slice(plane, plane + 1) if layout.planar else slice(out.shape[2])
        if layout.planar and plane >= out.shape[2]:
            continue
        part = part[..., : out.shape[2]]
        if layout.dtype.kind == "f":
            least, most = np.minimum(least, part.min()), np.maximum(most, part.max())
            part = (np.clip(np.nan_to_num(part.astype(np.float64)), 0, 1) * _FULL).round()
        elif layout.dtype.itemsize == 4:
            part = (part.astype(np.float64) / 65537).round()  # 2³² - 1 = 65535 · 65537
        out[top : top + part.shape[0], left : left + part.shape[1], channels] = part
    return float(least), float(most)


def _parts(image: AnyTiff, layout: Layout) -> Iterator[tuple[int, int, int, np.ndarray]]:
    """Yield (plane, top, left, pixels [h, w, channels]) of every strip or tile; raise ImageError if one is missing."""
    tags, file = image.tag_v2, image.fp
    assert file is not None
    tiled = 324 in tags
    offsets, lengths = (tags.get(tag, ()) for tag in ((324, 325) if tiled else (273, 279)))
    width = tags.get(322, 0) if tiled else layout.width
    rows = tags.get(323, 0) if tiled else min(tags.get(278, layout.height), layout.height)
    across = 1 if layout.planar else layout.channels
    row_bytes = -(-width * across * layout.bits // 8)  # a packed row ends with a whole byte
    most = max(1 << 26, 128 * layout.height * layout.width)  # a tile may be larger than its picture, but not by much
    if not (min(width, rows) > 0 and row_bytes * rows <= most):
        raise ImageError(f"damaged image (its parts have {width}x{rows} pixels)")
    columns, down = -(-layout.width // width), -(-layout.height // rows)
    if not lengths and len(offsets) == 1:  # TIFF 5 allows that for uncompressed data
        lengths = (row_bytes * rows,)
    planes = layout.channels if layout.planar else 1
    if min(len(offsets), len(lengths)) < columns * down * planes:
        raise ImageError("damaged or truncated image (some of its pixels are missing)")
    for i in range(columns * down * planes):
        plane, place = divmod(i, columns * down)
        top, left = place // columns * rows, place % columns * width
        here = rows if tiled else min(rows, layout.height - top)
        file.seek(offsets[i])
        data = _unpacked(layout.compression, file.read(lengths[i]), row_bytes, here)
        if len(data) < row_bytes * here:
            raise ImageError("damaged or truncated image (some of its pixels are missing)")
        yield plane, top, left, _samples(data[: row_bytes * here], layout, here, width, across)


def _unpacked(compression: int, data: bytes, row_bytes: int, rows: int) -> bytes:
    if compression == 1:
        return data
    if compression in _DEFLATE:
        try:
            return zlib.decompressobj().decompress(data, row_bytes * rows)
        except zlib.error as error:
            raise ImageError(f"damaged or truncated image ({error})") from None
    directory = ImageFileDirectory_v2(prefix=b"II")
    values = {256: row_bytes, 257: rows, 258: 8, 259: compression, 262: 1, 273: 0, 277: 1, 278: rows, 279: len(data)}
    for tag, value in values.items():
        directory.tagtype[tag] = 3 if tag in (258, 259, 262, 277) else 4
        directory[tag] = value
    file = io.BytesIO()
    directory.save(file)
    with Image.open(io.BytesIO(file.getvalue() + data), formats=["TIFF"]) as part:
        return part.tobytes()


def _samples(data: bytes, layout: Layout, rows: int, width: int, channels: int) -> np.ndarray:
    """Return [rows, width, channels] in native byte order, with the predictor undone."""
    size, native = layout.dtype.itemsize, layout.dtype.newbyteorder("=")
    if layout.bits in _PACKED:
        return _unpacked_samples(data, layout, rows, width * channels).reshape(rows, width, channels)
    if layout.predictor == 3:  # differences of bytes; a row holds the highest bytes of all values, then the next ones
        stored = np.frombuffer(data, np.uint8).reshape(rows, -1, channels)
        planes = np.cumsum(stored, axis=1, dtype=np.uint8).reshape(rows, size, width * channels)
        values = np.ascontiguousarray(planes.transpose(0, 2, 1)).view(layout.dtype.newbyteorder(">"))
        return values.reshape(rows, width, channels).astype(native)
    values = np.frombuffer(data, layout.dtype).astype(native, copy=False).reshape(rows, width, channels)
    if layout.predictor == 2:
        whole = values.view(f"u{size}")
        return np.cumsum(whole, axis=1, dtype=whole.dtype).view(native)
    if layout.predictor != 1:
        raise ImageError(f"its predictor {layout.predictor} is unknown")
    return values


def _unpacked_samples(data: bytes, layout: Layout, rows: int, count: int) -> np.ndarray:
    """Return [rows, count] uint16, in the whole range, of samples without gaps, whose highest bit comes first."""
    if layout.predictor != 1:
        raise ImageError(f"its predictor {layout.predictor} is unknown for {layout.bits} bits")
    bits = np.unpackbits(np.frombuffer(data, np.uint8).reshape(rows, -1), axis=1, count=count * layout.bits)
    places = 1 << np.arange(layout.bits - 1, -1, -1, dtype=np.uint32)
    values = bits.reshape(rows, count, layout.bits) @ places
    return ((values * _FULL + (places.sum() >> 1)) // places.sum()).astype(np.uint16)


def _unknown(photometric: int, bits: set[int], compression: int) -> str:
    name = COMPRESSION_INFO.get(compression, compression)
    depth = " and ".join(map(str, sorted(bits)))
    return f"this kind of TIFF cannot be read ({depth} bits, photometric {photometric}, compression {name})"
