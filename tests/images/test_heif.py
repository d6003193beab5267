"""HEIC and AVIF as phones write them: turned once, in the colours that the file describes by numbers."""

import struct

import numpy as np
import pytest
from PIL import Image, ImageOps, features

from f2d.images import heif, read, upright_size, write
from tests.images.test_colours import P3_TO_SRGB, chunks_of, encoded, linear, seen

pillow_heif = pytest.importorskip("pillow_heif")

CORNERS = np.array([[[200, 30, 30], [30, 200, 30]], [[30, 30, 200], [200, 200, 30]]], np.uint8)
QUARTERS = np.kron(CORNERS, np.ones((24, 32, 1), np.uint8))  # 48 rows, 64 columns


def exif(orientation: int) -> bytes:
    block = Image.Exif()
    block[274], block[271] = orientation, "Camera"
    return block.tobytes()


def written(path, orientation: int, bits: int = 8) -> None:
    """A file whose boxes turn it, and whose EXIF says the same, as phones write them."""
    if path.suffix == ".avif":
        if not features.check("avif"):
            pytest.skip("this Pillow writes no AVIF")
        Image.fromarray(QUARTERS).save(path, exif=exif(orientation), quality=90)
        return
    pixels = QUARTERS if bits == 8 else QUARTERS.astype(np.uint16) * 257
    file = pillow_heif.from_bytes("RGB" if bits == 8 else "RGB;16", (64, 48), pixels.tobytes())
    file.save(path, exif=exif(orientation), quality=90)


def assert_turned(path, orientation: int) -> None:
    """The picture that ImageOps makes of a stored one with this orientation."""
    stored = Image.fromarray(QUARTERS)
    stored.getexif()[274] = orientation
    expected = np.asarray(ImageOps.exif_transpose(stored)).astype(float)
    photo = read(path)
    given = photo.levels / (257 if photo.depth == 16 else 1)
    assert given.shape == expected.shape and np.median(np.abs(given - expected)) < 8
    assert upright_size(path) == photo.size
    kept = Image.Exif()
    kept.load(photo.metadata.exif)
    assert kept[271] == "Camera" and kept.get(274, 1) == 1


@pytest.mark.parametrize("kind", ["a.heic", "a.avif", "deep.heic"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_boxes_turn_a_picture_once(tmp_path, kind, orientation):
    path = tmp_path / kind
    written(path, orientation, 10 if kind == "deep.heic" else 8)
    assert_turned(path, orientation)
    write(read(path), tmp_path / "b.jpg")
    assert np.median(np.abs(read(tmp_path / "b.jpg").levels - (read(path).as_depth(8).levels.astype(float)))) < 8


@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("boxes, said", [(1, 6), (6, 1), (6, 8)])
def test_exif_that_says_otherwise_does_not_turn_it(tmp_path, boxes, said, bits):
    written(tmp_path / "a.heic", boxes, bits)  # ISO/IEC 23008-12, A.2.1: only the boxes count
    data = (tmp_path / "a.heic").read_bytes()
    assert data.count(exif(boxes)[6:]) == 1
    (tmp_path / "a.heic").write_bytes(data.replace(exif(boxes)[6:], exif(said)[6:]))
    assert_turned(tmp_path / "a.heic", boxes)


@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
@pytest.mark.parametrize("transfer", [13, 2])  # sRGB's, unspecified
def test_colours_by_number(tmp_path, suffix, bits, transfer):
    """Display P3, as phones photograph, without an ICC profile."""
    colour = np.full((48, 64, 3), (200, 100, 50), np.uint8)
    pixels = colour if bits == 8 else colour.astype(np.uint16) * 257
    file = pillow_heif.from_bytes("RGB" if bits == 8 else "RGB;16", (64, 48), pixels.tobytes())
    numbers = {
        "color_primaries": 12,
        "transfer_characteristics": transfer,
        "matrix_coefficients": 6,
        "full_range_flag": 1,
    }
    file.save(tmp_path / "a.heic", quality=-1, **numbers)
    photo = read(tmp_path / "a.heic")
    write(photo.as_depth(8), tmp_path / f"b{suffix}")
    if suffix == ".png":
        assert chunks_of((tmp_path / "b.png").read_bytes())[b"cICP"] == struct.pack("4B", 12, 13, 0, 1)
        return
    meant = encoded(linear(colour / 255.0) @ P3_TO_SRGB.T)
    assert np.abs(seen(tmp_path / f"b{suffix}") - meant).mean() * 255 < 3


def test_gain_maps_and_depth_count_as_further_pictures(tmp_path):
    pillow_heif.from_pillow(Image.fromarray(QUARTERS).convert("RGBA")).save(tmp_path / "a.heic")
    image = heif.opened(tmp_path / "a.heic")
    assert heif.further(image) == 0 and read(tmp_path / "a.heic").notes == ()  # alpha is none
    image.info |= {"aux": {"urn:com:apple:photo:2020:aux:hdrgainmap": [7], "matte": [8, 9]}, "depth_images": [None]}
    assert heif.further(image) == 4


def test_unspecified_colours_are_none(tmp_path):
    numbers = {"color_primaries": 2, "transfer_characteristics": 2, "matrix_coefficients": 6, "full_range_flag": 1}
    pillow_heif.from_pillow(Image.fromarray(QUARTERS)).save(tmp_path / "a.heic", **numbers)
    write(read(tmp_path / "a.heic"), tmp_path / "b.png")
    assert b"cICP" not in chunks_of((tmp_path / "b.png").read_bytes())
