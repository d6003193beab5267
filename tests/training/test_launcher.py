"""SIGTERM to torchrun, as a scheduler sends it: its processes save and end, and the same command goes on from there."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from f2d.images import read
from f2d.training.recipe import Stage
from tests.cli.conftest import model, smooth_pixels  # noqa: F401
from tests.training.test_resume import assert_same

pytest.importorskip("lightning", reason="needs the [train] extra")
pytestmark = [
    pytest.mark.slow,  # five starts of torchrun with two processes each
    pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals"),
]
ROOT = Path(__file__).resolve().parents[2]
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "f2d")
PATIENCE = 500  # seconds


def torchrun(log: Path, *arguments: object) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    with log.open("w") as output:
        return subprocess.Popen([*TORCHRUN, *map(str, arguments)], stdout=output, stderr=output, env=environment)


def terminated(process: subprocess.Popen, due: Callable[[], bool], log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while not due():
        assert process.poll() is None and time.monotonic() < end, log.read_text()
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) != 0, log.read_text()


def rows(out: Path) -> int:
    return (out / "losses.csv").read_bytes().count(b"\n") - 1 if (out / "losses.csv").exists() else 0


def parts(folder: Path) -> list[Path]:
    return list(folder.rglob("*.part"))


def test_two_processes_that_train(photographs, small, weights, tmp_path):
    recipe, log = tmp_path / "recipe.yaml", tmp_path / "log"
    changes = {"stages": (Stage(0, 32, 2),), "steps": 40, "validate_every": 20, "validation_images": 2}
    recipe.write_text(small("learned", save_every=1000, warmup_steps=0, **changes).to_yaml())
    command = ("train", recipe, "--data", photographs, "--accelerator", "cpu", "-o")
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    terminated(torchrun(log, *command, cut), lambda: rows(cut) >= 5, log)
    saved = torch.load(cut / "last.ckpt", weights_only=True, mmap=True)["global_step"]
    assert 5 <= saved == rows(cut) < 40, log.read_text()
    assert not parts(cut)
    for out, more in ((cut, ("--resume",)), (whole, ())):
        assert torchrun(log, *command, out, *more).wait(PATIENCE) == 0, log.read_text()
    assert_same(cut, whole)


def test_two_processes_that_restore_a_folder(model, tmp_path):  # noqa: F811
    log, out = tmp_path / "log", tmp_path / "out"
    (tmp_path / "in").mkdir()
    for i in range(400):
        Image.fromarray(np.roll(smooth_pixels(64, 96), i, axis=1)).save(tmp_path / "in" / f"{i}.png")
    command = ("restore", tmp_path / "in", "-o", out, "--model", model, "--device", "cpu")

    def written() -> list[Path]:
        return list(out.glob("[0-9]*.png"))

    terminated(torchrun(log, *command), lambda: len(written()) >= 5, log)
    assert 5 <= len(written()) < 400 and not parts(out), log.read_text()
    first = {path: path.read_bytes() for path in written()}
    for path in first:
        assert read(path).size == (96, 64)
    assert torchrun(log, *command).wait(PATIENCE) == 0, log.read_text()
    assert len(written()) == 400 and not parts(out)
    assert f"{len(first)} skipped" in log.read_text() or log.read_text().count(" skipped") == 2
    assert all(path.read_bytes() == data for path, data in first.items())
