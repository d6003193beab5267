"""Metadata that Pillow leaves in a JPEG 2000 or BMP is carried to what is written."""

import struct

import pytest
from PIL import Image, features

from f2d.images import read, upright_size, write
from tests.images.test_colours import PROFILE, RGB

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/">kept</x:xmpmeta>'
XMP_UUID = bytes.fromhex("BE7ACFCB97A942E89C71999491E3AFAC")


def exif(orientation: int) -> bytes:
    block = Image.Exif()
    block[271], block[274] = "Camera", orientation
    return block.tobytes()[6:]  # a TIFF header, without what precedes it in a JPEG


def box(kind: bytes, data: bytes, *, long: bool = False) -> bytes:
    length = struct.pack(">I4sQ", 1, kind, 16 + len(data)) if long else struct.pack(">I4s", 8 + len(data), kind)
    return length + data


def jp2(path, *boxes: bytes, profile: bytes = b"") -> None:
    if not features.check("jpg_2000"):
        pytest.skip("this Pillow writes no JPEG 2000")
    Image.fromarray(RGB).save(path)
    data = path.read_bytes()
    header = data.index(b"jp2h") - 4
    end = header + int.from_bytes(data[header : header + 4], "big")
    inside = data[header + 8 : end]
    colour = inside.index(b"colr") - 4
    if profile:
        inside = inside[:colour] + box(b"colr", b"\2\0\0" + profile)
    path.write_bytes(data[:header] + box(b"jp2h", inside) + b"".join(boxes) + data[end:])


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_a_jpeg_2000(tmp_path, suffix):
    boxes = (
        box(b"uuid", b"JpgTiffExif->JP2" + exif(6)),
        box(b"uuid", XMP_UUID + XMP, long=True),
        box(b"uuid", b"something else.." + bytes(50)),
    )
    jp2(tmp_path / "a.jp2", *boxes, profile=PROFILE)
    photo = read(tmp_path / "a.jp2")
    assert photo.size == upright_size(tmp_path / "a.jp2") == RGB.shape[:2]  # turned
    write(photo, tmp_path / f"b{suffix}")
    kept = read(tmp_path / f"b{suffix}").metadata
    assert kept.icc == PROFILE and kept.xmp == XMP
    with Image.open(tmp_path / f"b{suffix}") as image:
        assert image.getexif()[271] == "Camera" and image.getexif()[274] == 1


def test_a_bare_codestream_and_damaged_boxes(tmp_path):
    jp2(tmp_path / "a.jp2", box(b"uuid", XMP_UUID + XMP))
    data = (tmp_path / "a.jp2").read_bytes()
    (tmp_path / "b.j2k").write_bytes(data[data.index(b"\xff\x4f\xff\x51") :])
    assert read(tmp_path / "b.j2k").size == RGB.shape[1::-1] and read(tmp_path / "b.j2k").metadata.xmp == b""
    jp2(tmp_path / "c.jp2", box(b"uuid", b"JpgTiffExif->JP2" + b"no EXIF at all"))
    photo = read(tmp_path / "c.jp2")
    assert photo.metadata.exif == b"" and "damaged EXIF data was dropped" in photo.notes[0]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_the_profile_of_a_bmp(tmp_path, suffix):
    Image.fromarray(RGB).save(tmp_path / "plain.bmp")
    data = (tmp_path / "plain.bmp").read_bytes()
    pixels = data[54:]
    header = struct.pack("<I", 124) + data[18:54] + bytes(16) + b"DEBM" + bytes(48)  # masks, colour space, endpoints
    header += struct.pack("<IIII", 0, 124 + len(pixels), len(PROFILE), 0)
    start = struct.pack("<2sIHHI", b"BM", 14 + 124 + len(pixels) + len(PROFILE), 0, 0, 14 + 124)
    (tmp_path / "a.bmp").write_bytes(start + header + pixels + PROFILE)
    photo = read(tmp_path / "a.bmp")
    assert (photo.levels == RGB).all() and photo.metadata.icc == PROFILE
    write(photo, tmp_path / f"b{suffix}")
    assert read(tmp_path / f"b{suffix}").metadata.icc == PROFILE
    assert read(tmp_path / "plain.bmp").metadata.icc == b""
