"""`f2d restore` of videos: beside photographs, interrupted, with and without PyAV."""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import assert_one_line_error

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def without_av(monkeypatch):
    """An installation without the extra."""
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "av" else found(name, *more))


def test_a_video_without_the_extra(f2d, tmp_path, without_av):
    path = tmp_path / "drive.mp4"
    path.write_bytes(b"frames")
    result = f2d("restore", path, "-o", tmp_path / "clear.mp4")
    assert_one_line_error(result, 1, f"{path}: ", "needs PyAV", 'pip install "f2d[video]"')


def test_a_folder_without_the_extra(f2d, model, photo, tmp_path, without_av):
    """The photographs are restored, and one line says what is left out, and why."""
    for name in ("a.mp4", "b.mp4", "c.MOV"):
        (tmp_path / name).write_bytes(b"frames")
    result = f2d("restore", tmp_path, "-o", tmp_path / "out", "--model", model)
    assert result.exit_code == 1 and "1 restored, 0 failed" in result.stdout
    (line,) = result.stderr.strip().splitlines()
    assert "1 .mov, 2 .mp4" in line and 'pip install "f2d[video]"' in line


@pytest.mark.parametrize(
    "name, out, words",
    [
        ("a.mp4", "b.png", ("b.png", ".mp4", "a.mp4 is a video")),
        ("a.mp4", "b.avi", ("b.avi", ".mkv", "a.mp4 is a video")),
        ("a.png", "b.mp4", ("b.mp4", ".png", "a.png is an image")),
        ("a.mp4", "b.gif", ("b.gif",)),
    ],
)
def test_kinds_that_do_not_go_together(f2d, tmp_path, name, out, words):
    (tmp_path / name).write_bytes(b"x")
    assert_one_line_error(f2d("restore", tmp_path / name, "-o", tmp_path / out), 2, *words)


def test_options_of_photographs_alone(f2d, tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"x")
    for options in (("--save-maps",), ("--samples", "2", "--steps", "2")):
        result = f2d("restore", tmp_path / "a.mp4", "-o", tmp_path / "o", *options)
        assert_one_line_error(result, 2, options[0], "a.mp4 is a video")


@pytest.mark.parametrize("options", [("--codec", "h266"), ("--crf", "64"), ("--smooth", "-1")])
def test_values_of_its_options(f2d, tmp_path, options):
    result = f2d("restore", tmp_path / "a.mp4", "-o", tmp_path / "b.mp4", *options)
    assert_one_line_error(result, 2, options[0])


class TestWithPyAV:
    """What needs PyAV."""

    @pytest.fixture(autouse=True)
    def support(self):
        pytest.importorskip("av", reason="needs PyAV (the extra f2d[video]), which is not installed")
        from tests.video import support

        return support

    def test_a_folder_of_photographs_and_videos(self, f2d, model, photo, tmp_path, support):
        (tmp_path / "in" / "deeper").mkdir(parents=True)
        shutil.move(photo, tmp_path / "in" / "a.png")
        support.make_clip(tmp_path / "in" / "b.mp4", audio=["eng"])
        support.make_clip(tmp_path / "in" / "deeper" / "c.avi", codec="mpeg4")
        (tmp_path / "in" / "broken.mkv").write_bytes(b"none")
        arguments = ("restore", tmp_path / "in", "-r", "-o", tmp_path / "out", "--model", model)
        result = f2d(*arguments)
        assert result.exit_code == 1 and "3 restored, 1 failed" in result.stdout
        assert len(result.stderr.strip().splitlines()) == 1 and "broken.mkv: cannot be read as a video" in result.stderr
        written = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*")}
        assert written == {"a.png", "b.mp4", "deeper/c.mkv"}
        (line,) = [line for line in result.stdout.splitlines() if "b.mp4" in line]
        assert "64x48  12 frames  h264" in line and "frames/s" in line and "change" in line
        assert support.times_of(tmp_path / "out" / "b.mp4") == support.times_of(tmp_path / "in" / "b.mp4")
        assert "0 restored, 1 failed, 3 skipped" in f2d(*arguments).stdout
        assert "3 restored" in f2d(*arguments, "--overwrite").stdout

    def test_options_arrive(self, f2d, model, tmp_path, support):
        source = support.make_clip(tmp_path / "a.mp4")
        sizes = []
        for crf in (10, 45):
            out = tmp_path / f"{crf}.mkv"
            options = ("--codec", "h265", "--crf", crf, "--smooth", 0, "--only", "rain", "--model", model)
            result = f2d("restore", source, "-o", out, *options)
            assert result.exit_code == 0 and "h265" in result.stdout
            sizes.append(out.stat().st_size)
        assert sizes[0] > sizes[1]

    def test_two_videos_with_one_output(self, f2d, tmp_path, support):
        for name in ("a.avi", "a.mkv"):
            support.make_clip(tmp_path / name, codec="mpeg4")
        result = f2d("restore", tmp_path / "a.avi", tmp_path / "a.mkv", "-o", tmp_path / "out")
        assert_one_line_error(result, 2, "a.mkv: would be written by", "a.avi")

    @pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_an_interrupted_video_goes_on(self, f2d, model, tmp_path, support, number):
        """Nothing that looks finished is left, and the rerun restores what is missing."""
        source = support.make_clip(tmp_path / "a.mp4")
        out = tmp_path / "out"
        code = (
            "import os, signal\n"
            "from f2d.video import restoring\n"
            "restoring.SEGMENT, count, frame = 5, [], restoring._Work._restored\n"
            "def restored(self, image):\n"
            "    count.append(1)\n"
            f"    if len(count) == 8: os.kill(os.getpid(), {int(number)})\n"
            "    return frame(self, image)\n"
            "restoring._Work._restored = restored\n"
            "from f2d.cli.app import main\nmain()\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, "restore", str(source), "-o", str(out), "--model", model],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        expected = (130, "interrupted\n") if number == signal.SIGINT else (128 + number, "")
        assert (done.returncode, done.stderr) == expected, done
        assert "rerun the command to continue" in done.stdout and "Traceback" not in done.stderr
        assert [path.name for path in out.iterdir() if not path.is_dir()] == []
        result = f2d("restore", source, "-o", out, "--model", model)
        assert result.exit_code == 0 and "12 frames (5 from the interrupted run)" in result.stdout
        assert [path.name for path in out.iterdir()] == ["a.mp4"]
