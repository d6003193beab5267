"""Colours stay the same colours: the colour chunks of a PNG and nclx of an AVIF, in every format that is written."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from f2d.images import Photo, read, write
from tests.cli.conftest import smooth_pixels
from tests.images import png_reference

RGB = smooth_pixels(20, 30)
SRGB = ImageCms.createProfile("sRGB")
PROFILE = ImageCms.ImageCmsProfile(SRGB).tobytes()
# CSS Color 4, 17: linear Display P3 to linear sRGB
P3_TO_SRGB = np.array([[1.2249402, -0.2249402, 0.0], [-0.0420570, 1.0420570, 0.0], [-0.0196376, -0.0786361, 1.0982736]])
P3 = struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)
GAMMA = {gamma: struct.pack(">I", round(1e5 / gamma)) for gamma in (1.0, 1.8, 2.2)}


def linear(values: np.ndarray) -> np.ndarray:
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def encoded(values: np.ndarray) -> np.ndarray:
    values = values.clip(0, 1)
    return np.where(values <= 0.0031308, 12.92 * values, 1.055 * values ** (1 / 2.4) - 0.055)


# chunks -> the sRGB values that the pixels of RGB mean, from the definitions, in float64
UNIT = RGB / 255.0
MEANT = {
    "linear": ({b"gAMA": GAMMA[1.0]}, encoded(UNIT)),
    "gamma 1.8": ({b"gAMA": GAMMA[1.8]}, encoded(UNIT**1.8)),
    "P3 by numbers": ({b"cHRM": P3, b"gAMA": GAMMA[2.2]}, encoded(linear(UNIT) @ P3_TO_SRGB.T)),
    "P3 by code": ({b"cICP": bytes([12, 13, 0, 1])}, encoded(linear(UNIT) @ P3_TO_SRGB.T)),
    "code before numbers": (
        {b"cICP": bytes([12, 13, 0, 1]), b"gAMA": GAMMA[1.0]},
        encoded(linear(UNIT) @ P3_TO_SRGB.T),
    ),
    "sRGB before numbers": ({b"sRGB": b"\0", b"gAMA": GAMMA[1.0]}, UNIT),
    "sRGB by numbers": ({b"gAMA": GAMMA[2.2]}, UNIT),
    "nothing": ({}, UNIT),
}


def png_with(path, chunks: dict[bytes, bytes], depth: int = 8, pixels: np.ndarray = RGB) -> None:
    extra = b"".join(png_reference.chunk(kind, data) for kind, data in chunks.items())
    if depth == 16:
        path.write_bytes(png_reference.write(pixels.astype(np.uint16) * 257, extra=extra))
        return
    file = io.BytesIO()
    Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0]).save(file, "PNG")
    path.write_bytes(file.getvalue()[:33] + extra + file.getvalue()[33:])


def chunks_of(data: bytes) -> dict[bytes, bytes]:
    found, position = {}, 8
    while position < len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        found[data[position + 4 : position + 8]] = data[position + 8 : position + 8 + length]
        position += 12 + length
    return found


def seen(path) -> np.ndarray:
    """The sRGB values in [0, 1] that a viewer with colour management shows."""
    with Image.open(path) as image:
        profile = image.info.get("icc_profile")
        if profile:
            image = ImageCms.profileToProfile(image, io.BytesIO(profile), SRGB, outputMode="RGB")
        return np.asarray(image.convert("RGB")) / 255.0


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("suffix", [".tif", ".webp", ".jpg"])
@pytest.mark.parametrize("case", MEANT)
def test_other_formats_mean_the_same_colours(tmp_path, case, suffix, depth):
    chunks, meant = MEANT[case]
    png_with(tmp_path / "a.png", chunks, depth)
    photo = read(tmp_path / "a.png").as_depth(8)
    write(photo, tmp_path / f"b{suffix}")
    difference = np.abs(seen(tmp_path / f"b{suffix}") - meant) * 255
    assert difference.max() <= 2 if suffix == ".tif" else difference.mean() < 3


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("case", MEANT)
def test_a_png_keeps_its_chunks(tmp_path, case, depth):
    chunks, _ = MEANT[case]
    png_with(tmp_path / "a.png", chunks, depth)
    write(read(tmp_path / "a.png"), tmp_path / "b.png")
    found = chunks_of((tmp_path / "b.png").read_bytes())
    kinds = {b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM"}
    assert {kind: data for kind, data in found.items() if kind in kinds} == chunks
    order = list(found)
    assert all(order.index(kind) < order.index(b"IDAT") for kind in chunks)


def test_an_embedded_profile_comes_first(tmp_path):
    png_with(tmp_path / "a.png", {b"iCCP": b"x\0\0" + zlib.compress(PROFILE), b"gAMA": GAMMA[1.0], b"cHRM": P3})
    photo = read(tmp_path / "a.png")
    assert photo.metadata.icc == PROFILE
    write(photo, tmp_path / "b.png")
    found = chunks_of((tmp_path / "b.png").read_bytes())
    assert {b"iCCP", b"gAMA", b"cHRM"} < set(found)


@pytest.mark.parametrize("transfer, name", [(16, "PQ"), (18, "HLG")])
def test_colours_beyond_white_are_kept_in_a_png_and_named_elsewhere(tmp_path, transfer, name):
    code = bytes([9, transfer, 0, 1])
    png_with(tmp_path / "a.png", {b"cICP": code, b"cLLI": bytes(8)}, 16)
    photo = read(tmp_path / "a.png")
    assert photo.notes == () and write(photo, tmp_path / "b.png") == ()
    found = chunks_of((tmp_path / "b.png").read_bytes())
    assert found[b"cICP"] == code and found[b"cLLI"] == bytes(8)
    assert write(photo, tmp_path / "b.tif") == (f"its colours ({name}) are only described in a PNG",)


@pytest.mark.parametrize("chunks", [{b"gAMA": bytes(4)}, {b"cHRM": bytes(32)}, {b"cICP": b"\1"}])
def test_a_damaged_description_is_ignored_in_words(tmp_path, chunks):
    png_with(tmp_path / "a.png", chunks)
    photo = read(tmp_path / "a.png")
    assert photo.metadata.icc == b"" and photo.notes == ("a damaged description of its colours was ignored",)
    assert np.array_equal(photo.levels, RGB)


@pytest.mark.parametrize("suffix", [".jpg", ".tif", ".webp"])
def test_grey_of_another_gamma(tmp_path, suffix):
    """WebP has no grey, and no profile for grey suits its colours."""
    png_with(tmp_path / "a.png", {b"gAMA": GAMMA[1.0]}, pixels=RGB[..., :1])
    write(read(tmp_path / "a.png"), tmp_path / f"b{suffix}")
    assert np.abs(seen(tmp_path / f"b{suffix}") - encoded(UNIT[..., :1])).mean() * 255 < 2


def test_avif_with_colours_by_number(tmp_path):
    """Pillow writes nclx 1, 13 (sRGB), and reads none: here P3 in its place."""
    file = io.BytesIO()
    try:
        Image.fromarray(RGB).save(file, "AVIF", quality=95)
    except (KeyError, OSError):
        pytest.skip("this Pillow has no AVIF")
    data = file.getvalue()
    at = data.index(b"colrnclx") + 8
    (tmp_path / "a.avif").write_bytes(data[:at] + struct.pack(">HH", 12, 13) + data[at + 4 :])
    write(read(tmp_path / "a.avif"), tmp_path / "b.tif")
    assert np.abs(seen(tmp_path / "b.tif") - MEANT["P3 by code"][1]).mean() * 255 < 4


def test_lab_becomes_rgb_without_its_profile(tmp_path):
    Image.fromarray(RGB).convert("LAB").save(tmp_path / "a.tif", icc_profile=PROFILE)
    photo = read(tmp_path / "a.tif")
    assert photo.metadata.icc == b"" and np.abs(photo.levels.astype(int) - RGB).mean() < 2


def test_written_grey_keeps_its_own_profile(tmp_path):
    write(Photo(RGB[..., :1]), tmp_path / "a.png")
    assert read(tmp_path / "a.png").metadata.icc == b""
