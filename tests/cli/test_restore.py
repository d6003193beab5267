"""`f2d restore`: the pictures it makes, of files of any kind, and its lines on the terminal."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from f2d import F2DNet, restore_tensor
from f2d.cli.restoring import BATCH, Restoring
from f2d.engine.restorer import Restorer
from f2d.images import image_to_tensor, open_image
from tests.cli.conftest import smooth_pixels
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
    rgba = np.dstack([smooth_pixels(12, 16), np.arange(3, 3 + 12 * 16, dtype=np.uint8).reshape(12, 16)])
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


def test_sampler_in_any_case(f2d, model, photo, tmp_path):
    for name in ("MC", "mc"):
        options = ("--model", model, "--sampler", name)
        assert f2d("restore", photo, "-o", tmp_path / f"{name}_.png", *options).exit_code == 0
    assert (tmp_path / "MC_.png").read_bytes() == (tmp_path / "mc_.png").read_bytes()


def test_em_with_few_steps_warns(f2d, model, photo, tmp_path):
    result = f2d("restore", photo, "-o", tmp_path / "o.png", "--model", model, "--sampler", "EM", "--steps", 2)
    assert result.exit_code == 0 and "warning: EM" in result.stderr


def test_restored_tensor_does_not_depend_on_the_callers_grad_mode(model, photo):
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
    assert missing.stderr == f"error: {tmp_path / 'nope.png'}: no such file or folder\n" and missing.stdout == ""


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


def test_small_photos_of_one_size_go_together_and_come_out_the_same(f2d, model, tmp_path, monkeypatch):
    """On a GPU; here a CPU is taken for one."""
    (tmp_path / "in").mkdir()
    for i in range(BATCH + 5):
        size = (9, 9) if i == BATCH + 2 else (8, 12)
        Image.fromarray(np.roll(smooth_pixels(*size), i, axis=1)).save(tmp_path / "in" / f"{i:02}.png")
    (tmp_path / "in" / "03.png").write_text("no picture")
    sizes, call = [], Restorer.__call__
    monkeypatch.setattr(Restorer, "__call__", lambda *a, **k: sizes.append(len(a[1])) or call(*a, **k))
    options = ("--model", model, "--steps", 2, "--save-maps", "--precision", "float32")
    f2d("restore", tmp_path / "in", "-o", tmp_path / "alone", *options)
    assert sizes == [1] * (BATCH + 4)
    sizes.clear()
    monkeypatch.setattr(Restoring, "_together", BATCH)
    result = f2d("restore", tmp_path / "in", "-o", tmp_path / "together", *options)
    assert result.exit_code == 1 and sizes == [BATCH, 1, 1, 2]
    assert f"{BATCH + 4} restored, 1 failed" in result.stdout
    for path in (tmp_path / "alone").iterdir():
        assert path.read_bytes() == (tmp_path / "together" / path.name).read_bytes(), path.name
