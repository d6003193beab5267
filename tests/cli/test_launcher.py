"""`f2d eval` under torchrun, with a process killed or the launcher terminated in the middle, and run again."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.cli.test_eval import RESULTS, ROOT, contents
from tests.data.conftest import save

PAIRS, PATIENCE = 40, 300


def write_pairs(folder: Path) -> Path:
    """Clean images and the same with noise."""
    draws = np.random.default_rng(0)
    for i in range(PAIRS):
        clean = draws.integers(40, 200, (12, 16, 3)).repeat(16, 0).repeat(16, 1)
        save(clean.astype(np.uint8), folder / "gt" / f"{i:02}.png")
        save((clean + draws.normal(0, 20, clean.shape)).clip(0, 255).astype(np.uint8), folder / "input" / f"{i:02}.png")
    return folder


def process_of(launcher: int, rank: int) -> int:
    """The number of the process that a launcher started for a rank."""
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    (found,) = [int(n) for n in children if f"\0RANK={rank}\0".encode() in Path(f"/proc/{n}/environ").read_bytes()]
    return found


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes in /proc")
@pytest.mark.parametrize("kill", ["a process", "the launcher"])
def test_an_evaluation_is_completed_by_running_it_again(f2d, model, tmp_path, kill):
    data, out = write_pairs(tmp_path / "pairs"), tmp_path / "out"
    arguments = ("eval", model, "--data", data, "--device", "cpu", "--precision", "float32", "-o")
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "f2d"]
    command = [*launch, *map(str, arguments), str(out)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    environ = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def records() -> int:
        return len(list((out / "images").rglob("[!.]*.json")))

    with subprocess.Popen(command, env=environ, **pipes) as launcher:
        end = time.monotonic() + PATIENCE
        while records() < 5:
            assert launcher.poll() is None and time.monotonic() < end, launcher.communicate()
            time.sleep(0.003)
        if kill == "a process":
            os.kill(process_of(launcher.pid, 1), signal.SIGKILL)
        else:
            launcher.terminate()
        _, said = launcher.communicate(timeout=PATIENCE)
    assert launcher.returncode == 1, said
    assert ("Signal 9 (SIGKILL) received by PID" if kill == "a process" else "got signal: 15") in said
    done = records()
    assert 5 <= done < PAIRS and not any((out / name).exists() for name in RESULTS)
    written = {path: path.read_bytes() for path in out.rglob("[!.]*.json")}

    again = subprocess.run(command, env=environ, timeout=PATIENCE, **pipes)
    assert again.returncode == 0, again.stderr
    assert f"{PAIRS} evaluated, 0 failed" in again.stdout
    assert all(path.read_bytes() == data for path, data in written.items()), "evaluated twice"
    assert not list(out.rglob(".f2d-*"))
    assert f2d(*arguments, tmp_path / "alone").exit_code == 0
    assert contents(out) == contents(tmp_path / "alone")
    images = [{p.relative_to(o): p.read_bytes() for p in o.rglob("*.png")} for o in (out, tmp_path / "alone")]
    assert images[0] == images[1] and len(images[0]) == PAIRS
