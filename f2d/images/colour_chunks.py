"""Read a PNG's colour chunks besides an ICC profile: another PNG keeps them, other formats get a profile.

Precedence: cICP, iCCP, sRGB, then gAMA with cHRM (PNG specification, third edition, 13.13).
"""

import struct
import zlib
from collections.abc import Mapping
from typing import BinaryIO

from f2d.images import icc

KEPT = (b"cICP", b"sRGB", b"gAMA", b"cHRM", b"mDCV", b"cLLI", b"mDCv", b"cLLi")
_LARGEST = 1 << 10  # bytes; these chunks have at most 32


def read_chunks(file: BinaryIO) -> dict[bytes, bytes]:
    """Return the colour chunks of a PNG: all of them come before the pixels."""
    file.seek(8)
    found: dict[bytes, bytes] = {}
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind in (b"IDAT", b"IEND"):
            break
        if kind in KEPT and length <= _LARGEST:
            found.setdefault(kind, file.read(length))
            file.seek(4, 1)
        else:
            file.seek(length + 4, 1)
    return found


def with_chunks(png: bytes, chunks: Mapping[bytes, bytes]) -> bytes:
    """Insert `chunks` into a PNG after its header, where they must lie."""
    inserted = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks.items()
    )
    return png[:33] + inserted + png[33:] if inserted else png


def profile_of(chunks: Mapping[bytes, bytes], embedded: bytes, grey: bool) -> tuple[bytes, str]:
    """Return the ICC profile of the pixels (b"" for sRGB), and a note on what is damaged ("" for nothing)."""
    if embedded or not chunks:
        return embedded, ""
    try:
        if b"cICP" in chunks:
            primaries, transfer, *_ = struct.unpack("4B", chunks[b"cICP"])
            space = icc.from_code_points(primaries, transfer)
            return b"" if space is None else _profile(space, grey), ""
        return b"" if b"sRGB" in chunks else _profile(_from_numbers(chunks), grey), ""
    except (ValueError, struct.error, ZeroDivisionError):
        return b"", "a damaged description of its colours was ignored"


def undescribed(chunks: Mapping[bytes, bytes]) -> str:
    """Return the name of a transfer function for which there is no ICC profile, "" for others."""
    code = chunks.get(b"cICP", b"")
    return icc.HDR.get(code[1], "") if len(code) == 4 else ""


def _from_numbers(chunks: Mapping[bytes, bytes]) -> icc.Space:
    primaries, curve = icc.SRGB
    if b"cHRM" in chunks:
        white, red, green, blue = ((x / 1e5, y / 1e5) for x, y in struct.iter_unpack(">II", chunks[b"cHRM"]))
        primaries = (red, green, blue, white)
    if b"gAMA" in chunks:
        (gamma,) = struct.unpack(">I", chunks[b"gAMA"])
        # 1 / 2.2 is how sRGB is written: browsers take both for the same
        curve = icc.SRGB.curve if abs(gamma - 45455) < 10 else (1e5 / gamma,)
        if not 0.1 <= 1e5 / gamma <= 10:
            raise ValueError("its gamma is damaged")
    return icc.Space(primaries, curve)


def _profile(space: icc.Space, grey: bool) -> bytes:
    same = space.curve == icc.SRGB.curve and all(
        abs(a - b) < 2e-3 for one, two in zip(space.primaries, icc.BT709) for a, b in zip(one, two)
    )
    return b"" if same else icc.profile(space, grey)
