"""The logic of bench/gpu_check.sh without a GPU: limits, failures, what is left in the output folder."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench.gpu_check import at_once

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "bench" / "gpu_check.sh"
# Stands in for Python on a GPU machine. What fails, or never ends, is named in FAKE.
PYTHON = """#!{python}
import os, sys, time
from pathlib import Path
words = " ".join(sys.argv[1:])
fake = os.environ.get("FAKE", "")
if "is_available" in words:
    sys.exit("no torch: No module named torch" if "no torch" in fake else "no gpu" in fake)
if "get_device_capability" in words:
    print("9.0")
elif "build_ext" in words and "no nvcc" in fake:
    print("f2d_kernels: the cuda part is left out: no nvcc")
elif "f2d train" in words or "f2d finetune" in words:
    run = Path(sys.argv[sys.argv.index("-o") + 1])
    if "untrained" not in fake:
        (run / "last.ckpt").touch()
        (run / "losses.csv").touch()
        os.utime(run / "last.ckpt", (2**31, 2**31))
    if "large" in fake:
        (run / "large.bin").write_bytes(os.urandom(40 * 2**20))
    print(words)
elif "bench.run" in words:
    print("rows\\nSummary\\nfast")
    Path(sys.argv[sys.argv.index("--json") + 1]).write_text("[]")
else:
    print(words)
    if "long log" in fake and "tests" in sys.argv:
        print("x" * 20 * 2**20)
    sys.exit(3 if "broken tests" in fake and "tests" in sys.argv else 0)
