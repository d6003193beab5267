"""`f2d restore`: what it writes, what it refuses, and what it leaves behind."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from f2d import F2DNet, restore_tensor
from f2d.images import image_to_tensor
from tests.cli.conftest import assert_one_line_error, smooth_pixels
from tests.nets.small import TINY


def pixels(path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_restores_a_file_as_restore_tensor_does(f2d, model, photo, tmp_path):
    out = tmp_path / "restored.png"
    result = f2d("restore", photo, "-o", out, "--model", model, "--precision", "float32")
    assert result.exit_code == 0, result.output
    expected = restore_tensor(F2DNet.from_pretrained(model), image_to_tensor(photo)[None] * 2 - 1, seed=0)
    expected = ((expected[0].permute(1, 2, 0) + 1) * 127.5).numpy()
    assert np.abs(pixels(out) - expected).max() < 0.51  # rounding to 8 bits, and channels_last sums in another order
    assert np.abs(pixels(out).astype(int) - pixels(photo)).max() > 5  # the model does something


def test_bf16_is_near_float32(f2d, model, photo, tmp_path):
    for precision in ("float32", "bf16"):
        result = f2d("restore", photo, "-o", tmp_path / f"{precision}.png", "--model", model, "--precision", precision)
        assert result.exit_code == 0 and precision in result.stdout
    difference = pixels(tmp_path / "bf16.png").astype(float) - pixels(tmp_path / "float32.png")
    assert 10 * np.log10(255**2 / max(1e-9, np.square(difference).mean())) > 40


def test_prints_seconds_of_the_model_and_of_the_command(f2d, model, photo, tmp_path):
    out = f2d("restore", photo, "-o", tmp_path / "out", "--model", model).stdout
    assert "photo.png  33x47  " in out and "1 restored, 0 failed; model " in out and "whole command " in out


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (33, 47), (1, 64)])
def test_any_size(f2d, model, tmp_path, size):
    Image.fromarray(smooth_pixels(*size)).save(tmp_path / "a.png")
    assert f2d("restore", tmp_path / "a.png", "-o", tmp_path / "b.png", "--model", model).exit_code == 0
    assert pixels(tmp_path / "b.png").shape == (*size, 3)


def test_transparency_is_kept_and_not_restored(f2d, model, tmp_path):
    rgba = np.dstack([smooth_pixels(12, 16), np.arange(12 * 16, dtype=np.uint8).reshape(12, 16)])
    Image.fromarray(rgba).save(tmp_path / "a.png")
    Image.fromarray(rgba[..., :3]).save(tmp_path / "opaque.png")
    assert (
        f2d("restore", tmp_path / "a.png", tmp_path / "opaque.png", "-o", tmp_path / "o", "--model", model).exit_code
        == 0
    )
    restored = pixels(tmp_path / "o" / "a.png")
    assert np.array_equal(restored[..., 3], rgba[..., 3])
    assert np.array_equal(restored[..., :3], pixels(tmp_path / "o" / "opaque.png"))


@pytest.mark.parametrize("mode", ["L", "P", "CMYK"])
def test_grey_stays_grey_and_other_modes_become_rgb(f2d, model, tmp_path, mode):
    picture = Image.fromarray(smooth_pixels(12, 16))
    picture = picture.quantize(32) if mode == "P" else picture.convert(mode)
    picture.save(tmp_path / "a.tif")
    assert f2d("restore", tmp_path / "a.tif", "-o", tmp_path / "b.tif", "--model", model).exit_code == 0
    assert pixels(tmp_path / "b.tif").shape == ((12, 16) if mode == "L" else (12, 16, 3))


def test_exif_orientation_is_applied_once(f2d, model, tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(smooth_pixels(12, 20)).save(tmp_path / "a.jpg", exif=exif)
    assert f2d("restore", tmp_path / "a.jpg", "-o", tmp_path / "b.jpg", "--model", model).exit_code == 0
    with Image.open(tmp_path / "b.jpg") as restored:
        assert restored.size == (12, 20) and restored.getexif()[274] == 1


def test_a_folder_and_files_into_a_folder(f2d, model, tmp_path):
    (tmp_path / "in" / "deeper").mkdir(parents=True)
    for name in ("in/a.png", "in/b.jpg", "in/deeper/c.png", "d.bmp"):
        Image.fromarray(smooth_pixels(8, 8)).save(tmp_path / name)
    (tmp_path / "in" / "notes.txt").write_text("not a picture")
    result = f2d("restore", tmp_path / "in", tmp_path / "d.bmp", "-o", tmp_path / "out", "--model", model)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "b.jpg", "d.bmp"]


def test_maps_and_gates_are_saved(f2d, model, photo, tmp_path):
    assert f2d("restore", photo, "-o", tmp_path / "o.png", "--model", model, "--save-maps").exit_code == 0
    maps = [pixels(tmp_path / f"o.png_map_{name}.png") for name in TINY.factors]
    numbers = json.loads((tmp_path / "o.png_maps.json").read_text())
    assert {m.shape for m in maps} == {(47, 33)}
    assert abs(sum(numbers["gates"].values()) - 1) < 0.01 and set(numbers["presence"]) == set(TINY.factors)
    analysis = F2DNet.from_pretrained(model).analyse(image_to_tensor(photo)[None] * 2 - 1)
    assert np.abs(maps[2] - 255 * analysis.maps[0, 2].detach().numpy()).max() < 3  # bf16 where the processor has it


def test_same_seed_same_bytes_and_another_seed_another_sample(f2d, model, photo, tmp_path):
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        options = ("--model", model, "--steps", 4, "--seed", seed)
        assert f2d("restore", photo, "-o", tmp_path / f"{name}.png", *options).exit_code == 0
    a, b, c = ((tmp_path / f"{name}.png").read_bytes() for name in "abc")
    assert a == b and a != c


def test_tta_of_a_mirrored_picture_is_the_mirrored_restoration(f2d, model, tmp_path):
    image = smooth_pixels(32, 32)
    Image.fromarray(image).save(tmp_path / "a.png")
    Image.fromarray(image[:, ::-1]).save(tmp_path / "b.png")
    options = ("--tta", "--sampler", "mean", "--precision", "float32", "--model", model)
    assert f2d("restore", tmp_path / "a.png", tmp_path / "b.png", "-o", tmp_path / "o", *options).exit_code == 0
    a, b = pixels(tmp_path / "o" / "a.png").astype(int), pixels(tmp_path / "o" / "b.png")
    assert np.abs(a[:, ::-1] - b).max() <= 1


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
    assert pixels(out).shape == (47, 33, 3)


def test_failures_do_not_stop_the_others(f2d, model, photo, tmp_path):
    (tmp_path / "broken.png").write_bytes(photo.read_bytes()[:100])
    (tmp_path / "text.png").write_text("no picture")
    inputs = (tmp_path / "broken.png", tmp_path / "missing.png", tmp_path / "text.png", photo)
    result = f2d("restore", *inputs, "-o", tmp_path / "out", "--model", model)
    assert result.exit_code == 1 and "1 restored, 3 failed" in result.stdout
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 3
    for name in ("broken.png", "missing.png", "text.png"):
        assert sum(name in line for line in errors) == 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["photo.png"]


def test_errors_of_one_input(f2d, model, photo, tmp_path):
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "cut.png").write_bytes(photo.read_bytes()[:100])
    (tmp_path / "empty").mkdir()
    for name, words in {
        "missing.png": ("missing.png", "no such file"),
        "text.jpg": ("text.jpg", "not an image"),
        "cut.png": ("cut.png", "truncated"),
        "empty": ("empty", "no ", "files in this folder"),
    }.items():
        result = f2d("restore", tmp_path / name, "-o", tmp_path / "out", "--model", model)
        assert_one_line_error(result, 1, *words)
        assert not list(tmp_path.glob("out/*"))


def test_unreadable_pictures_load_no_model(f2d, monkeypatch, tmp_path):
    (tmp_path / "text.jpg").write_text("no picture")
    monkeypatch.setattr(F2DNet, "from_pretrained", lambda *_: pytest.fail("a model was loaded"))
    assert f2d("restore", tmp_path / "text.jpg", "-o", tmp_path / "out").exit_code == 1


def test_unknown_preset_lists_the_known(f2d, photo, tmp_path):
    from f2d import checkpoints

    result = f2d("restore", photo, "-o", tmp_path / "out.png", "--model", "f2d-nope")
    assert_one_line_error(result, 2, "f2d-nope", *checkpoints.shipped())


def test_damaged_checkpoint(f2d, photo, tmp_path, model):
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes((Path(model) / name).read_bytes()[:64])
    assert_one_line_error(f2d("restore", photo, "-o", tmp_path / "o.png", "--model", folder), 2, "config.json")
    assert not (tmp_path / "o.png").exists()


@pytest.mark.parametrize(
    "options, words",
    [
        (("--steps", "0"), ("--steps",)),
        (("--steps", "many"), ("--steps",)),
        (("--seed", str(2**64)), ("--seed",)),
        (("--sampler", "DDIM"), ("--sampler", "DDIM", "mean")),
        (("--seed", "-1"), ("--seed",)),
        (("--precision", "int4"), ("--precision", "int4", "bf16")),
        (("--device", "abacus"), ("abacus",)),
        (("--device", "cpu:7"), ("cpu:7", "one CPU")),
        (("--strenght", "1"), ("--strenght",)),
    ],
)
def test_bad_option_values(f2d, model, photo, tmp_path, options, words):
    assert_one_line_error(f2d("restore", photo, "-o", tmp_path / "o.png", "--model", model, *options), 2, *words)
    assert not (tmp_path / "o.png").exists()


def test_errors_are_worded_for_people(f2d, model, photo, tmp_path):
    """Some versions of typer let pydantic's "Value error, " through."""
    result = f2d("restore", photo, "-o", tmp_path / "o.png", "--model", model, "--sampler", "DDIM")
    assert "value error" not in result.stderr.replace("Invalid value", "").lower()


