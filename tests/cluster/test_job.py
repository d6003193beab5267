"""Jobs on a Ray cluster of two processors: counts, errors as rows, resuming, killed actors, bytes of f2d restore."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import assert_one_line_error, smooth_pixels

pytest.importorskip("ray", reason="needs Ray: pip install 'f2d[ray]'")
pytest.importorskip("pyarrow")

from f2d.cluster import Actors, Storage, job, restore_on_ray
from f2d.cluster.job import room
from f2d.cluster.sources import HERE
from f2d.integrations.ray import RestoreImages


def pictures(folder: Path, number: int) -> dict[str, bytes]:
    """Photographs of several formats and sizes in subfolders, every fifth of them broken; name -> contents."""
    for i in range(number):
        path = folder / "abc"[i % 3] / f"{i}{('.png', '.jpg', '.tif')[i % 3]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(smooth_pixels(16 + i % 7, 24)).save(path)
        if i % 5 == 2:
            path.write_bytes(path.read_bytes()[:40])
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.*")}


def contents(uri: str) -> dict[str, bytes]:
    storage = Storage.at(uri)
    return {storage.below(path): storage.read(path) for path in storage.files(recursive=True)}


def test_from_a_bucket_to_a_bucket_as_f2d_restore_does(cluster, bucket, f2d, model, tmp_path):
    given = pictures(tmp_path / "in", 25)
    source = Storage.at(bucket("in"))
    for name, data in given.items():
        source.write(source.path(name), data)
    errors = {}
    outcome = restore_on_ray(
        bucket("in"), bucket("out"), model=model, actors=Actors(2), recursive=True, precision="float32",
        progress=lambda place, error: errors.update({place: error}),
    )  # fmt: skip
    assert (outcome.restored, outcome.failed, outcome.skipped) == (20, 5, 0)
    assert set(errors) == set(given) and sum(bool(error) for error in errors.values()) == 5
    assert all(error.startswith(place) for place, error in errors.items() if error)
    plain = f2d("restore", tmp_path / "in", "-r", "-o", tmp_path / "plain", "--model", model, "--precision", "float32")
    assert plain.exit_code == 1 and "20 restored, 5 failed" in plain.stdout
    assert contents(bucket("out")) == contents(str(tmp_path / "plain"))

    out = Storage.at(bucket("out"))
    out.filesystem.delete_file(out.path("a/0.png"))
    again = restore_on_ray(
        bucket("in"), bucket("out"), model=model, actors=Actors(1), recursive=True, precision="float32"
    )
    assert (again.restored, again.failed, again.skipped) == (1, 5, 19)
    assert contents(bucket("out")) == contents(str(tmp_path / "plain"))


@pytest.mark.skipif(sys.platform != "linux", reason="finds the actor in /proc")
def test_a_killed_actor_costs_nothing(cluster, f2d, model, tmp_path):
    given = pictures(tmp_path / "in", 30)
    killed = []

    def kill(place: str, error: str) -> None:
        if not killed:
            commands = {path.parent.name: path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")}
            killed.append(next(int(number) for number, command in commands.items() if b"ray::MapWorker" in command))
            os.kill(killed[0], signal.SIGKILL)

    outcome = restore_on_ray(
        str(tmp_path / "in"), str(tmp_path / "out"), model=model, actors=Actors(2), recursive=True, progress=kill
    )
    assert killed and (outcome.restored, outcome.failed) == (24, 6) and len(contents(str(tmp_path / "out"))) == 24
    assert not list((tmp_path / "out").rglob("*.part")) and len(given) == 30


def test_an_image_that_kills_its_actor_is_one_failure(cluster, model, tmp_path, monkeypatch):
    """The job ends, and the images beside it in its batch are restored."""

    class Dying(job.RestoreFiles):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self._restore = self  # loads no model, so that it starts quickly

        def restored(self, data, place):
            if place == "a/0.png":
                (tmp_path / "died" / str(os.getpid())).touch()
                os._exit(1)
            return data, 0.0

    monkeypatch.setattr(job, "RestoreFiles", Dying)
    monkeypatch.setattr(job, "RestoreImages", lambda *_, **__: None)
    monkeypatch.setattr(job, "BLOCKS", 1)
    (tmp_path / "died").mkdir()
    pictures(tmp_path / "in", 8)
    errors = {}
    outcome = restore_on_ray(
        str(tmp_path / "in"), str(tmp_path / "out"), model=model, actors=Actors(1), recursive=True,
        progress=lambda place, error: errors.update({place: error}),
    )  # fmt: skip
    assert (outcome.restored, outcome.failed) == (7, 1) and len(errors) == 8
    assert errors["a/0.png"] == "a/0.png: its worker died 3 times, perhaps because it ran out of memory"
    assert len(list((tmp_path / "died").iterdir())) == job.TRIES


def test_the_count_of_tries_is_lost_and_costs_nothing(cluster, model, tmp_path, monkeypatch):
    """As with the machine that it was on."""

    class Losing(job.RestoreFiles):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self._restore = self  # loads no model, so that it starts quickly

        def restored(self, data, place):
            if place == "a/0.png":
                cluster.kill(self._tries, no_restart=False)
            return data, 0.0

    monkeypatch.setattr(job, "RestoreFiles", Losing)
    monkeypatch.setattr(job, "RestoreImages", lambda *_, **__: None)
    pictures(tmp_path / "in", 8)
    outcome = restore_on_ray(str(tmp_path / "in"), str(tmp_path / "out"), model=model, actors=Actors(1), recursive=True)
    assert (outcome.restored, outcome.failed) == (8, 0)


def test_what_cannot_work_is_said_before_any_work(cluster, bucket, model, photo, tmp_path, monkeypatch):
    def refused(match, *, target=str(tmp_path / "out"), address=None):
        with pytest.raises((ValueError, OSError), match=match):
            restore_on_ray(str(photo.parent), target, model=model, address=address, actors=Actors(1))

    refused("there is no bucket named 'nowhere'", target=bucket("out").replace("photos", "nowhere"))
    refused("photo", target=str(photo))
    monkeypatch.setattr(job, "__version__", "0.0.7")
    refused(r"a worker has f2d [\d.]+, but it must have 0\.0\.7, the version of the command")
    monkeypatch.setattr(job.ray, "is_initialized", lambda: False)
    refused("127.0.0.1:9: cannot connect to a Ray cluster there .*refused", address="127.0.0.1:9")
    refused(r"\[::1\]:9: cannot connect to a Ray cluster there .*(refused|assign)", address="[::1]:9")
    refused("nonsense: cannot connect to a Ray cluster there .*Invalid address", address="nonsense")


@pytest.mark.skipif(sys.platform == "win32", reason="whether a process has ended is not known there")
def test_a_run_removes_what_killed_actors_left(cluster, model, tmp_path):
    """At its start, and also if there is nothing to restore."""
    pictures(tmp_path / "in", 1)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = tmp_path / "out" / f".f2d-{HERE}.{ended.pid}.{'0' * 32}.part"
    for number in (1, 0):
        left.parent.mkdir(exist_ok=True)
        left.write_bytes(b"half")
        given = (str(tmp_path / "in"), str(tmp_path / "out"))
        assert restore_on_ray(*given, model=model, actors=Actors(1), recursive=True).restored == number
        assert not left.exists()


def test_the_command(cluster, f2d, model, photo, tmp_path):
    command = ("restore", photo.parent, "--engine", "ray", "--workers", "1", "--model", model, "--format", "jpg")
    done = f2d(*command, "-o", tmp_path / "out")
    assert done.exit_code == 0 and "1 restored, 0 failed; " in done.stdout and "images per second" in done.stdout
    assert (tmp_path / "out" / "photo.jpg").is_file()
    assert "0 restored, 0 failed, 1 skipped" in f2d(*command, "-o", tmp_path / "out").stdout
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "bad.png").write_text("no picture")
    failed = f2d("restore", tmp_path / "bad", "--engine", "ray", "--model", model, "-o", tmp_path / "o")
    assert_one_line_error(failed, 1, "bad.png: is not a readable image")
    for options in (("--save-maps",), ("--crf", "20"), ("--only", "fog")):
        assert_one_line_error(f2d(*command, "-o", tmp_path / "o", *options), 2)
    assert_one_line_error(f2d(*command, "-o", tmp_path / "o.png"), 2, "must be a folder")
    assert_one_line_error(f2d("restore", photo, "-o", tmp_path / "o", "--workers", "2"), 2, "--engine ray")
    Image.open(photo).save(photo.with_suffix(".bmp"))
    assert_one_line_error(f2d(*command, "-o", tmp_path / "o"), 2, "photo.jpg: would be written by")
    assert_one_line_error(f2d("restore", "a", "b", "--engine", "ray", "-o", tmp_path / "o"), 2, "one folder", "got 2")


def test_the_room_for_actors():
    resources = {"CPU": 4.0, "GPU": 1.0}
    assert [room(resources, Actors(None, *share)) for share in ((1, 0), (0.1, 0), (1, 0.25), (0, 0.5))] == [4, 40, 4, 2]
    with pytest.raises(ValueError, match="must reserve CPUs or GPUs"):
        room(resources, Actors(None, 0, 0))
    with pytest.raises(ValueError, match="no resources for an actor with 8 CPUs"):
        room(resources, Actors(None, 8))


def test_batches_of_a_pipeline(model, photo):
    """Encoded images and arrays; a bad row keeps its input, and its error is in the row."""
    restore = RestoreImages(model, precision="float32", format="png")
    batch = {
        "bytes": np.array([photo.read_bytes(), b"nothing"], object),
        "path": np.array(["a.jpg", "b.png"]),
        "id": [1, 2],
    }
    found = restore(batch)
    assert found["id"] == [1, 2] and list(found["error"]) == ["", "b.png: is not a readable image"]
    assert found["bytes"][0][:4] == b"\x89PNG" and found["bytes"][1] == b"nothing"
    arrays = np.empty(2, object)
    arrays[:] = [np.array(Image.open(photo)), np.zeros((0, 3), np.uint8)]
    found = restore({"image": arrays})
    assert found["image"][0].shape == arrays[0].shape and (found["image"][0] != arrays[0]).any()
    assert found["error"][0] == "" and found["error"][1] and found["seconds"][0] > 0
    with pytest.raises(ValueError, match="'bytes' or 'image', got path"):
        restore({"path": ["a"]})
