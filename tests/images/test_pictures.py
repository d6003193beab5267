"""Pictures of every kind in, 8-bit RGB or RGBA out, and files replaced in one piece."""

import numpy as np
import pytest
import torch
from PIL import Image

from f2d.images import (
    ImageError,
    image_to_tensor,
    open_image,
    replacing,
    save_image,
    to_picture,
    to_tensor,
)
from f2d.images.formats import FORMATS
from f2d.images.reading import from_picture
from tests.cli.conftest import smooth_pixels

RGB = smooth_pixels(20, 30)


def test_tensor_has_the_pixels(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.png")
    tensor = image_to_tensor(tmp_path / "a.png")
    assert tensor.dtype == torch.float32 and tensor.shape == (3, 20, 30)
    np.testing.assert_allclose(tensor.permute(1, 2, 0).numpy(), RGB / 255.0, atol=1e-7)


def test_picture_and_tensor_are_inverse():
    assert np.array_equal(np.asarray(to_picture(to_tensor(Image.fromarray(RGB)))), RGB)


def test_picture_rounds_and_clamps():
    picture = to_picture(torch.tensor([[-0.5, 0.4999 / 255, 0.5001 / 255, 1.5]]))
    assert picture.mode == "L" and np.asarray(picture).tolist() == [[0, 0, 1, 255]]


@pytest.mark.parametrize("suffix", sorted(FORMATS))
def test_every_format_is_written_and_read(tmp_path, suffix):
    path = tmp_path / f"a{suffix.upper()}"
    save_image(Image.fromarray(RGB), path)
    again = np.asarray(open_image(path)).astype(int)
    lossy = FORMATS[suffix].quality
    assert np.abs(again - RGB).mean() < (2 if lossy else 1e-9)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_alpha_survives(tmp_path, suffix):
    pixels = np.dstack([RGB, np.full(RGB.shape[:2], 255, np.uint8)])
    pixels[:5, :, 3] = 7
    save_image(Image.fromarray(pixels), tmp_path / f"a{suffix}")
    again = open_image(tmp_path / f"a{suffix}")
    assert again.mode == "RGBA" and np.array_equal(np.asarray(again)[..., 3], pixels[..., 3])


@pytest.mark.parametrize("suffix", [".jpg", ".bmp"])
def test_formats_without_alpha_refuse_it(tmp_path, suffix):
    with pytest.raises(ImageError, match="transparency"):
        save_image(Image.new("RGBA", (8, 8), (1, 2, 3, 254)), tmp_path / f"a{suffix}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".jpg", ".bmp"])
def test_an_opaque_alpha_channel_is_no_transparency(tmp_path, suffix):
    save_image(Image.new("RGBA", (8, 8), (128, 128, 128, 255)), tmp_path / f"a{suffix}")
    assert open_image(tmp_path / f"a{suffix}").getpixel((0, 0)) == (128, 128, 128)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Image.fromarray(RGB[..., 0]),  # L
        lambda: Image.fromarray(RGB[..., 0]).convert("1"),
        lambda: Image.fromarray(RGB).quantize(64),  # P
        lambda: Image.fromarray(RGB[..., 0].astype(np.uint16) * 257),  # I;16
    ],
    ids=["grey", "bilevel", "palette", "grey16"],
)
def test_modes_become_rgb(tmp_path, make):
    picture = make()
    picture.save(tmp_path / "a.png")
    opened = open_image(tmp_path / "a.png")
    assert opened.mode == "RGB"
    if picture.mode.startswith("I"):
        expected = np.repeat(RGB[..., :1], 3, axis=2)
    else:
        expected = np.asarray(picture.convert("RGB"))
    assert np.array_equal(np.asarray(opened), expected)


HALF = Image.fromarray(np.full(RGB.shape[:2], 128, np.uint8))


def with_alpha(mode: str) -> Image.Image:
    picture = Image.fromarray(RGB).convert(mode)
    picture.putalpha(HALF)
    return picture