@pytest.mark.parametrize("options", [("--steps", "101"), ("--steps", "2", "--sampler", "mean")])
def test_steps_that_cannot_be_taken_load_no_weights(f2d, model, photo, tmp_path, monkeypatch, options):
    monkeypatch.setattr(F2DNet, "from_pretrained", lambda *_: pytest.fail("a model was loaded"))
    result = f2d("restore", photo, "-o", tmp_path / "o.png", "--model", model, *options)
    assert_one_line_error(result, 2, "steps", options[1], "1")


def test_sampler_in_any_case(f2d, model, photo, tmp_path):
    for name in ("MC", "mc"):
        options = ("--model", model, "--sampler", name)
        assert f2d("restore", photo, "-o", tmp_path / f"{name}_.png", *options).exit_code == 0
    assert (tmp_path / "MC_.png").read_bytes() == (tmp_path / "mc_.png").read_bytes()


def test_maps_of_two_formats_of_one_name_do_not_meet(f2d, model, tmp_path):
    Image.fromarray(smooth_pixels(8, 8)).save(tmp_path / "a.png")
    Image.fromarray(smooth_pixels(16, 16)).save(tmp_path / "a.jpg")
    inputs = (tmp_path / "a.png", tmp_path / "a.jpg")
    assert f2d("restore", *inputs, "-o", tmp_path / "o", "--model", model, "--save-maps").exit_code == 0
    shapes = {name: pixels(tmp_path / "o" / f"{name}_map_rain.png").shape for name in ("a.png", "a.jpg")}
    assert shapes == {"a.png": (8, 8), "a.jpg": (16, 16)}
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
    assert_one_line_error(result, 2, str(other), f"{photo};", "separate folders")
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


