"""Kill trainings and restorations of folders many times: their ends are those of runs that nothing disturbed.

    python -m tests.kills FOLDER --kills 50 --terms 20

Every process is a fork of this one, which has loaded everything and computed nothing: a start takes no time.
"""

import argparse
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file

from f2d.cli.app import main
from f2d.images import to_picture
from f2d.nets import F2DNet
from f2d.training import fit  # noqa: F401, for the forks
from f2d.training.recipe import Recipe, Stage
from tests.nets.small import TINY

PATIENCE = 600  # seconds without any progress


def started(log: Path, *arguments: object) -> int:
    """The process of ``f2d ARGUMENTS``."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), 2)
        sys.argv = ["f2d", *map(str, arguments)]
        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def ended(process: int) -> int:
    """Wait; the exit code, or minus the signal."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def struck(process: int, number: int, due: Callable[[], bool], delay: float) -> int:
    """Send the signal `delay` seconds after `due`; the exit code. AssertionError if the process ended by itself."""
    end = time.monotonic() + PATIENCE
    while not due():
        assert time.monotonic() < end, "no progress"
        assert os.waitpid(process, os.WNOHANG) == (0, 0), "it had ended by itself"
        time.sleep(0.003)
    time.sleep(delay)
    os.kill(process, number)
    return ended(process)


def signals(kills: int, terms: int, draws: random.Random) -> list[int]:
    """In any order."""
    return draws.sample([signal.SIGKILL] * kills + [signal.SIGTERM] * terms, kills + terms)


def state(out: Path) -> int:
    """Steps in the state that a run resumes from."""
    file = out / "last.ckpt"
    return torch.load(file, weights_only=True, mmap=True)["global_step"] if file.exists() else 0


def training(folder: Path, kills: int, terms: int, draws: random.Random) -> str:
    """A run of tiny steps, with a state after every third and a validation after every seventh."""
    data, recipe, log = folder / "photographs", folder / "recipe.yaml", folder / "train.log"
    data.mkdir()
    for i in range(6):
        coarse = torch.rand(1, 3, 5, 6, generator=torch.Generator().manual_seed(i))
        to_picture(torch.nn.functional.interpolate(coarse, (48, 56), mode="bilinear")[0]).save(data / f"{i}.png")
    steps = 10 * (kills + terms) + 10
    changes = {"stages": (Stage(0, 32, 2),), "validate_every": 7, "validation_images": 1, "save_every": 3}
    changes |= {"precision": "32-true", "workers": 0, "warmup_steps": 2, "steps": steps}
    recipe.write_text(Recipe(**changes).to_yaml())
    command = ("train", recipe, "--data", data, "--accelerator", "cpu", "-s", f"initial={folder / 'model'}", "-o")
    whole, cut = folder / "whole", folder / "cut"
    assert ended(started(log, *command, whole)) == 0, log.read_text()
    lost = []
    for number in signals(kills, terms, draws):
        rows = state(cut) + draws.randint(4, 9)  # up to three rows are there of steps that the state does not have

        def due(rows: int = rows) -> bool:
            table = cut / "losses.csv"
            return table.exists() and table.read_bytes().count(b"\n") > rows

        code = struck(started(log, *command, cut, "--resume"), number, due, draws.uniform(0, 0.05))
        assert code == (-signal.SIGKILL if number == signal.SIGKILL else 143), (code, log.read_text())
        done = (cut / "losses.csv").read_bytes().count(b"\n") - 1
        if number == signal.SIGTERM:
            assert state(cut) == done, "a step was lost"
        else:
            lost.append(done - state(cut))
    assert ended(started(log, *command, cut, "--resume")) == 0, log.read_text()
    assert names(cut) == names(whole), (names(cut) ^ names(whole), "left behind or missing")
    for name in ("losses.csv", "history.json", *(str(n) for n in names(whole) if n.endswith(".png"))):
        assert (cut / name).read_bytes() == (whole / name).read_bytes(), name
    for name in ("weights", "best"):
        mine, theirs = (load_file(out / name / "model.safetensors") for out in (cut, whole))
        assert mine.keys() == theirs.keys() and all(torch.equal(mine[key], theirs[key]) for key in mine), name
    return f"training: {steps} steps, at most {max(lost, default=0)} lost by a SIGKILL, none by a SIGTERM"


def names(folder: Path) -> set[str]:
    """Files, but for TensorBoard's, of which every start has one."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {str(path) for path in found if path.parts[0] != "tensorboard"}


def restoring(folder: Path, kills: int, terms: int, draws: random.Random) -> str:
    """A folder of small photographs."""
    photos, log, out = folder / "photos", folder / "restore.log", folder / "restored"
    photos.mkdir()
    number_of = 8 * (kills + terms) + 8
    for i in range(number_of):
        pixels = torch.rand(3, 12 + i % 5, 16, generator=torch.Generator().manual_seed(i))
        to_picture(pixels).save(photos / f"{i:04}.{('png', 'jpg', 'webp')[i % 3]}")
    command = ("restore", photos, "--model", folder / "model", "--device", "cpu", "-o")
    assert ended(started(log, *command, folder / "restored whole")) == 0, log.read_text()
    for number in signals(kills, terms, draws):
        before = len(list(out.glob("0*"))) if out.exists() else 0

        def due(least: int = before + draws.randint(1, 5)) -> bool:
            return out.exists() and len(list(out.glob("0*"))) >= least

        code = struck(started(log, *command, out), number, due, draws.uniform(0, 0.01))
        assert code == (-signal.SIGKILL if number == signal.SIGKILL else 143), (code, log.read_text())
    assert ended(started(log, *command, out)) == 0, log.read_text()
    assert names(out) == names(folder / "restored whole"), "left behind or missing"
    for name in names(out):
        assert (out / name).read_bytes() == (folder / "restored whole" / name).read_bytes(), name
    return f"restoring: {number_of} photographs"


def run() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="A new folder, whose files stay if something is wrong.")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--terms", type=int, default=20)
    asked = parser.parse_args()
    folder, draws = asked.folder.resolve(), random.Random(0)
    (folder / "tmp").mkdir(parents=True)
    os.environ |= {"TMPDIR": str(folder / "tmp"), "TQDM_DISABLE": "1"}
    torch.set_num_threads(1)
    torch.manual_seed(0)
    F2DNet(TINY).save_pretrained(folder / "model")
    for part in (restoring, training):
        start = time.monotonic()
        told = part(folder, asked.kills, asked.terms, draws)
        print(f"{told}; {asked.kills} SIGKILL, {asked.terms} SIGTERM; {time.monotonic() - start:.0f} s", flush=True)
    assert not list((folder / "tmp").iterdir()), list((folder / "tmp").iterdir())


if __name__ == "__main__":
    run()
