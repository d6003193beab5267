"""16 bits per channel: every value of every file survives, against the PNG specification and tifffile."""

import struct

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from f2d.images import ImageError, Photo, read, write
from tests.images import png_reference


def noise(channels: int, height: int = 31, width: int = 45) -> np.ndarray:
    return np.random.default_rng(channels).integers(0, 65536, (height, width, channels)).astype(np.uint16)


def smooth(channels: int) -> np.ndarray:
    y, x = np.mgrid[0:150, 0:61]  # more rows than are filtered at a time
    return np.stack([300 * y + (100 + 7 * c) * x for c in range(channels)], axis=-1).astype(np.uint16)


def photo_of(pixels: np.ndarray) -> Photo:
    channels = pixels.shape[2] - (pixels.shape[2] in (2, 4))
    return Photo(pixels[..., :channels], pixels[..., channels] if pixels.shape[2] > channels else None)


def pixels_of(photo: Photo) -> np.ndarray:
    return photo.levels if photo.alpha is None else np.dstack([photo.levels, photo.alpha])


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png_is_read(tmp_path, channels, interlaced):
    pixels = noise(channels)
    (tmp_path / "a.png").write_bytes(png_reference.write(pixels, interlaced=interlaced))
    photo = read(tmp_path / "a.png")
    assert photo.depth == 16 and photo.grey == (channels < 3)
    assert np.array_equal(pixels_of(photo), pixels)


@pytest.mark.parametrize("make", [noise, smooth])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png_is_written(tmp_path, channels, make):
    pixels = make(channels)
    write(photo_of(pixels), tmp_path / "a.png")
    assert np.array_equal(png_reference.read((tmp_path / "a.png").read_bytes()), pixels)
    assert np.array_equal(pixels_of(read(tmp_path / "a.png")), pixels)


def test_smooth_pngs_are_small(tmp_path):
    write(photo_of(smooth(3)), tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size < smooth(3).nbytes / 5


@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"byteorder": ">"},
        {"compression": "zlib"},
        {"compression": "zlib", "predictor": True, "byteorder": ">"},
        {"tile": (16, 16)},
        {"rowsperstrip": 4},
    ],
    ids=str,
)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_tiff_is_read(tmp_path, channels, layout):
    pixels = noise(channels)
    kind = {"photometric": "minisblack"} if channels == 1 else {"photometric": "rgb"}
    if channels == 4:
        kind["extrasamples"] = ["unassalpha"]
    tifffile.imwrite(tmp_path / "a.tif", pixels if channels > 1 else pixels[..., 0], **kind, **layout)
    photo = read(tmp_path / "a.tif")
    assert photo.depth == 16
    assert np.array_equal(pixels_of(photo), pixels)


def test_tiff_whose_white_is_zero(tmp_path):
    pixels = noise(1)
    tifffile.imwrite(tmp_path / "a.tif", pixels[..., 0], photometric="miniswhite")
    assert np.array_equal(read(tmp_path / "a.tif").levels, 65535 - pixels)


@pytest.mark.parametrize("make", [noise, smooth])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_tiff_is_written(tmp_path, channels, make):
    pixels = make(channels)
    write(photo_of(pixels), tmp_path / "a.tif")
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        page = file.pages[0]
        assert page.bitspersample == 16 and page.compression == 8 and page.predictor == 2
        assert page.extrasamples == ((2,) if channels in (2, 4) else ())
        assert np.array_equal(page.asarray().reshape(pixels.shape), pixels)
    assert np.array_equal(pixels_of(read(tmp_path / "a.tif")), pixels)


def test_the_transparent_colour_of_a_png(tmp_path):
    pixels = noise(3)
    clear = struct.pack(">HHH", *pixels[3, 5])
    pixels[4, 6] = pixels[3, 5] ^ 1  # the same in its high bytes
    (tmp_path / "a.png").write_bytes(png_reference.write(pixels, extra=png_reference.chunk(b"tRNS", clear)))
    photo = read(tmp_path / "a.png")
    assert np.array_equal(photo.levels, pixels)
    assert photo.alpha[3, 5] == 0 and (photo.alpha == 0).sum() == 1 and photo.alpha[4, 6] == 65535


@pytest.mark.parametrize("orientation", [3, 6])
def test_deep_files_are_turned(tmp_path, orientation):
    pixels = noise(3)
    exif = Image.Exif()
    exif[274] = orientation
    plain = exif.tobytes()[6:]
    (tmp_path / "a.png").write_bytes(png_reference.write(pixels, extra=png_reference.chunk(b"eXIf", plain)))
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", extratags=[(274, 3, 1, orientation, True)])
    turned = pixels[::-1, ::-1] if orientation == 3 else np.rot90(pixels, -1)
    for name in ("a.png", "a.tif"):
        assert np.array_equal(read(tmp_path / name).levels, turned), name


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_truncated_deep_files_are_reported(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    write(photo_of(noise(3)), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(ImageError, match="a" + suffix):
        read(path)


def test_tensor_and_back_keep_every_level(tmp_path):
    every = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    photo = photo_of(np.stack([every, every[::-1], every.T], axis=-1))
    tensor = photo.tensor()
    assert tensor.dtype == torch.float32 and tensor.shape == (3, 256, 256)
    assert torch.allclose(tensor[0].double() * 65535, torch.from_numpy(every.astype(np.float64)), atol=0.01)
    assert np.array_equal(photo.replaced(tensor).levels, photo.levels)


def test_formats_of_8_bits_round(tmp_path):
    levels = np.array([[0, 128, 129, 257, 385, 386, 65535 - 129, 65535]], np.uint16)
    write(Photo(levels[..., None]), tmp_path / "a.bmp")
    with Image.open(tmp_path / "a.bmp") as image:
        assert np.asarray(image).tolist() == [[0, 0, 1, 1, 1, 2, 254, 255]]


def test_grey_becomes_luma_of_16_bits():
    photo = Photo(np.zeros((1, 2, 1), np.uint16))
    values = torch.tensor([[1.0, 0.5], [0.5, 0.25], [0.0, 1.0]])[:, None]
    expected = np.array([0.299 + 0.5 * 0.587, 0.299 / 2 + 0.587 / 4 + 0.114]) * 65535
    assert np.abs(photo.replaced(values).levels[0, :, 0] - expected).max() <= 0.51
