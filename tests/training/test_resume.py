"""A run that is killed and resumed is the run that was not, bit for bit."""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from f2d.training.recipe import Stage

pytest.importorskip("lightning", reason="needs the [train] extra")
from f2d.training import fit as training

FILES = ("losses.csv", "history.json", "weights/model.safetensors", "best/model.safetensors")
fit = partial(training.fit, accelerator="cpu")
STAGES = (Stage(0, 32, 4), Stage(11, 40, 2))


def start(recipe: Path, network: str, data: Path, out: Path, *options: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "f2d", "train", str(recipe), "--data", str(data), "-o", str(out)]
    command += ["--accelerator", "cpu", "--set", f"initial={network}", *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen) -> None:
    _, errors = process.communicate(timeout=500)
    assert process.returncode == 0, errors[-2000:]


def kill_after(process: subprocess.Popen, out: Path, rows: int, delay: float) -> bool:
    """SIGKILL `delay` seconds after losses.csv has that many rows; whether the process was still at work."""
    end = time.monotonic() + 500
    while process.poll() is None and time.monotonic() < end:
        if (out / "losses.csv").exists() and (out / "losses.csv").read_bytes().count(b"\n") > rows:
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.002)
    process.communicate()
    return process.returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("kind", "kills"),
    [("learned", 2), *(pytest.param(kind, 5, marks=pytest.mark.slow) for kind in ("f2d", "learned", "resflow"))],
)
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_killed_and_resumed(kind, kills, photographs, small, weights, tmp_path):
    """In stages, in two parts a step, with validations; killed at random moments, some within a save."""
    draws = random.Random(kills)
    recipe = tmp_path / "recipe.yaml"
    steps = 8 + 8 * kills
    changes = {"save_every": 3, "validate_every": 7, "validation_images": 1, "stages": STAGES, "accumulate": 2}
    recipe.write_text(replace(small(kind, steps=steps, **changes), initial=None).to_yaml())
    arguments = (recipe, weights(kind), photographs)
    whole = start(*arguments, tmp_path / "whole")
    killed = 0
    for number in range(kills):
        rows, delay = 8 * number + draws.randint(2, 9), draws.uniform(0, 0.03)
        killed += kill_after(start(*arguments, tmp_path / "cut", "--resume"), tmp_path / "cut", rows, delay)
    assert killed == kills
    finish(start(*arguments, tmp_path / "cut", "--resume"))
    finish(whole)
    assert (tmp_path / "whole" / "losses.csv").read_text().count("\n") == steps + 1
    for name in FILES:
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert not list((tmp_path / "cut").rglob("*.part"))


def test_a_finished_run_goes_on(photographs, small, tmp_path):
    """Resumed as it is, it stays; with more steps, it is the longer run (at a constant rate)."""
    changes = {"warmup_steps": 0, "final_learning_rate": 1e-3, "validate_every": 3, "validation_images": 1}
    short, long = (small(steps=steps, accumulate=2, **changes) for steps in (3, 6))
    fit(short, photographs, tmp_path / "cut")
    before = {name: (tmp_path / "cut" / name).read_bytes() for name in FILES}
    again = fit(short, photographs, tmp_path / "cut", resume=True)
    assert {name: (tmp_path / "cut" / name).read_bytes() for name in FILES} == before
    fit(long, photographs, tmp_path / "cut", resume=True)
    whole = fit(long, photographs, tmp_path / "whole")
    for name in FILES:
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    pairs = list(zip(again.parameters(), whole.parameters()))
    assert not all(torch.equal(a, b) for a, b in pairs)


def test_resuming_with_fewer_steps_than_done_changes_nothing(photographs, small, tmp_path):
    fit(small(steps=3, validate_every=100), photographs, tmp_path / "run")
    before = (tmp_path / "run" / "weights" / "model.safetensors").read_bytes()
    fit(small(steps=2, validate_every=100), photographs, tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "weights" / "model.safetensors").read_bytes() == before
