"""A photograph that cannot be restored is one line, and the others go on: broken files, full disks, memory, signals."""

import errno
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from f2d import F2DNet
from f2d.images import Photo, read, write
from tests.cli.conftest import assert_one_line_error, smooth_pixels
from tests.images.png_reference import chunk

ROOT = Path(__file__).resolve().parents[2]


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
        "text.jpg": ("text.jpg", "is not a readable image"),
        "cut.png": ("cut.png", "truncated"),
        "empty": ("empty", "contains no photo or video that f2d reads"),
    }.items():
        result = f2d("restore", tmp_path / name, "-o", tmp_path / "out", "--model", model)
        assert_one_line_error(result, 1, *words)
        assert not list(tmp_path.glob("out/*"))


def test_unreadable_pictures_load_no_model(f2d, monkeypatch, tmp_path):
    (tmp_path / "text.jpg").write_text("no picture")
    monkeypatch.setattr(F2DNet, "from_pretrained", lambda *_: pytest.fail("a model was loaded"))
    assert f2d("restore", tmp_path / "text.jpg", "-o", tmp_path / "out").exit_code == 1


def test_a_photograph_beyond_the_memory_given_is_one_line_and_the_others_go_on(f2d, model, photo, tmp_path):
    large = tmp_path / "large.png"
    Image.new("RGB", (1600, 1200)).save(large)
    options = ("--model", model, "--max-memory", "500M")
    result = f2d("restore", large, photo, "-o", tmp_path / "o", *options)
    assert result.exit_code == 1
    assert "large.png: 1600x1200 does not fit into 500 MiB and needs at least" in " ".join(result.output.split())
    assert [path.name for path in (tmp_path / "o").iterdir()] == [photo.name]
    result = f2d("restore", large, "-o", tmp_path / "o", *options, "--exact")
    assert result.exit_code == 0, result.output


def test_a_full_disk_is_one_line_and_leaves_nothing(f2d, model, tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    for name in "abc":
        Image.fromarray(smooth_pixels(8, 8)).save(tmp_path / "in" / f"{name}.png")
    write_bytes, calls = Path.write_bytes, []

    def full_once(path: Path, data: bytes) -> int:
        calls.append(path)
        if len(calls) == 2:
            write_bytes(path, data[:10])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write_bytes(path, data)

    monkeypatch.setattr(Path, "write_bytes", full_once)
    result = f2d("restore", tmp_path / "in", "-o", tmp_path / "out", "--model", model)
    assert_one_line_error(result, 1, "b.png: cannot be written (No space left on device)")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "c.png"]


def test_no_room_for_the_features_of_one_photo_is_one_line(f2d, model, photo, tmp_path, monkeypatch):
    Image.fromarray(smooth_pixels(600, 800)).save(tmp_path / "large.png")
    monkeypatch.setattr("f2d.engine.restorer.shutil.disk_usage", lambda folder: SimpleNamespace(free=0))
    options = ("--model", model, "--max-memory", "500M")
    result = f2d("restore", tmp_path / "large.png", photo, "-o", tmp_path / "o", *options)
    assert_one_line_error(result, 1, "large.png: ", "has no room for")
    assert [path.name for path in (tmp_path / "o").iterdir()] == [photo.name]


def test_a_photo_too_large_for_memory_is_one_line(f2d, model, tmp_path, memory_ends):
    for width in (8, 9):
        Image.fromarray(smooth_pixels(8, width)).save(tmp_path / f"{width}.png")
    memory_ends(8)
    result = f2d("restore", tmp_path / "8.png", tmp_path / "9.png", "-o", tmp_path / "o", "--model", model)
    assert_one_line_error(result, 1, "8.png", "8x8 does not fit into memory")
    assert [path.name for path in (tmp_path / "o").iterdir()] == ["9.png"]


def broken_and_whole(folder: Path, whole: int) -> set[str]:
    """`whole` pictures of all kinds, and 20 files that are none; the names of the whole ones."""
    folder.mkdir()
    names = set()
    suffixes = (".png", ".jpg", ".webp", ".tif", ".bmp")
    for i in range(whole):
        suffix = suffixes[i % 5]
        levels = smooth_pixels(8 + i % 7, 9 + i % 5)
        photo = (Photo(levels), Photo(levels[..., :1]))[i % 2]
        if suffix in (".png", ".tif") and i % 3 == 0:
            photo = photo.as_depth(16)
        write(photo, folder / f"{i:03}{suffix}")
        names.add(f"{i:03}{suffix}")
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    for suffix in suffixes:
        path = folder / f"cut{suffix}"
        write(Photo(noise), path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        (folder / f"text{suffix}").write_text("no picture")
        (folder / f"empty{suffix}").touch()
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    (folder / "bomb.png").write_bytes(bomb)
    nothing = chunk(b"IHDR", struct.pack(">IIBBBBB", 0, 0, 8, 2, 0, 0, 0)) + chunk(b"IEND", b"")
    (folder / "nothing.png").write_bytes(b"\x89PNG\r\n\x1a\n" + nothing)
    Image.fromarray(np.full((4, 4), 255, np.float32)).save(folder / "float.tif")
    os.symlink(folder / "nowhere", folder / "dangling.jpg")
    os.symlink("loop.png", folder / "loop.png")
    return names


def assert_all_done(result, folder: Path, out: Path, names: set[str]) -> None:
    errors = result.stderr.splitlines()
    assert len(errors) == 20 and all(line.startswith(f"error: {folder}") for line in errors), result.stderr
    assert {path.name for path in out.iterdir()} == names


@pytest.mark.skipif(sys.platform == "win32", reason="needs symbolic links")
@pytest.mark.parametrize("whole", [10, pytest.param(100, marks=pytest.mark.slow)])
def test_a_folder_with_20_broken_files(f2d, model, tmp_path, whole):
    names = broken_and_whole(tmp_path / "in", whole)
    result = f2d("restore", tmp_path / "in", "-o", tmp_path / "out", "--model", model)
    assert result.exit_code == 1 and f"{whole} restored, 20 failed" in result.stdout
    assert_all_done(result, tmp_path / "in", tmp_path / "out", names)
    again = f2d("restore", tmp_path / "in", "-o", tmp_path / "out", "--model", model)
    assert again.exit_code == 1 and f"0 restored, 20 failed, {whole} skipped" in again.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_in_the_middle_and_run_again(f2d, model, tmp_path, number, code):
    names = broken_and_whole(tmp_path / "in", 30)
    arguments = ["restore", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--model", model]
    # slow enough for the signal to come in the middle of a write
    slow = (
        "import time; from pathlib import Path; whole = Path.write_bytes\n"
        "def write_bytes(path, data):\n"
        "    whole(path, data[:10]); time.sleep(0.2); return whole(path, data)\n"
        "Path.write_bytes = write_bytes\n"
        "from f2d.cli.app import main\nmain()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", slow, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + 120
    while len(list((tmp_path / "out").glob("0*"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == code, (stdout, stderr)
    finished = {path.name for path in (tmp_path / "out").iterdir()}
    assert 3 <= len(finished) < 30 and finished < names
    for name in finished:
        read(tmp_path / "out" / name)
    if number == signal.SIGINT:
        assert stderr.splitlines()[-1] == "interrupted" and f"{len(finished)} restored" in stdout
    result = f2d(*arguments)
    assert (
        result.exit_code == 1 and f"{30 - len(finished)} restored, 20 failed, {len(finished)} skipped" in result.stdout
    )
    assert_all_done(result, tmp_path / "in", tmp_path / "out", names)
