"""Read from a file's first bytes what Pillow does not tell: its kind, depth, canvas and colour space."""

import struct
from typing import BinaryIO, NamedTuple

from PIL.TiffImagePlugin import PREFIXES

from f2d.images.formats import NEEDS_DEVELOPING, ImageError

_START = 1 << 16  # bytes in which these marks lie: before the pixels
_HEIC = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"mif2", b"msf1"}


class Header(NamedTuple):
    """kind: Pillow's name for TIFF and HEIF, "" for formats that Pillow recognises. bits: stored bits per channel, 0 if
    Pillow keeps them. colours: (primaries, transfer) by ITU-T H.273, None if they are not given. canvas: (width,
    height) of a WebP, which libwebp allocates twice when the file is opened."""

    kind: str = ""
    bits: int = 0
    colours: tuple[int, int] | None = None
    canvas: tuple[int, int] | None = None


def header_of(file: BinaryIO) -> Header:
    """Read the first bytes of `file`; raise ImageError for a kind that no decoder here knows.

    Sources: RFC 9649 (WebP), ISO/IEC 14496-12 and 23008-12 (boxes of AVIF and HEIC), ISO/IEC 15444-1 A.5.1 (JPEG 2000).
    """
    start = file.read(_START)
    if start[:4] == b"MM\0\x2b":  # whose directory Pillow takes for a classic one
        raise ImageError("a BigTIFF in big-endian byte order is not supported (convert it to little-endian)")
    if start[:2] == b"\xff\xd8":
        _check_jpeg(start)
    if start[:2] == b"PF" and start[2:3].isspace():
        raise ImageError("a PFM in colour is not supported (convert it to a TIFF)")
    if start[:4] in PREFIXES and start[8:10] == b"CR":  # a Canon CR2, whose first page is a preview
        raise ImageError(NEEDS_DEVELOPING)
    if start[:4] in PREFIXES:
        return Header("TIFF")
    if start[4:8] == b"ftyp":
        length = int.from_bytes(start[:4], "big")
        brands = {start[i : i + 4] for i in (8, *range(16, min(length, 256), 4))}
        if brands & _HEIC and not brands & {b"avif", b"avis"}:
            return Header("HEIF")
        return Header("", _avif_bits(start), _nclx(start))
    if start[:4] == b"RIFF" and start[8:16] == b"WEBPVP8X" and len(start) >= 30:
        width, height = (1 + int.from_bytes(start[i : i + 3], "little") for i in (24, 27))
        return Header(canvas=(width, height))
    if start[:4] == b"\xff\x4f\xff\x51" or start[4:8] == b"jP  ":
        depth = start.find(b"\xff\x4f\xff\x51") + 42  # of the first component
        return Header("", (start[depth] & 127) + 1 if 42 <= depth < len(start) else 0)
    return Header()


def _check_jpeg(start: bytes) -> None:
    """Raise ImageError for more than 8 bits, which the first frame header tells: ITU-T T.81, B.2.2."""
    at = 2
    while start[at : at + 1] == b"\xff" and at + 5 <= len(start):
        marker, length, bits = start[at + 1], int.from_bytes(start[at + 2 : at + 4], "big"), start[at + 4]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if bits != 8:
                raise ImageError(f"a JPEG with {bits} bits per channel is not supported (convert it to a 16-bit TIFF)")
            return
        at += 1 if marker == 0xFF else 2 + length  # any number of fill bytes


def _avif_bits(start: bytes) -> int:
    """Return the depth from the first av1C box: bit 6 says 10 or 12, bit 5 says 12."""
    at = start.find(b"av1C") + 6
    return 0 if not 6 <= at < len(start) else {0: 8, 64: 10, 96: 12}.get(start[at] & 96, 8)


def _nclx(start: bytes) -> tuple[int, int] | None:
    at = start.find(b"colrnclx") + 8
    if not 8 <= at <= len(start) - 4:
        return None
    primaries, transfer = struct.unpack(">HH", start[at : at + 4])
    return primaries, transfer
