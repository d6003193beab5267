"""Five hundred files of every kind from a bucket and back, with one of two workers killed in the middle."""

import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import smooth_pixels

pytest.importorskip("ray", reason="needs Ray: pip install 'f2d[ray]'")
pytest.importorskip("pyarrow")

from f2d.cluster import Actors, Storage, restore_on_ray
from f2d.images import Photo, write

from .test_job import contents

NUMBER, BROKEN, GONE = 500, 25, 40
ODD = (
    *("with space", "ünïcode 日本", "100%", "%20", "a+b", "hash#1"),
    *("what?", "[x]", "-o", "a&b=c", 'it\'s "it"', "a..b"),
)


def kinds(pixels: np.ndarray) -> dict[str, Photo | Image.Image]:
    """One picture in every kind, by the end of its name."""
    picture, alpha = Image.fromarray(pixels), pixels[..., 0]
    return {
        ".jpg": picture,
        ".png": picture,
        ".webp": picture,
        ".tif": picture,
        ".avif": picture,
        " deep.png": Photo(pixels.astype(np.uint16) * 251),
        " deep.tiff": Photo(pixels.astype(np.uint16) * 251),
        " grey.png": Image.fromarray(alpha),
        " grey.jpg": Image.fromarray(alpha),
        " alpha.png": Photo(pixels, alpha),
        " alpha.webp": Photo(pixels, alpha),
        ".PNG": picture,
    }


def breakages(data: bytes, i: int) -> bytes:
    """Empty, words, half a file, the header alone, or its end alone."""
    return (b"", b"no picture", data[: len(data) // 2], data[:40], data[-40:])[i % 5]


def make_files(folder: Path) -> set[str]:
    """Write the files; return the places of the broken ones."""
    broken = set()
    for i in range(NUMBER):
        name = f"{'abc'[i % 3]}/{i} {ODD[i // 12 % 12] if i % 7 == 0 else 'plain'}"
        made = kinds(np.roll(smooth_pixels(64, 96), 5 * i, axis=1))
        end = list(made)[i % len(made)]
        path = folder / f"{name}{end}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(made[end], Photo):
            write(made[end], path)
        else:
            made[end].save(path)
        if i % (NUMBER // BROKEN) == 11:
            path.write_bytes(breakages(path.read_bytes(), i // (NUMBER // BROKEN)))
            broken.add(str(path.relative_to(folder)))
    return broken


def kill_a_worker() -> int:
    """Kill one actor of Ray by SIGKILL; return the number of its process."""
    commands = {path.parent.name: path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")}
    number = next(int(number) for number, command in commands.items() if b"ray::MapWorker" in command)
    os.kill(number, signal.SIGKILL)
    return number


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the actor in /proc")
def test_five_hundred_files_from_a_bucket_and_back(cluster, bucket, f2d, tmp_path):
    broken = make_files(tmp_path / "in")
    source = Storage.at(bucket("in"))
    for place, data in contents(str(tmp_path / "in")).items():
        source.write(source.path(place), data)
    errors, killed = {}, []

    def progress(place: str, error: str) -> None:
        errors[place] = error
        if len(errors) == NUMBER // 4:
            killed.append(kill_a_worker())

    def run(progress) -> tuple[int, int, int]:
        given = (bucket("in"), bucket("out"))
        return restore_on_ray(*given, actors=Actors(2), recursive=True, progress=progress)[:3]

    assert run(progress) == (NUMBER - BROKEN, BROKEN, 0) and killed
    assert len(errors) == NUMBER and sum(map(bool, errors.values())) == BROKEN
    for place in broken:  # an .avif becomes a .png
        (error,) = {errors.get(place), errors.get(str(Path(place).with_suffix(".png")))} - {None, ""}
        assert Path(place).stem in error and "\n" not in error

    plain = f2d("restore", tmp_path / "in", "-r", "-o", tmp_path / "plain")
    assert plain.exit_code == 1 and f"{NUMBER - BROKEN} restored, {BROKEN} failed" in plain.stdout
    restored = contents(bucket("out"))
    assert restored == contents(str(tmp_path / "plain")) and len(restored) == NUMBER - BROKEN

    out, gone = Storage.at(bucket("out")), set(sorted(restored)[:: len(restored) // GONE][:GONE])
    for place in gone:
        out.filesystem.delete_file(out.path(place))
    done = []
    assert run(lambda place, error: done.append(place)) == (GONE, BROKEN, NUMBER - BROKEN - GONE)
    assert set(done) == gone | {place for place, error in errors.items() if error}
    assert contents(bucket("out")) == restored
