"""`f2d degrade`: the picture, its parameters and its maps, reproducible."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from f2d.degradation import CATEGORIES, FACTORS, degrade
from f2d.images.icc import from_code_points, profile
from tests.cli.conftest import assert_one_line_error


def test_json_reproduces_the_picture(f2d, photo, tmp_path):
    out = tmp_path / "o.png"
    assert f2d("degrade", photo, "-o", out, "--category", "rain_low_haze", "--seed", 7).exit_code == 0
    record = json.loads((tmp_path / "o.png.json").read_text())
    assert record["category"] == "low_haze_rain" and record["seed"] == 7
    assert set(record["parameters"]) == {"low", "haze", "rain"}
    again = degrade(Image.open(photo), record["category"], seed=record["seed"], parameters=record["parameters"])
    assert np.array_equal(np.asarray(again.image), np.asarray(Image.open(out)))
    assert not np.array_equal(np.asarray(again.image), np.asarray(Image.open(photo)))


def test_transparency_is_kept_or_refused(f2d, photo, tmp_path):
    rgb = np.asarray(Image.open(photo))
    alpha = np.linspace(0, 255, rgb[..., 0].size).reshape(rgb.shape[:2]).astype(np.uint8)
    Image.fromarray(np.dstack([rgb, alpha])).save(tmp_path / "cut.png")
    options = ("--category", "haze", "--seed", 7)
    assert f2d("degrade", tmp_path / "cut.png", "-o", tmp_path / "o.png", *options).exit_code == 0
    written = np.asarray(Image.open(tmp_path / "o.png"))
    assert np.array_equal(written[..., 3], alpha)
    assert np.array_equal(written[..., :3], np.asarray(degrade(Image.open(photo), "haze", seed=7).image))
    result = f2d("degrade", tmp_path / "cut.png", "-o", tmp_path / "o.jpg", *options)
    assert_one_line_error(result, 2, "o.jpg: this format cannot hold the image's transparency")


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_colours_mean_what_they_meant(f2d, photo, tmp_path, suffix):
    """Without its profile a photo in a wide colour space was taken for sRGB, and became pale."""
    wide = profile(from_code_points(12, 13), grey=False)  # Display P3
    Image.open(photo).save(tmp_path / "wide.png", icc_profile=wide)
    out = tmp_path / f"o.{suffix}"
    assert f2d("degrade", tmp_path / "wide.png", "-o", out, "--category", "low").exit_code == 0
    assert Image.open(out).info["icc_profile"] == wide
    Image.open(photo).convert("L").save(tmp_path / "grey.png", icc_profile=profile(from_code_points(1, 4), grey=True))
    assert f2d("degrade", tmp_path / "grey.png", "-o", tmp_path / f"g.{suffix}", "--category", "low").exit_code == 0
    assert "icc_profile" not in Image.open(tmp_path / f"g.{suffix}").info


def test_maps_are_the_ones_of_the_synthesis(f2d, photo, tmp_path):
    assert f2d("degrade", photo, "-o", tmp_path / "o.png", "--category", "haze_snow", "--maps").exit_code == 0
    maps = degrade(Image.open(photo), "haze_snow", seed=0).maps
    for name, values in zip(FACTORS, maps, strict=True):
        written = np.asarray(Image.open(tmp_path / f"o.png_map_{name}.png"))
        assert np.abs(written - 255 * values.numpy()).max() <= 0.51
        assert written.any() == (name in ("haze", "snow"))


def test_errors(f2d, photo, tmp_path):
    def refused(source, out, category="haze"):
        return f2d("degrade", source, "-o", out, "--category", category)

    assert_one_line_error(refused(photo, tmp_path / "o.png", "fog"), 2, "fog", *CATEGORIES)
    assert_one_line_error(refused(photo, tmp_path / "o.png", "rain_snow"), 2, "rain_snow")
    assert_one_line_error(refused(tmp_path / "no.png", tmp_path / "o.png"), 2, "no such file")
    assert_one_line_error(refused(photo, tmp_path / "o.xyz"), 2, ".xyz", ".png")
    assert_one_line_error(refused(photo, tmp_path), 2, "image")
    assert_one_line_error(refused(photo, photo), 2, "--overwrite")
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]


def test_nothing_is_overwritten_without_being_asked(f2d, photo, tmp_path):
    for existing in ("o.png.json", "o.png_map_rain.png"):
        (tmp_path / existing).write_text("precious")
        result = f2d("degrade", photo, "-o", tmp_path / "o.png", "--category", "low", "--maps")
        assert_one_line_error(result, 2, existing, "--overwrite")
        assert (tmp_path / existing).read_text() == "precious" and not (tmp_path / "o.png").exists()
        (tmp_path / existing).unlink()


def test_maps_of_an_earlier_image_do_not_stay_beside_another(f2d, photo, tmp_path):
    """They were left there, as if they were the ground truth of the new image."""
    command = ("degrade", photo, "-o", tmp_path / "o.png", "--overwrite", "--category")
    assert f2d(*command, "rain", "--maps").exit_code == 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert_one_line_error(f2d(*command, "haze"), 2, "o.png_map_low.png", "earlier image", "--maps")
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert f2d(*command, "haze", "--maps").exit_code == 0
    shown = {name: np.asarray(Image.open(tmp_path / f"o.png_map_{name}.png")).any() for name in FACTORS}
    assert [name for name, any_pixel in shown.items() if any_pixel] == ["haze"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_name_that_is_no_text(f2d, photo, tmp_path):
    """The files were written, and then the command failed, as it could not print their names."""
    done = f2d("degrade", photo, "-o", tmp_path / os.fsdecode(b"o\xff.png"), "--category", "low")
    assert done.exit_code == 0 and "o\\udcff.png.json" in done.stdout
    assert (tmp_path / os.fsdecode(b"o\xff.png")).is_file()


def test_two_formats_of_one_name_keep_their_records(f2d, photo, tmp_path):
    for name, category in (("o.png", "low"), ("o.jpg", "rain")):
        assert f2d("degrade", photo, "-o", tmp_path / name, "--category", category, "--maps").exit_code == 0
    records = {name: json.loads((tmp_path / f"{name}.json").read_text())["category"] for name in ("o.png", "o.jpg")}
    assert records == {"o.png": "low", "o.jpg": "rain"}
    assert np.asarray(Image.open(tmp_path / "o.png_map_low.png")).any()
    assert not np.asarray(Image.open(tmp_path / "o.jpg_map_low.png")).any()


def test_seeds_that_do_not_fit(f2d, photo, tmp_path):
    result = f2d("degrade", photo, "-o", tmp_path / "o.png", "--category", "low", "--seed", 2**64)
    assert_one_line_error(result, 2, "--seed")


@pytest.mark.skipif(not Path("/dev/null").exists(), reason="needs a device file")
def test_a_device_is_no_image(f2d, photo):
    assert_one_line_error(f2d("degrade", photo, "-o", "/dev/null", "--category", "low"), 2, "/dev/null", "device")
