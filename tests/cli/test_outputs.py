"""What `f2d restore` writes, and how: formats, depth, metadata, samples, strengths, full disks, many files."""

import errno
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from f2d.cli.quantities import size_in_bytes
from f2d.images import Photo, read, write
from f2d.restorer import Restorer
from tests.cli.conftest import assert_one_line_error, smooth_pixels
from tests.nets.small import TINY

ROOT = Path(__file__).resolve().parents[2]


def smooth16(height: int, width: int) -> np.ndarray:
    return smooth_pixels(height, width).astype(np.uint16) * 257 + np.arange(width, dtype=np.uint16)[:, None] % 7


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("grey", [False, True])
def test_16_bits_go_through_the_model_unrounded(f2d, model, tmp_path, suffix, grey):
    levels = smooth16(12, 16)[..., :1] if grey else smooth16(12, 16)
    write(Photo(levels), tmp_path / f"a{suffix}")
    out = tmp_path / f"b{suffix}"
    options = ("--model", model, "--precision", "float32", "--seed", 3)
    assert f2d("restore", tmp_path / f"a{suffix}", "-o", out, *options).exit_code == 0
    image = torch.from_numpy(levels.astype(np.float32) / 65535).permute(2, 0, 1).expand(3, -1, -1).contiguous()
    expected = Restorer.load(model, precision="float32")(image, seed=3).image
    if grey:
        expected = (0.299 * expected[0] + 0.587 * expected[1] + 0.114 * expected[2])[None]
    restored = read(out)
    assert restored.depth == 16 and restored.grey == grey
    assert np.abs(restored.levels - 65535 * expected.permute(1, 2, 0).clamp(0, 1).numpy()).max() < 1
    assert len(np.unique(restored.levels % 257)) > 20  # no 8-bit picture made wider


def test_metadata_comes_through(f2d, model, tmp_path):
    exif = Image.Exif()
    exif[274], exif[315] = 6, "Ada"
    Image.fromarray(smooth_pixels(12, 20)).save(tmp_path / "a.jpg", exif=exif, dpi=(300, 300), icc_profile=b"profile")
    assert f2d("restore", tmp_path / "a.jpg", "-o", tmp_path / "o", "--format", "tiff", "--model", model).exit_code == 0
    with Image.open(tmp_path / "o" / "a.tiff") as image:
        image.load()
        assert image.size == (12, 20) and image.getexif()[315] == "Ada"
        assert image.info["icc_profile"] == b"profile" and image.info["dpi"] == (300, 300)


@pytest.mark.parametrize(
    "name, kind", [("jpg", "JPEG"), ("png", "PNG"), ("webp", "WEBP"), ("tiff", "TIFF"), ("bmp", "BMP")]
)
def test_format(f2d, model, photo, tmp_path, name, kind):
    assert f2d("restore", photo, "-o", tmp_path / "o", "--format", name, "--model", model).exit_code == 0
    with Image.open(tmp_path / "o" / f"photo.{name}") as image:
        assert image.format == kind
    assert len(list((tmp_path / "o").iterdir())) == 1


def test_quality_changes_the_size(f2d, model, photo, tmp_path):
    for quality in (20, 90):
        options = ("--format", "jpg", "--quality", quality, "--model", model)
        assert f2d("restore", photo, "-o", tmp_path / str(quality), *options).exit_code == 0
    small, large = ((tmp_path / q / "photo.jpg").stat().st_size for q in ("20", "90"))
    assert small < large


@pytest.mark.parametrize(
    "options, words",
    [
        (("--format", "gif"), ("gif", "png")),
        (("--quality", "0"), ("--quality",)),
        (("--quality", "80", "--format", "png"), ("--quality", "png")),
        (("--format", "jpg"), ("o.png", "jpg")),
        (("--samples", "1", "--steps", "4"), ("--samples", "two")),
        (("--samples", "4"), ("--samples", "--steps above 1")),
        (("--only", "rain,fog"), ("fog", "rain")),
        (("--only", ""), ("--only", "rain,haze")),
        (("--strength", "low"), ("--strength low", "low=0.5")),
        (("--strength", "low=much"), ("--strength low=much",)),
        (("--strength", "low=-1"), ("low", "-1")),
        (("--strength", "low=nan"), ("low", "nan")),
        (("--strength", "fog=1"), ("fog", "rain")),
        (("--strength", "low=1", "--strength", "low=2"), ("low", "twice")),
        (("--max-memory", "4 elephants"), ("--max-memory", "4G")),
    ],
)
def test_wrong_options_load_no_weights(f2d, model, photo, tmp_path, monkeypatch, options, words):
    from f2d import F2DNet

    monkeypatch.setattr(F2DNet, "from_pretrained", lambda *_: pytest.fail("a model was loaded"))
    assert_one_line_error(f2d("restore", photo, "-o", tmp_path / "o.png", "--model", model, *options), 2, *words)
    assert not (tmp_path / "o.png").exists()


@pytest.mark.parametrize("text, value", [("4G", 4 * 2**30), ("512m", 2**29), ("1.5GiB", 3 * 2**29), ("800000", 800000)])
def test_sizes_in_bytes(text, value):
    assert size_in_bytes(text) == value


