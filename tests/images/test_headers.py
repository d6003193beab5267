"""What is read from a header without decoding agrees with the picture that is then read."""

import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image, features

from f2d.images import ImageError, read, stored, upright_size, write
from f2d.images.formats import TooManyPixelsError
from tests.images.png_reference import chunk

FORMATS = {".jpg": "JPEG", ".png": "PNG", ".tif": "TIFF", ".webp": "WEBP", ".avif": "AVIF", ".jp2": "JPEG2000"}


def turned(path, orientation: int, size: tuple[int, int] = (30, 20)) -> None:
    if path.suffix == ".avif" and not features.check("avif"):
        pytest.skip("this Pillow writes no AVIF")
    exif = Image.Exif()
    exif[274] = orientation
    Image.new("RGB", size).save(path, **({} if path.suffix == ".jp2" else {"exif": exif}))


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_sizes_are_those_of_the_upright_picture(tmp_path, monkeypatch, suffix, orientation):
    path = tmp_path / f"a{suffix}"
    turned(path, orientation)
    assert stored(path).format == FORMATS[suffix]
    with monkeypatch.context() as patch:
        patch.setattr("PIL.ImageFile.ImageFile.load", lambda *_: pytest.fail("the picture was decoded"))
        size = upright_size(path)
    assert size == read(path).size


@pytest.mark.parametrize("dtype", ["u2", "u4", "f4"])
def test_sizes_of_tiffs_that_pillow_does_not_open(tmp_path, dtype):
    tag = (274, 3, 1, 6, True)
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((20, 30, 3), dtype), photometric="rgb", extratags=[tag])
    assert upright_size(tmp_path / "a.tif") == read(tmp_path / "a.tif").size == (20, 30)


@pytest.mark.parametrize("orientation", [1, 6])
def test_orientation_after_the_pixels_of_a_png(tmp_path, orientation):
    turned(tmp_path / "a.png", orientation)
    data = (tmp_path / "a.png").read_bytes()
    start = data.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(data[start : start + 4], "big")
    moved = data[:start] + data[end:-12] + data[start:end] + data[-12:]
    (tmp_path / "b.png").write_bytes(moved)
    expected = (30, 20) if orientation == 1 else (20, 30)
    assert upright_size(tmp_path / "b.png") == read(tmp_path / "b.png").size == expected


def test_no_header_is_an_error_of_one_line(tmp_path):
    (tmp_path / "a.png").write_bytes(b"nothing")
    for ask in (stored, upright_size):
        with pytest.raises(ImageError, match=r"a\.png: is not a readable image"):
            ask(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", [".webp", ".png"])
def test_too_many_pixels_are_an_error_of_their_own(tmp_path, monkeypatch, suffix):
    image = Image.new("RGBA", (300, 200), (1, 2, 3, 4))
    image.save(tmp_path / f"a{suffix}")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20_000)
    for ask in (stored, upright_size, read):
        with pytest.raises(TooManyPixelsError, match=rf"a{suffix}: .*exceeds limit of 40000"):
            ask(tmp_path / f"a{suffix}")


def test_other_pfms_say_what_they_are(tmp_path):
    values = np.random.default_rng(0).random((4, 6)).astype("<f4")
    (tmp_path / "a.pfm").write_bytes(b"Pf\n6 4\n-1.0\n" + values[::-1].tobytes())
    assert np.array_equal(read(tmp_path / "a.pfm").levels[..., 0], (values.astype(float) * 65535).round())
    (tmp_path / "b.pfm").write_bytes(b"PF\n2 1\n-1.0\n" + bytes(24))
    with pytest.raises(ImageError, match=r"b\.pfm: a PFM in colour is not supported"):
        read(tmp_path / "b.pfm")


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_the_transparent_grey_of_a_png_of_few_bits(tmp_path, bits):
    values = np.random.default_rng(0).integers(0, 2**bits, (16, 16))
    data = (values[..., None] >> np.arange(bits - 1, -1, -1) & 1).astype(np.uint8).reshape(16, -1)
    rows = b"".join(b"\0" + np.packbits(row).tobytes() for row in data)
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", 16, 16, bits, 0, 0, 0, 0)),
        (b"tRNS", b"\0\1"),
        (b"IDAT", zlib.compress(rows)),
    )
    (tmp_path / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts) + chunk(b"IEND", b"")
    )
    photo = read(tmp_path / "a.png")
    assert np.array_equal(photo.levels[..., 0], values * 255 // (2**bits - 1))
    assert np.array_equal(photo.alpha, np.where(values == 1, 0, 255))
    write(photo, tmp_path / "b.png")
    assert np.array_equal(read(tmp_path / "b.png").alpha, photo.alpha)
