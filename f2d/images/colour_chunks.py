"""Read a PNG's colour chunks besides an ICC profile: another PNG keeps them, other formats get a profile.

Precedence: cICP, iCCP, sRGB, then gAMA with cHRM (PNG specification, third edition, 13.13).
"""

import io
import struct
from collections.abc import Iterator, Mapping
from typing import BinaryIO

from PIL.PngImagePlugin import putchunk

from f2d.images import icc

KEPT = (b"cICP", b"sRGB", b"gAMA", b"cHRM", b"mDCV", b"cLLI", b"mDCv", b"cLLi")
_METADATA = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")
_LARGEST = 1 << 10  # bytes; these chunks have at most 32


def read_chunks(file: BinaryIO) -> dict[bytes, bytes]:
    """Return the colour chunks of a PNG: all of them come before the pixels."""
    found: dict[bytes, bytes] = {}
    for kind, length in chunks_of(file):
        if kind == b"IDAT":
            break
        if kind in KEPT and length <= _LARGEST:
            found.setdefault(kind, file.read(length))
    return found


def described_after_pixels(file: BinaryIO) -> bool:
    """Return whether EXIF or text, which can hold it, comes after the pixels of a PNG."""
    pixels = False
    for kind, _ in chunks_of(file):
        pixels = pixels or kind == b"IDAT"
        if pixels and kind in _METADATA:
            return True
    return False


def with_chunks(png: bytes, chunks: Mapping[bytes, bytes]) -> bytes:
    """Insert `chunks` into a PNG after its header, where they must lie."""
    inserted = io.BytesIO()
    for kind, data in chunks.items():
        putchunk(inserted, kind, data)
    return png[:33] + inserted.getvalue() + png[33:] if chunks else png


def profile_of(chunks: Mapping[bytes, bytes], embedded: bytes, grey: bool) -> tuple[bytes, str]:
    """Return the ICC profile of the pixels (b"" for sRGB), and a note on what is damaged ("" for nothing)."""
    if embedded or not chunks:
        return embedded, ""
    try:
        if b"cICP" in chunks:
            primaries, transfer, *_ = struct.unpack("4B", chunks[b"cICP"])
            space = icc.from_code_points(primaries, transfer)
            return b"" if space is None else icc.profile_unless_srgb(space, grey), ""
        return b"" if b"sRGB" in chunks else icc.profile_unless_srgb(_from_numbers(chunks), grey), ""
    except (ValueError, struct.error, ZeroDivisionError):
        return b"", "a damaged description of its colours was ignored"


def undescribed(chunks: Mapping[bytes, bytes]) -> str:
    """Return the name of a transfer function for which there is no ICC profile, "" for others."""
    code = chunks.get(b"cICP", b"")
    return icc.HDR.get(code[1], "") if len(code) == 4 else ""


def chunks_of(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Yield (kind, length) of every chunk, with the file at its data."""
    file.seek(8)
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        end = file.tell() + length + 4
        yield kind, length
        file.seek(end)


def _from_numbers(chunks: Mapping[bytes, bytes]) -> icc.Space:
    primaries: tuple = icc.BT709
    curve: tuple[float, ...] = icc.SRGB_CURVE
    if b"cHRM" in chunks:
        white, red, green, blue = ((x / 1e5, y / 1e5) for x, y in struct.iter_unpack(">II", chunks[b"cHRM"]))
        primaries = (red, green, blue, white)
    if b"gAMA" in chunks:
        (gamma,) = struct.unpack(">I", chunks[b"gAMA"])
        # 1 / 2.2 is how sRGB is written: browsers take both for the same
        curve = icc.SRGB_CURVE if abs(gamma - 45455) < 10 else (1e5 / gamma,)
        if not 0.1 <= 1e5 / gamma <= 10:
            raise ValueError("its gamma is damaged")
    return icc.Space(primaries, curve)
