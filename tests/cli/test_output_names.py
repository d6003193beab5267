"""Where `f2d restore` writes: what is there already is kept, and names that cannot work are refused before work."""

from pathlib import Path

import pytest
from PIL import Image

from f2d import F2DNet
from f2d.images import read
from tests.cli.conftest import assert_one_line_error, smooth_pixels


def test_what_is_there_is_skipped_without_loading_anything(f2d, model, photo, tmp_path, monkeypatch):
    out = tmp_path / "out.png"
    out.write_bytes(b"precious")
    with monkeypatch.context() as patch:
        patch.setattr(F2DNet, "from_pretrained", lambda *_: pytest.fail("a model was loaded"))
        result = f2d("restore", photo, "-o", out, "--model", model)
    assert result.exit_code == 0 and result.stderr == ""
    assert "0 restored, 0 failed, 1 skipped" in result.stdout and "--overwrite" in result.stdout
    assert out.read_bytes() == b"precious"
    assert f2d("restore", photo, "-o", out, "--model", model, "--overwrite").exit_code == 0
    assert read(out).levels.shape == (47, 33, 3)


def test_maps_of_two_formats_of_one_name_do_not_meet(f2d, model, tmp_path):
    Image.fromarray(smooth_pixels(8, 8)).save(tmp_path / "a.png")
    Image.fromarray(smooth_pixels(16, 16)).save(tmp_path / "a.jpg")
    inputs = (tmp_path / "a.png", tmp_path / "a.jpg")
    assert f2d("restore", *inputs, "-o", tmp_path / "o", "--model", model, "--save-maps").exit_code == 0
    shapes = {name: read(tmp_path / "o" / f"{name}_map_rain.png").levels.shape for name in ("a.png", "a.jpg")}
    assert shapes == {"a.png": (8, 8, 1), "a.jpg": (16, 16, 1)}
    assert len(list((tmp_path / "o").iterdir())) == 2 * (1 + 4 + 1)


@pytest.mark.parametrize("existing", ["photo.png_map_snow.png", "photo.png_maps.json", "photo.png"])
def test_what_is_there_is_kept_and_the_rest_is_written(f2d, model, photo, tmp_path, existing):
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / existing).write_text("precious")
    arguments = ("restore", photo, "-o", tmp_path / "o", "--model", model, "--save-maps")
    assert f2d(*arguments).exit_code == 0
    assert (tmp_path / "o" / existing).read_text() == "precious"
    assert len(list((tmp_path / "o").iterdir())) == 1 + 4 + 1
    assert "1 skipped" in f2d(*arguments).stdout
    assert "1 restored" in f2d(*arguments, "--overwrite").stdout
    assert (tmp_path / "o" / existing).read_bytes() != b"precious"


def test_an_input_named_as_the_map_of_another(f2d, model, photo, tmp_path):
    other = tmp_path / "photo.png_map_rain.png"
    other.write_bytes(photo.read_bytes())
    arguments = ("restore", photo, other, "-o", tmp_path / "o", "--model", model)
    result = f2d(*arguments, "--save-maps")
    assert_one_line_error(result, 2, str(other), f"{photo},", "separate output folders")
    assert not (tmp_path / "o").exists()
    assert f2d(*arguments).exit_code == 0


def test_output_names_that_cannot_work(f2d, model, photo, tmp_path):
    def refused(*arguments: object) -> object:
        return f2d("restore", *arguments, "--model", model)

    other = tmp_path / "deeper" / "photo.png"
    other.parent.mkdir()
    other.write_bytes(photo.read_bytes())
    assert_one_line_error(refused(photo, other, "-o", tmp_path / "o.png"), 2, "o.png", "folder")
    assert_one_line_error(refused(photo, other, "-o", tmp_path / "o"), 2, "photo.png", "deeper")
    assert_one_line_error(refused(photo, "-o", photo / "o"), 2, "cannot be written", "Not a directory")
    assert_one_line_error(refused(photo, "-o", photo / "o.png"), 2, "cannot be written")
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["photo.png"]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder in which nobody can write: /proc")
def test_unwritable_folder(f2d, model, photo, monkeypatch):
    monkeypatch.setattr(F2DNet, "from_pretrained", lambda *_: pytest.fail("a model was loaded"))
    assert_one_line_error(
        f2d("restore", photo, "-o", "/proc/f2d", "--model", model), 2, "/proc/f2d", "cannot be written"
    )


def test_names_of_formats_that_are_not_written(f2d, model, photo, tmp_path):
    for name in ("o.gif", "o.GIF", "o.heic"):
        result = f2d("restore", photo, "-o", tmp_path / name, "--model", model)
        assert_one_line_error(result, 2, name, ".png", ".jpg", "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]
    for folder in ("run.2", "made.d"):
        if folder == "made.d":
            (tmp_path / folder).mkdir()
        assert f2d("restore", photo, "-o", tmp_path / folder, "--model", model).exit_code == 0
        assert (tmp_path / folder / "photo.png").is_file()


@pytest.mark.skipif(not Path("/dev/null").exists(), reason="needs a device file")
def test_a_device_is_no_output(f2d, model, photo, tmp_path):
    assert_one_line_error(f2d("restore", photo, "-o", "/dev/null", "--model", model), 2, "/dev/null", "folder", ".png")
    (tmp_path / "link.png").symlink_to("/dev/null")
    result = f2d("restore", photo, "-o", tmp_path / "link.png", "--model", model, "--overwrite")
    assert_one_line_error(result, 1, "link.png", "device")
    (tmp_path / "text").write_text("a file")
    assert_one_line_error(f2d("restore", photo, "-o", tmp_path / "text", "--model", model), 2, "is a file")


def test_jpeg_cannot_take_transparency(f2d, model, tmp_path, monkeypatch):
    monkeypatch.setattr(F2DNet, "from_pretrained", lambda *_: pytest.fail("a model was loaded"))
    Image.new("RGBA", (8, 8)).save(tmp_path / "a.png")
    result = f2d("restore", tmp_path / "a.png", "-o", tmp_path / "a.jpg", "--model", model)
    assert result.exit_code == 1 and "transparency" in result.stderr
    assert not (tmp_path / "a.jpg").exists()
