"""`f2d degrade`: the picture, its parameters and its maps, reproducible."""

import json

import numpy as np
from PIL import Image

from f2d.degradation import CATEGORIES, FACTORS, degrade
from tests.cli.conftest import assert_one_line_error


def test_json_reproduces_the_picture(f2d, photo, tmp_path):
    out = tmp_path / "o.png"
    assert f2d("degrade", photo, "-o", out, "--category", "rain_low_haze", "--seed", 7).exit_code == 0
    record = json.loads((tmp_path / "o.json").read_text())
    assert record["category"] == "low_haze_rain" and record["seed"] == 7
    assert set(record["parameters"]) == {"low", "haze", "rain"}
    again = degrade(Image.open(photo), record["category"], seed=record["seed"], parameters=record["parameters"])
    assert np.array_equal(np.asarray(again.image), np.asarray(Image.open(out)))
    assert not np.array_equal(np.asarray(again.image), np.asarray(Image.open(photo)))


def test_maps_are_the_ones_of_the_synthesis(f2d, photo, tmp_path):
    assert f2d("degrade", photo, "-o", tmp_path / "o.png", "--category", "haze_snow", "--maps").exit_code == 0
    maps = degrade(Image.open(photo), "haze_snow", seed=0).maps
    for name, values in zip(FACTORS, maps, strict=True):
        written = np.asarray(Image.open(tmp_path / f"o_map_{name}.png"))
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