def test_a_photograph_beyond_the_memory_given_is_one_line_and_the_others_go_on(f2d, model, photo, tmp_path):
    large = tmp_path / "large.png"
    Image.new("RGB", (1600, 1200)).save(large)
    options = ("--model", model, "--max-memory", "500M")
    result = f2d("restore", large, photo, "-o", tmp_path / "o", *options)
    assert result.exit_code == 1
    assert "large.png: 1600x1200 does not fit into 500 MiB; give at least" in " ".join(result.output.split())
    assert [path.name for path in (tmp_path / "o").iterdir()] == [photo.name]
    result = f2d("restore", large, "-o", tmp_path / "o", *options, "--exact")
    assert result.exit_code == 0, result.output


def test_only_and_strength_reach_the_experts(f2d, model, photo, tmp_path):
    def restored(name: str, *options: object) -> np.ndarray:
        out = tmp_path / f"{name}.png"
        result = f2d("restore", photo, "-o", out, "--model", model, "--precision", "float32", *options)
        assert result.exit_code == 0, result.output
        return read(out).levels.astype(int)

    others = [factor for factor in TINY.factors if factor != "rain"]
    full, alone = restored("full"), restored("alone", "--only", "rain")
    off = [argument for factor in others for argument in ("--strength", f"{factor}=0")]
    assert np.array_equal(alone, restored("off", *off)) and not np.array_equal(alone, full)
    assert np.array_equal(full, restored("all", "--only", ",".join(TINY.factors)))
    assert not np.array_equal(full, restored("half", "--strength", "rain=0.5"))


def test_samples(f2d, model, photo, tmp_path):
    options = ("--model", model, "--steps", 3, "--precision", "float32")
    assert f2d("restore", photo, "-o", tmp_path / "o.png", *options, "--samples", 3, "--seed", 11).exit_code == 0
    assert sorted(path.name for path in tmp_path.glob("o.png*")) == [
        "o.png", "o.png_sample_1.png", "o.png_sample_2.png", "o.png_sample_3.png", "o.png_std.png",
    ]  # fmt: skip
    samples = np.stack([read(tmp_path / f"o.png_sample_{k}.png").levels for k in (1, 2, 3)]).astype(float)
    assert np.abs(samples[0] - samples[1]).max() > 1 and np.abs(samples[1] - samples[2]).max() > 1
    deviation = read(tmp_path / "o.png_std.png")
    assert deviation.depth == 16
    assert np.abs(read(tmp_path / "o.png").levels - samples.mean(axis=0)).max() <= 1
    assert np.abs(deviation.levels / 257 - samples.std(axis=0, ddof=1)).max() < 0.6  # the samples are rounded
    for k in (1, 2, 3):  # each is what its seed gives
        assert f2d("restore", photo, "-o", tmp_path / f"{k}.png", *options, "--seed", 10 + k).exit_code == 0
        assert (tmp_path / f"{k}.png").read_bytes() == (tmp_path / f"o.png_sample_{k}.png").read_bytes()


def test_the_change_is_reported(f2d, model, photo, tmp_path):
    result = f2d("restore", photo, "-o", tmp_path / "o.png", "--model", model)
    difference = np.abs(read(tmp_path / "o.png").levels.astype(int) - read(photo).levels)
    assert f"change {difference.mean():.1f} levels, at most {difference.max()}" in result.stdout


def test_a_seed_of_64_bits(f2d, model, photo, tmp_path):
    result = f2d("restore", photo, "-o", tmp_path / "o.png", "--model", model, "--seed", 2**64 - 1)
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


def test_a_photo_too_large_for_memory_is_one_line(f2d, model, tmp_path, monkeypatch):
    for width in (8, 9):
        Image.fromarray(smooth_pixels(8, width)).save(tmp_path / f"{width}.png")
    call = Restorer.__call__

    def limited(restorer, image, **options):
        if image.shape[-1] == 8:
            raise RuntimeError(
                "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory"
            )
        return call(restorer, image, **options)

    monkeypatch.setattr(Restorer, "__call__", limited)
    result = f2d("restore", tmp_path / "8.png", tmp_path / "9.png", "-o", tmp_path / "o", "--model", model)
    assert_one_line_error(result, 1, "8.png", "8x8 does not fit into memory")
    assert [path.name for path in (tmp_path / "o").iterdir()] == ["9.png"]


def test_small_photos_of_one_size_go_together_and_come_out_the_same(f2d, model, tmp_path, monkeypatch):
    """On a GPU; here a CPU is taken for one."""
    from f2d.cli.restoring import BATCH, Restoring

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
    monkeypatch.setattr(Restoring, "_load", lambda self: setattr(self, "_together", BATCH) or self._load_restorer())
    result = f2d("restore", tmp_path / "in", "-o", tmp_path / "together", *options)
    assert result.exit_code == 1 and sizes == [BATCH, 1, 1, 2]
    assert f"{BATCH + 4} restored, 1 failed" in result.stdout
    for path in (tmp_path / "alone").iterdir():
        assert path.read_bytes() == (tmp_path / "together" / path.name).read_bytes(), path.name


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
    from tests.images.png_reference import chunk

    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    (folder / "bomb.png").write_bytes(bomb)
    nothing = chunk(b"IHDR", struct.pack(">IIBBBBB", 0, 0, 8, 2, 0, 0, 0)) + chunk(b"IEND", b"")
    (folder / "nothing.png").write_bytes(b"\x89PNG\r\n\x1a\n" + nothing)
    Image.fromarray(np.ones((4, 4), np.float32)).save(folder / "float.tif")
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
