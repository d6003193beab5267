"""A run that is killed and resumed is the run that was not, bit for bit."""

import csv
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from f2d.training.recipe import Stage

pytest.importorskip("lightning", reason="needs the [train] extra")
from f2d.training import fit as training
from f2d.training.callbacks import LOSSES, LogLosses
from f2d.training.objectives import Objective

FILES = ("losses.csv", "history.json")
NETWORKS = ("weights", "best")
NETWORKS_KILLED = ("f2d", "learned", "muon", "resflow")
fit = partial(training.fit, accelerator="cpu")
STAGES = (Stage(0, 32, 4), Stage(11, 40, 2))


def start(recipe: Path, network: str, data: Path, out: Path, *options: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "f2d", "train", str(recipe), "--data", str(data), "-o", str(out)]
    command += ["--accelerator", "cpu", "--set", f"initial={network}", *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    listening = partial(signal.signal, signal.SIGINT, signal.default_int_handler)  # as of a terminal
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment, preexec_fn=listening if os.name == "posix" else None, **pipes)


def finish(process: subprocess.Popen) -> None:
    _, errors = process.communicate(timeout=500)
    assert process.returncode == 0, errors[-2000:]


def kill_after(process: subprocess.Popen, out: Path, rows: int, delay: float, number: int = signal.SIGKILL) -> int:
    """Send the signal `delay` seconds after losses.csv has that many rows; return the exit code."""
    end = time.monotonic() + 500
    while process.poll() is None and time.monotonic() < end:
        if (out / "losses.csv").exists() and (out / "losses.csv").read_bytes().count(b"\n") > rows:
            time.sleep(delay)
            process.send_signal(number)
            break
        time.sleep(0.002)
    process.communicate(timeout=500)
    return process.returncode


def assert_same(one: Path, other: Path) -> None:
    """Bit for bit; of the weights all but the header of their file, whose entries the library writes in any order."""
    for name in FILES:
        assert (one / name).read_text() == (other / name).read_text(), name
    for name in NETWORKS:
        mine, theirs = (load_file(out / name / "model.safetensors") for out in (one, other))
        assert mine.keys() == theirs.keys()
        assert [key for key in mine if not torch.equal(mine[key], theirs[key])] == [], name


