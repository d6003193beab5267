"""One folder on several ranks: each photograph once, whatever dies."""

import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from PIL import Image

from f2d.cli.ranks import Place, finish, own_device, place_here
from tests.cli.conftest import assert_one_line_error, smooth_pixels
from tests.cli.test_failures import broken_and_whole

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("world", [1, 2, 3, 7, 50])
def test_shares_are_a_partition(world):
    shares = [Place(rank, world, rank).share(range(40)) for rank in range(world)]
    assert sorted(item for share in shares for item in share) == list(range(40))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_shares_do_not_depend_on_what_was_done_meanwhile(tmp_path):
    from f2d.cli.files import Job
    from f2d.cli.restore import _largest_first

    files = [tmp_path / f"{i}.png" for i in range(4)]
    for path, size in zip(files, (5, 30, 20, 5)):
        path.write_bytes(bytes(size))
    elsewhere = [Job(path, tmp_path / "out" / path.name) for path in files]
    assert [job.source.stem for job in _largest_first(elsewhere)] == ["1", "2", "0", "3"]
    in_place = [Job(path, path) for path in files]
    before = _largest_first(in_place)
    files[0].write_bytes(bytes(100))
    assert _largest_first(in_place) == before


def test_place_comes_from_the_launcher():
    assert place_here({}) == place_here({"RANK": "3"}) == (0, 1, 0)
    assert place_here({"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}) == (3, 8, 1)
    assert place_here({"RANK": "3", "WORLD_SIZE": "8"}) == (3, 8, 3)


def test_processes_of_srun_are_told_that_they_all_do_the_same(capsys):
    """They all restored every photograph, and nothing said so."""
    of_srun = {"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "4"}
    assert place_here(of_srun) == (0, 1, 0)
    warning = capsys.readouterr().err
    assert "warning: srun started 4 processes" in warning and "RANK=$SLURM_PROCID WORLD_SIZE=$SLURM_NTASKS" in warning
    batch_script = {"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}
    split = {"RANK": "0", "WORLD_SIZE": "4"}
    for environ in (of_srun | {"SLURM_PROCID": "1"}, of_srun | {"SLURM_STEP_NUM_TASKS": "1"}, batch_script):
        assert place_here(environ) == (0, 1, 0)
    assert place_here(of_srun | split) == (0, 4, 0)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("rank, world", [("8", "8"), ("-1", "2"), ("one", "2"), ("0", "0")])
def test_a_place_that_makes_no_sense_is_one_line(f2d, photo, tmp_path, monkeypatch, rank, world):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", world)
    assert_one_line_error(f2d("restore", photo, "-o", tmp_path / "o"), 2, "RANK", "WORLD_SIZE")


def test_each_rank_has_its_own_gpu(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert [own_device("auto", Place(rank, 8, rank % 4)) for rank in (0, 3, 5)] == ["cuda:0", "cuda:3", "cuda:1"]
    assert own_device("cuda", Place(6, 8, 2)) == "cuda:2"
    assert own_device("cpu", Place(6, 8, 2)) == "cpu" and own_device("auto", Place(0, 1, 0)) == "auto"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert own_device("auto", Place(1, 2, 1)) == "auto"


def start(rank: int, *arguments: object, before: str = "") -> subprocess.Popen:
    code = f"{before}\nfrom f2d.cli.app import main\nmain()\n"
    return subprocess.Popen(
        [sys.executable, "-c", code, "restore", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)},
    )


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals and symbolic links")
@pytest.mark.parametrize("whole", [16, pytest.param(100, marks=pytest.mark.slow)])
def test_two_ranks_one_killed_and_run_again(f2d, model, tmp_path, whole):
    names = broken_and_whole(tmp_path / "in", whole)
    out = tmp_path / "out"
    arguments = (tmp_path / "in", "-o", out, "--model", model)
    # rank 1 stops for ever in the middle of its fourth write
    hang = (
        "import time; from pathlib import Path; whole, calls = Path.write_bytes, []\n"
        "def write_bytes(path, data):\n"
        "    calls.append(path)\n"
        "    if len(calls) == 4: whole(path, data[:10]); time.sleep(600)\n"
        "    return whole(path, data)\n"
        "Path.write_bytes = write_bytes\n"
    )
    first, second = start(0, *arguments), start(1, *arguments, before=hang)
    stdout, stderr = first.communicate(timeout=120)
    assert "rank 0 of 2: " in stdout and first.returncode == (1 if stderr else 0), (stdout, stderr)
    deadline = time.monotonic() + 120
    while not (len(list(out.glob("[0-9]*"))) == whole // 2 + 3 or time.monotonic() > deadline):
        time.sleep(0.05)
    second.kill()
    second.communicate()
    finished = {path.name for path in out.iterdir() if not path.name.startswith(".")}
    assert finished < names and len(finished) == whole // 2 + 3

    processes = [start(rank, *arguments) for rank in (0, 1)]
    results = [process.communicate(timeout=120) for process in processes]
    found = [re.search(r"rank (\d) of 2: (\d+) restored, (\d+) failed", stdout) for stdout, _ in results]
    errors = [len(stderr.splitlines()) for _, stderr in results]
    assert [int(match[3]) for match in found if match] == errors and sum(errors) == 20, results
    assert [process.returncode for process in processes] == [int(number > 0) for number in errors]
    assert sum(int(match[2]) for match in found if match) == whole - len(finished)
    assert {path.name for path in out.iterdir()} == names


def test_a_rank_without_work_and_a_missing_file(model, photo, tmp_path):
    """The same command on both: its mistakes are said once, and a process without work says nothing."""
    processes = [start(rank, photo, tmp_path / "nope.png", "-o", tmp_path / "o", "--model", model) for rank in (0, 1)]
    (stdout, stderr), (other_out, other_err) = (process.communicate(timeout=120) for process in processes)
    assert [process.returncode for process in processes] == [1, 0]
    assert stderr == f"error: {tmp_path / 'nope.png'}: no such file or folder\n" and other_err == "" and other_out == ""
    assert "rank 0 of 2: 1 restored, 1 failed" in stdout
    assert [path.name for path in (tmp_path / "o").iterdir()] == ["photo.png"]


def test_a_rank_with_a_failure_waits_for_the_others(monkeypatch):
    """torchrun stops all processes when one exits with an error: a single broken file ended the work of the others."""
    from torch.distributed import TCPStore

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # that of the launcher
    environ = {"TORCHELASTIC_USE_AGENT_STORE": "True", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
    for name, value in (environ | {"RANK": "0", "WORLD_SIZE": "3"}).items():
        monkeypatch.setenv(name, value)
    finish(Place(1, 3, 1), failed=False)  # one that restored everything need not wait
    waiting = threading.Thread(target=finish, args=(Place(0, 3, 0),), kwargs={"failed": True}, daemon=True)
    waiting.start()
    waiting.join(1)
    assert waiting.is_alive()
    finish(Place(2, 3, 2), failed=False)
    waiting.join(30)
    assert not waiting.is_alive()


@pytest.mark.slow
def test_a_broken_file_under_torchrun(model, tmp_path):
    """Rank 0 has only the broken file left, and is done before rank 1 has loaded the model."""
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    for i in range(6):
        Image.fromarray(smooth_pixels(8, 28 - i)).save(tmp_path / "in" / f"{i}.bmp")  # in the order of their sizes
    for i in (0, 2, 4):
        (tmp_path / "out" / f"{i}.bmp").touch()
    (tmp_path / "in" / "broken.bmp").write_text("no picture")
    done = _under_torchrun(tmp_path, model)
    assert done.returncode == 1 and "rank 0 of 2: 0 restored, 1 failed, 3 skipped" in done.stdout, done
    assert "rank 1 of 2: 3 restored, 0 failed" in done.stdout
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"{i}.bmp" for i in range(6)]


@pytest.mark.slow
def test_under_torchrun(model, tmp_path):
    (tmp_path / "in").mkdir()
    for i in range(7):
        Image.fromarray(smooth_pixels(8, 8 + i)).save(tmp_path / "in" / f"{i}.png")
    (tmp_path / "in" / "text.png").write_text("no picture")
    done = _under_torchrun(tmp_path, model)
    assert done.returncode != 0 and done.stdout.count(" restored, ") == 2, done
    assert len(list((tmp_path / "out").iterdir())) == 7


def _under_torchrun(folder, model):
    """Restore in/ to out/ with two processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "f2d", "restore"]
    return subprocess.run(
        [*command, str(folder / "in"), "-o", str(folder / "out"), "--model", model],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
