"""Metadata that Pillow leaves in the file: ICC profile, EXIF and XMP of a JPEG 2000, ICC profile of a BMP.

Sources: ISO/IEC 15444-1, annex I (boxes); XMP specification, part 3, 1.2.2; BITMAPV5HEADER of Windows.
"""

import io
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_IN_UUID = {
    b"JpgTiffExif->JP2": "exif",
    bytes.fromhex("be7acfcb97a942e89c71999491e3afac"): "xmp",
}
_LARGEST = 1 << 24  # bytes of a box


def metadata_of(path: Path, format: str | None) -> dict[str, bytes]:
    """Return icc_profile, exif and xmp under Pillow's names, as far as the file has them."""
    if format not in ("JPEG2000", "BMP"):
        return {}
    with path.open("rb") as file:
        return dict(_in_boxes(file)) if format == "JPEG2000" else _of_bmp(file)


def _in_boxes(file: BinaryIO) -> Iterator[tuple[str, bytes]]:
    """Yield what the boxes of a JP2 hold; nothing for a bare codestream, whose first marker is no box."""
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        size = int.from_bytes(file.read(8), "big") - 16 if length == 1 else length - 8
        if size < 0 or head[:2] == b"\xff\x4f":  # the last box has the length 0
            return
        end = file.tell() + size
        if size <= _LARGEST and kind in (b"jp2h", b"colr", b"uuid"):
            data = file.read(size)
            name = _IN_UUID.get(data[:16]) if kind == b"uuid" else None
            if kind == b"jp2h":
                yield from _in_boxes(io.BytesIO(data))
            elif kind == b"colr" and data[:1] == b"\2":  # a restricted ICC profile
                yield "icc_profile", data[3:]
            elif name:
                yield name, data[16:]
        file.seek(end)


def _of_bmp(file: BinaryIO) -> dict[str, bytes]:
    head = file.read(138)
    if head[14:18] != struct.pack("<I", 124) or head[70:74] != b"DEBM":  # PROFILE_EMBEDDED, "MBED" as a number
        return {}
    offset, length = struct.unpack("<II", head[126:134])
    file.seek(14 + offset)
    return {"icc_profile": file.read(min(length, _LARGEST))}