"""


def check(folder: Path, *arguments: str, fake: str = "") -> tuple[int, str]:
    python = folder / "python"
    python.write_text(PYTHON.format(python=sys.executable))
    python.chmod(0o755)
    environ = {**os.environ, "PYTHON": str(python), "FAKE": fake, "CUDA_HOME": str(folder)}
    done = subprocess.run(["bash", SCRIPT, folder / "out", *arguments], env=environ, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def run(tmp_path) -> list[str]:
    """A run to continue, and photographs."""
    (tmp_path / "run").mkdir()
    (tmp_path / "photographs").mkdir()
    (tmp_path / "run" / "last.ckpt").write_bytes(b"state")
    (tmp_path / "run" / "recipe.yaml").write_text("steps: 5\n")
    (tmp_path / "run" / "losses.csv").write_text("step\n")
    return ["--train", str(tmp_path / "run"), "--data", str(tmp_path / "photographs")]


def files(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in (folder / "out").iterdir()}


def test_limits_add_up_to_five_and_to_thirteen_minutes(tmp_path, run):
    code, said = check(tmp_path, "--dry-run", *run, fake="no gpu")
    limits = dict(re.findall(r"== (\w+), at most (\d+) s", said))
    assert code == 0 and "nothing was checked" in said
    assert list(limits)[:5] == ["machine", "build", "calls", "bench", "tests"] and list(limits)[-1] == "train"
    seconds = [int(value) for value in limits.values()]
    assert sum(seconds[:-1]) + 20 * ("sanitizer" not in limits) == 300 and sum(seconds) <= 13 * 60
    assert "synthesis=device" in said and "--resume" in said
    assert files(tmp_path) == {}


def test_training_fits_the_minutes_that_there_are(tmp_path, run):
    said = check(tmp_path, "--dry-run", "--minutes", "9", *run)[1]
    assert "== train, at most 180 s" in said  # the checks take at most 300 s and packing 60


def test_all_phases_pass(tmp_path, run):
    code, said = check(tmp_path, *run)
    assert code == 0 and "all passed" in said and "Summary\nfast" in said
    left = files(tmp_path)
    assert set(left) == {"build.log", "calls.log", "tests.log", "bench.json", "compiled.json", "bench.txt",
                         "run.tar.gz.00"}  # fmt: skip
    packed = subprocess.run(["tar", "-tzf", tmp_path / "out" / "run.tar.gz.00"], capture_output=True, text=True).stdout
    assert {"run/last.ckpt", "run/losses.csv", "run/train.log"} <= set(packed.split())
    assert (tmp_path / "run" / "last.ckpt").read_bytes() == b"state"  # a copy was trained


def test_weights_are_trained_on(tmp_path, run):
    """A finished run has no step left to resume; its best weights are fine-tuned."""
    code, said = check(tmp_path, "--finetune", "f2d-lite", *run[2:])
    assert code == 0 and "all passed" in said
    packed = subprocess.run(["tar", "-xzOf", tmp_path / "out" / "run.tar.gz.00", "run/train.log"], capture_output=True,
                            text=True).stdout  # fmt: skip
    assert "f2d finetune f2d-lite" in packed and "synthesis=device" in packed and "--resume" not in packed


def test_a_machine_without_nvcc_checks_the_rest(tmp_path):
    code, said = check(tmp_path, fake="no nvcc")
    assert code == 0 and "the cuda part is left out: no nvcc" in said and "Summary" in said


def test_a_failure_is_named_and_the_rest_still_runs(tmp_path):
    code, said = check(tmp_path, fake="broken tests")
    assert code == 1 and "FAILED: tests" in said and "Summary\nfast" in said


def test_a_training_that_saves_no_step_has_failed(tmp_path, run):
    code, said = check(tmp_path, *run, fake="untrained")
    assert code == 1 and "no step was saved" in said and "FAILED: train" in said


def test_what_is_left_is_at_most_eight_files_of_16_mib(tmp_path, run):
    code, said = check(tmp_path, *run, fake="large, long log")
    left = files(tmp_path)
    assert code == 0 and len(left) <= 8 and max(left.values()) <= 16 * 2**20
    assert "only its last.ckpt is kept" in said
    packed = subprocess.run(["tar", "-tzf", tmp_path / "out" / "run.tar.gz.00"], capture_output=True, text=True).stdout
    assert packed.split() == ["last.ckpt", "losses.csv"]


@pytest.mark.parametrize(("arguments", "message"), [
    (["--train", "nowhere"], "no folder 'nowhere'"), (["--fast"], "unknown option --fast"),
    (["again"], "two output folders"),
    (["--train", "{}"], "needs --data"), (["--train", "{}", "--data", "{}"], "has no last.ckpt"),
    (["--finetune", "f2d-lite"], "needs --data"), (["--minutes", "many"], "needs a whole number"),
    (["--finetune", "f2d-lite", "--data", "{}", "--minutes", "5"], "training needs --minutes 8"),
    (["--finetune", "f2d-lite", "--train", "{}", "--data", "{}"], "exclude each other"),
])  # fmt: skip
def test_wrong_use_is_explained(tmp_path, arguments, message):
    code, said = check(tmp_path, *(a.format(tmp_path) for a in arguments))
    assert code == 2 and message in said


@pytest.mark.parametrize(("fake", "why"), [("no gpu", "cannot use a GPU"), ("no torch", "No module named torch")])
def test_without_a_gpu_nothing_is_checked(tmp_path, fake, why):
    code, said = check(tmp_path, fake=fake)
    assert code == 2 and why in said


def say(text: str, code: int = 0, seconds: float = 0) -> list[str]:
    return [
        sys.executable,
        "-c",
        f"import time, sys; print({text!r}, flush=True); time.sleep({seconds}); sys.exit({code})",
    ]


def test_commands_at_once_are_named_stopped_and_counted(capsys):
    """Each command's output is printed; one that ends badly, or not in time, is bad."""
    assert at_once({"good": say("one"), "bad": say("two", 3)}) == 1
    said = capsys.readouterr().out
    assert "== good: passed\none" in said and "== bad: failed, exit code 3\ntwo" in said
    assert at_once({"long": say("begun", seconds=60)}, seconds=3) == 1
    said = capsys.readouterr().out
    assert "== long: stopped, no time left\nbegun" in said
    assert at_once({"killed": ["sh", "-c", "kill -9 $$"]}, seconds=60) == 1
    assert "== killed: failed, exit code -9" in capsys.readouterr().out  # by something else than the limit
    assert at_once({"late": say("never")}, seconds=0) == 1
    assert "== late: skipped, no time left" in capsys.readouterr().out
