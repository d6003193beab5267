"""Colours that a TIFF describes by numbers are the same colours in every format that is written."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from f2d.images import read, write
from tests.images.test_colours import P3_TO_SRGB, PROFILE, RGB, UNIT, encoded, linear, seen

WHITE = (318, 5, 2, (3127, 10000, 3290, 10000), True)
P3 = (319, 5, 6, (680, 1000, 320, 1000, 265, 1000, 690, 1000, 150, 1000, 60, 1000), True)
SRGB = (319, 5, 6, (64, 100, 33, 100, 30, 100, 60, 100, 15, 100, 6, 100), True)


def transfer(*curves: np.ndarray) -> tuple:
    values = np.concatenate([(65535 * curve).round() for curve in curves]).astype(int).tolist()
    return 301, 3, len(values), tuple(values), True


LEVEL = np.arange(256) / 255
# tags -> the sRGB values that the pixels of RGB mean, from the definitions, in float64
MEANT = {
    "P3": ([WHITE, P3], encoded(linear(UNIT) @ P3_TO_SRGB.T)),
    "linear P3": ([WHITE, P3, transfer(LEVEL)], encoded(UNIT @ P3_TO_SRGB.T)),
    "gamma 1.8": ([transfer(LEVEL**1.8)], encoded(UNIT**1.8)),
    "a curve for each": (
        [WHITE, SRGB, transfer(LEVEL, LEVEL**1.8, linear(LEVEL))],
        encoded(np.dstack([UNIT[..., 0], UNIT[..., 1] ** 1.8, linear(UNIT[..., 2])])),
    ),
    "sRGB": ([WHITE, SRGB, transfer(linear(LEVEL))], UNIT),
    "white alone": ([WHITE], UNIT),
}


@pytest.mark.parametrize("suffix", [".tif", ".png", ".webp", ".jpg"])
@pytest.mark.parametrize("case", MEANT)
def test_every_format_means_the_same_colours(tmp_path, case, suffix):
    tags, meant = MEANT[case]
    tifffile.imwrite(tmp_path / "a.tif", RGB, photometric="rgb", extratags=tags)
    write(read(tmp_path / "a.tif"), tmp_path / f"b{suffix}")
    difference = np.abs(seen(tmp_path / f"b{suffix}") - meant) * 255
    assert difference.max() <= 2 if suffix in (".tif", ".png") else difference.mean() < 3
    with Image.open(tmp_path / f"b{suffix}") as image:
        assert ("icc_profile" in image.info) == (meant is not UNIT)


def test_a_curve_of_16_bits(tmp_path):
    level = np.arange(65536) / 65535
    tifffile.imwrite(
        tmp_path / "a.tif", RGB.astype(np.uint16) * 257, photometric="rgb", extratags=[transfer(level**1.8)]
    )
    photo = read(tmp_path / "a.tif")
    assert photo.depth == 16 and len(photo.metadata.icc) < 10_000
    write(photo.as_depth(8), tmp_path / "b.png")
    assert np.abs(seen(tmp_path / "b.png") - encoded(UNIT**1.8)).max() * 255 <= 2


def test_grey_of_another_gamma(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", RGB[..., 0], photometric="minisblack", extratags=[transfer(LEVEL**1.8)])
    write(read(tmp_path / "a.tif"), tmp_path / "b.webp")
    assert np.abs(seen(tmp_path / "b.webp")[..., 0] - encoded(UNIT[..., 0] ** 1.8)).mean() * 255 < 3


def test_an_embedded_profile_comes_first(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", RGB, photometric="rgb", extratags=[WHITE, P3], iccprofile=PROFILE)
    assert read(tmp_path / "a.tif").metadata.icc == PROFILE


@pytest.mark.parametrize(
    "tag",
    [
        (319, 5, 6, (0, 1) * 6, True),
        (319, 5, 2, (64, 100, 33, 100), True),
        (301, 3, 100, tuple(range(100)), True),
        (301, 3, 256, (0,) * 256, True),
    ],
)
def test_a_damaged_description_is_ignored_in_words(tmp_path, tag):
    tifffile.imwrite(tmp_path / "a.tif", RGB, photometric="rgb", extratags=[tag])
    photo = read(tmp_path / "a.tif")
    assert photo.metadata.icc == b"" and photo.notes == ("a damaged description of its colours was ignored",)
    assert np.array_equal(photo.levels, RGB)


@pytest.mark.parametrize("suffix", [".jpg", ".tif", ".png", ".webp"])
def test_cameras_that_write_them_into_exif_keep_them(tmp_path, suffix):
    exif = Image.Exif()
    exif[318], exif[319] = (0.3127, 0.329), (0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
    Image.fromarray(RGB).save(tmp_path / "a.jpg", exif=exif)
    write(read(tmp_path / "a.jpg"), tmp_path / f"b{suffix}")
    with Image.open(tmp_path / f"b{suffix}") as image:
        kept = image.getexif()
        assert [float(x) for x in kept[318]] == pytest.approx([0.3127, 0.329], abs=1e-5)
        assert [float(x) for x in kept[319]] == pytest.approx([0.68, 0.32, 0.265, 0.69, 0.15, 0.06], abs=1e-5)