@pytest.mark.parametrize(
    ("kind", "kills"),
    [("learned", 2), ("muon", 2), *(pytest.param(kind, 5, marks=pytest.mark.slow) for kind in NETWORKS_KILLED)],
)
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_killed_and_resumed(kind, kills, photographs, small, weights, tmp_path):
    """In stages, in two parts a step, with validations; killed at random moments, some within a save."""
    draws = random.Random(kills)
    recipe = tmp_path / "recipe.yaml"
    steps = 8 + 8 * kills
    changes = {"save_every": 3, "validate_every": 7, "validation_images": 1, "stages": STAGES, "accumulate": 2}
    if kind == "muon":  # with a rate that is constant before it decays
        kind, changes = "f2d", changes | {"optimizer": "muon", "decay_steps": 9}
    recipe.write_text(replace(small(kind, steps=steps, **changes), initial=None).to_yaml())
    arguments = (recipe, weights(kind), photographs)
    whole = start(*arguments, tmp_path / "whole")
    killed = 0
    for number in range(kills):
        rows, delay = 8 * number + draws.randint(2, 9), draws.uniform(0, 0.03)
        code = kill_after(start(*arguments, tmp_path / "cut", "--resume"), tmp_path / "cut", rows, delay)
        killed += code == -signal.SIGKILL
    assert killed == kills
    finish(start(*arguments, tmp_path / "cut", "--resume"))
    finish(whole)
    assert (tmp_path / "whole" / "losses.csv").read_text().count("\n") == steps + 1
    assert_same(tmp_path / "cut", tmp_path / "whole")
    assert not list((tmp_path / "cut").rglob("*.part"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_asked_to_stop_it_saves_and_ends(number, code, photographs, small, weights, tmp_path):
    """No step is lost, although no state would be saved before the end: the state has every step of losses.csv."""
    recipe, cut = tmp_path / "recipe.yaml", tmp_path / "cut"
    changes = {"save_every": 1000, "validate_every": 7, "validation_images": 1, "stages": STAGES, "accumulate": 2}
    recipe.write_text(replace(small("f2d", steps=24, **changes), initial=None).to_yaml())
    arguments = (recipe, weights("f2d"), photographs)
    whole = start(*arguments, tmp_path / "whole")
    for rows, delay in ((3, 0.01), (6, 0.0), (13, 0.02)):  # the second in the validation of step 7, or beside it
        assert kill_after(start(*arguments, cut, "--resume"), cut, rows, delay, number) == code
        done = torch.load(cut / "last.ckpt", weights_only=True)["global_step"]
        assert rows <= done < rows + 6 and (cut / "losses.csv").read_text().count("\n") == done + 1
    finish(start(*arguments, cut, "--resume"))
    finish(whole)
    assert_same(cut, tmp_path / "whole")
    assert not list(cut.rglob("*.part"))


def test_what_a_killed_drawing_left_is_removed(photographs, small, tmp_path):
    recipe, out = small(steps=4, validate_every=2), tmp_path / "run"
    fit(recipe, photographs, out)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = out / "samples" / f".f2d-0123456789abcdef.{ended.pid}.part"
    ours = out / "samples" / f".f2d-0123456789abcdef.{os.getppid()}.part"  # of a process that is at work
    for path in (left, ours):
        path.write_bytes(b"half a drawing")
    fit(recipe, photographs, out, resume=True)
    assert not left.exists() and ours.exists()


@pytest.mark.parametrize("save_every", [3, 7])
def test_an_interrupted_run_goes_on(save_every, photographs, small, tmp_path, monkeypatch):
    """In one process: with states between validations, and right after one. Each step ends in its first part."""
    changes = {"save_every": save_every, "validate_every": 7, "validation_images": 1, "stages": STAGES}
    recipe = small("f2d", steps=15, accumulate=2, **changes)
    fit(recipe, photographs, tmp_path / "whole")
    call, parts = Objective.__call__, []

    def objective(self, *arguments):
        parts.append(self)
        if len(parts) in (19, 24):
            raise RuntimeError("power cut")
        return call(self, *arguments)

    monkeypatch.setattr(Objective, "__call__", objective)
    for resume in (False, True):
        with pytest.raises(RuntimeError, match="power cut"):
            fit(recipe, photographs, tmp_path / "cut", resume=resume)
    fit(recipe, photographs, tmp_path / "cut", resume=True)
    assert_same(tmp_path / "cut", tmp_path / "whole")


def test_a_finished_run_goes_on(photographs, small, tmp_path):
    """Resumed as it is, it stays; with more steps, it is the longer run, if the rate only falls after the last step."""
    changes = {"warmup_steps": 0, "decay_steps": 1, "validate_every": 3, "validation_images": 1}
    short, long = (small(steps=steps, accumulate=2, **changes) for steps in (3, 6))
    fit(short, photographs, tmp_path / "cut")
    shutil.copytree(tmp_path / "cut", tmp_path / "short")
    again = fit(short, photographs, tmp_path / "cut", resume=True)
    assert_same(tmp_path / "cut", tmp_path / "short")
    fit(long, photographs, tmp_path / "cut", resume=True)
    whole = fit(long, photographs, tmp_path / "whole")
    assert_same(tmp_path / "cut", tmp_path / "whole")
    assert not all(torch.equal(a, b) for a, b in zip(again.parameters(), whole.parameters()))


def test_resuming_with_fewer_steps_than_done_is_refused(photographs, small, tmp_path):
    """The run counted as finished, as if its rate had decayed to the end, and its recipe named the fewer steps."""
    fit(small(steps=3, validate_every=100), photographs, tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=r"steps must be at least 3, the steps that .*run has taken, got 2"):
        fit(small(steps=2, validate_every=100), photographs, tmp_path / "run", resume=True)
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_losses_are_kept_by_their_steps(tmp_path):
    """A table that was begun anew in the middle of a run has no row for each step."""
    lines = ["step,loss,learning_rate,bad_steps", *(f"{step},0.5,0.001,0" for step in (3, 4, 5, 6, 7)), "8,0.", "9,"]
    (tmp_path / LOSSES).write_text("\n".join(lines))
    LogLosses(tmp_path, 5).on_train_start(SimpleNamespace(is_global_zero=True))
    kept = [row[0] for row in csv.reader((tmp_path / LOSSES).open())]
    assert kept == ["step", "3", "4", "5"]