def test_em_with_few_steps_warns(f2d, model, photo, tmp_path):
    result = f2d("restore", photo, "-o", tmp_path / "o.png", "--model", model, "--sampler", "EM", "--steps", 2)
    assert result.exit_code == 0 and "warning: EM" in result.stderr


def test_options_name_what_the_package_has():
    from f2d.cli.options import Precision, Sampler
    from f2d.execution import PRECISIONS
    from f2d.transport import SAMPLERS

    assert tuple(sampler.value for sampler in Sampler) == SAMPLERS
    assert tuple(precision.value for precision in Precision) == PRECISIONS


def test_restored_tensor_does_not_depend_on_the_callers_grad_mode(model, photo):
    from f2d.images import open_image
    from f2d.restorer import Restorer

    restorer = Restorer.load(model)
    with torch.enable_grad():
        first = restorer(open_image(photo)).image
    assert first.tobytes() == restorer(open_image(photo)).image.tobytes()


def test_as_a_process(model, photo, tmp_path):
    def run(*arguments: object) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "f2d", *(str(argument) for argument in arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    done = run("restore", photo, "-o", tmp_path / "o.png", "--model", model)
    assert done.returncode == 0 and (tmp_path / "o.png").is_file(), done.stderr
    assert str(tmp_path / "o.png") in done.stdout  # in a pipe too, not on the progress bar's stderr
    missing = run("restore", tmp_path / "nope.png", "-o", tmp_path / "p.png")
    assert missing.returncode == 1
    assert missing.stderr == f"error: {tmp_path / 'nope.png'}: no such file\n" and missing.stdout == ""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_results_stay_on_stdout_beside_a_progress_bar(model, photo, tmp_path):
    terminal, stderr = os.openpty()
    command = [sys.executable, "-m", "f2d", "restore", str(photo), "-o", str(tmp_path / "o.png"), "--model", model]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=stderr, text=True, env={**os.environ, "TERM": "xterm"}
    )
    os.close(stderr)
    assert "restoring" in os.read(terminal, 100_000).decode()
    os.close(terminal)
    assert str(tmp_path / "o.png") in done.stdout