EVERY_MODE = {
    **{
        mode: Image.fromarray(RGB).convert(mode)
        for mode in ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV", "LAB")
    },
    **{mode: with_alpha(mode[:-1]) for mode in ("LA", "RGBA")},
    "PA": Image.fromarray(RGB).convert("P").convert("PA"),
    "La": with_alpha("L").convert("La"),
    "RGBa": with_alpha("RGB").convert("RGBa"),
    "I;16": Image.fromarray(RGB[..., 0].astype(np.uint16) * 257),
    "I;16B": Image.frombytes("I;16B", (30, 20), (RGB[..., 0].astype(">u2") * 257).astype(">u2").tobytes()),
    "I": Image.fromarray(RGB[..., 0].astype(np.int32) * 257),
    "F": Image.fromarray(RGB[..., 0].astype(np.float32) / 255),
}


@pytest.mark.parametrize("mode", EVERY_MODE)
def test_every_mode_of_pillow(mode):
    """Colours within the rounding of the mode, here at most 5 levels on average; and its transparency."""
    picture = EVERY_MODE[mode]
    assert picture.mode == mode
    photo = from_picture(picture)
    grey = mode[0] in "1LIF" and mode != "LAB"
    assert photo.grey == grey and photo.depth == (16 if mode[0] in "IF" else 8)
    expected = np.asarray(Image.fromarray(RGB).convert("1" if mode == "1" else "L"))[..., None] if grey else RGB
    if mode[0] in "IF":
        expected = RGB[..., :1]
    expected = expected.astype(float) * (255 if mode == "1" else 1)
    tolerance = 25 if mode[0] == "P" else 5
    assert np.abs(photo.as_depth(8).levels - expected).mean() < tolerance
    assert (photo.alpha is not None) == mode.endswith(("A", "a"))
    if mode.endswith(("A", "a")):
        assert np.all(photo.alpha == (255 if mode == "PA" else 128))


def test_palette_transparency_becomes_alpha(tmp_path):
    picture = Image.fromarray(RGB).quantize(8)
    index = int(np.asarray(picture)[0, 0])
    picture.save(tmp_path / "a.png", transparency=index)
    opened = open_image(tmp_path / "a.png")
    assert opened.mode == "RGBA"
    assert np.array_equal(np.asarray(opened)[..., 3] == 0, np.asarray(picture) == index)


def test_cmyk_jpeg_keeps_its_colours(tmp_path):
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    red.save(tmp_path / "a.jpg", quality=95)
    r, g, b = np.asarray(open_image(tmp_path / "a.jpg")).reshape(-1, 3).mean(0)
    assert r > 245 and g < 10 and b < 10


# tag value -> what a viewer does to the stored pixels (TIFF 6.0, tag 274)
ORIENTATIONS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_exif_orientation_is_applied(tmp_path, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(RGB).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(np.asarray(open_image(tmp_path / "a.png")), ORIENTATIONS[orientation](RGB))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".bmp"])
def test_truncated_files_are_reported(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)  # does not compress: the middle is pixels
    Image.fromarray(noise).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageError, match="a" + suffix):
        open_image(path)


def test_a_float_tiff_without_a_defined_range_is_refused(tmp_path):
    Image.fromarray(np.full((4, 4), 255, np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ImageError, match=r"must lie in \[0, 1\].* got 255 to 255"):
        open_image(tmp_path / "a.tif")


def test_decompression_bomb_is_refused(tmp_path, monkeypatch):
    Image.fromarray(RGB).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ImageError, match="exceeds limit"):
        open_image(tmp_path / "a.png")


def test_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_full_disk_is_one_line(tmp_path):
    with (
        pytest.raises(ImageError, match=r"a\.png: cannot be written \(No space left"),
        replacing(tmp_path / "a.png") as t,
    ):
        t.write_text("half")
        raise OSError(28, "No space left on device")
    assert not list(tmp_path.iterdir())
