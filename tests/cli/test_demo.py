"""`f2d demo`: figures and numbers from the photographs that come with the package."""

import re
import socket

import numpy as np
import pytest
from PIL import Image
from skimage import data
from skimage.metrics import peak_signal_noise_ratio

from f2d import demo
from f2d.degradation import degrade
from f2d.engine.restorer import Restorer
from f2d.images.sheet import Panel, colour_map, sheet
from tests.cli.conftest import assert_one_line_error


@pytest.fixture
def no_network(monkeypatch):
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("the demo went online"))


@pytest.fixture
def two_cases(monkeypatch):
    monkeypatch.setattr(demo, "CASES", demo.CASES[:2])
    monkeypatch.setattr(demo.run, "__defaults__", (demo.CASES,))


def test_demo(f2d, model, tmp_path, no_network, two_cases):
    result = f2d("demo", "-o", tmp_path / "out", "--model", model)
    assert result.exit_code == 0, result.output
    figures = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in figures] == ["1_chelsea_low_haze_rain.png", "2_coffee_low_haze_snow.png"]
    assert str(tmp_path / "out") in result.stdout and "low + haze + rain" in result.stdout
    for path in figures:
        assert path.name in result.stdout
        assert np.asarray(Image.open(path)).std() > 20
    # before, after and gain of a row agree
    rows = re.findall(r"(\d+\.\d\d) [^\d]*(\d+\.\d\d) [^\d+-]*([+-]\d+\.\d\d)", result.stdout)
    assert len(rows) == 2 and all(abs(float(b) - float(a) - float(g)) < 0.011 for a, b, g in rows)

    first = figures[0].read_bytes()
    assert_one_line_error(f2d("demo", "-o", tmp_path / "out", "--model", model), 2, "--overwrite")
    assert f2d("demo", "-o", tmp_path / "out", "--model", model, "--overwrite").exit_code == 0
    assert figures[0].read_bytes() == first


def test_numbers_and_pictures_of_a_case(model):
    restorer = Restorer.load(model)
    case = demo.CASES[0]
    (result,) = demo.run(restorer, (case,))
    clean = Image.open(demo.sample_photograph(case.photo))
    degraded = degrade(clean, case.category, seed=case.seed).image
    pictures = [degraded, restorer(degraded).image, clean]
    expected = [peak_signal_noise_ratio(np.asarray(clean), np.asarray(picture)) for picture in pictures[:2]]
    assert (result.before, result.after) == pytest.approx(expected, abs=1e-3)
    panel = result.figure.crop((0, 60, 1440, 360))  # the row of pictures
    means = [np.asarray(panel.crop((480 * i + 30, 0, 480 * i + 450, 300))).mean() for i in range(3)]
    assert means == pytest.approx([np.asarray(picture).mean() for picture in pictures], abs=8)


@pytest.mark.parametrize("name", demo.PHOTOGRAPHS)
def test_the_photographs_are_those_of_scikit_image_and_small(name):
    path = demo.sample_photograph(name)
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert peak_signal_noise_ratio(getattr(data, name)(), pixels) > 34
    assert path.stat().st_size < 125_000 and name in (path.parent / "LICENSE").read_text()


def test_another_name_is_refused_with_those_there_are():
    with pytest.raises(
        ValueError, match="sample photograph must be one of chelsea, coffee, astronaut, rocket, got 'camera'"
    ):
        demo.sample_photograph("camera")


def test_errors(f2d, model, photo, tmp_path):
    assert_one_line_error(f2d("demo", "-o", photo, "--model", model), 2, "folder")
    assert_one_line_error(f2d("demo", "-o", tmp_path / "out", "--model", "nope"), 2, "nope")


def test_colour_map_brightens_with_the_value():
    luma = np.asarray(colour_map(np.linspace(0, 1, 256)[None]).convert("L")).astype(int)[0]
    assert luma[0] < 5 and luma[-1] > 235 and (np.diff(luma) >= -1).all()


def test_sheet_shows_every_panel_at_its_place():
    colours = [(200, 0, 0), (0, 200, 0), (0, 0, 200)]
    row = [Panel(Image.new("RGB", (30, 20), colour), "label") for colour in colours]
    figure = sheet("title", "subtitle", [row, row[:2]], width=480)
    found = {colour: np.argwhere((np.asarray(figure) == colour).all(-1)) for colour in colours}
    centres = [found[colour].mean(0)[1] for colour in colours]
    assert centres[0] < centres[1] < centres[2] and figure.width == 480
    assert found[colours[0]][:, 0].max() > found[colours[2]][:, 0].max()  # the second row has no blue
