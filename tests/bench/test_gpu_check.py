"""The logic of bench/gpu_check.sh without a GPU: limits, failures, what is left in the output folder."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "bench" / "gpu_check.sh"
# Stands in for Python on a GPU machine. What fails, or never ends, is named in FAKE.
PYTHON = """#!{python}
import os, sys, time
from pathlib import Path
words = " ".join(sys.argv[1:])
fake = os.environ.get("FAKE", "")
if "is_available" in words:
    sys.exit("no gpu" in fake)
if "get_device_capability" in words:
    print("9.0")
elif "unrunnable" in words:
    print("tests/kernels/test_strange.py hypothesis")
elif "f2d train" in words:
    run = Path(sys.argv[sys.argv.index("-o") + 1])
    if "untrained" not in fake:
        os.utime(run / "last.ckpt", (2**31, 2**31))
    if "large" in fake:
        (run / "large.bin").write_bytes(os.urandom(40 * 2**20))
    print(words)
elif "bench.run" in words:
    print("rows\\nSummary\\nfast")
    Path(sys.argv[sys.argv.index("--json") + 1]).write_text("[]")
else:
    print(words)
    if "long log" in fake and "pytest" in words:
        print("x" * 20 * 2**20)
    sys.exit(3 if "broken tests" in fake and "pytest" in words else 0)
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
    assert list(limits)[:3] == ["machine", "build", "tests"] and list(limits)[-2:] == ["bench", "train"]
    seconds = [int(value) for value in limits.values()]
    assert sum(seconds[:-1]) + 30 * ("sanitizer" not in limits) == 300 and sum(seconds) <= 13 * 60
    assert "synthesis=device" in said and "--resume" in said
    assert files(tmp_path) == {}


def test_all_phases_pass(tmp_path, run):
    code, said = check(tmp_path, *run)
    assert code == 0 and "all passed" in said and "Summary\nfast" in said
    assert "test_strange.py needs hypothesis" in said
    left = files(tmp_path)
    assert set(left) == {"machine.json", "build.log", "tests.log", "sanitizer.log", "bench.json", "bench.txt",
                         "run.tar.gz.00"}  # fmt: skip
    assert "--ignore=tests/kernels/test_strange.py" in (tmp_path / "out" / "tests.log").read_text()
    packed = subprocess.run(["tar", "-tzf", tmp_path / "out" / "run.tar.gz.00"], capture_output=True, text=True).stdout
    assert {"run/last.ckpt", "run/losses.csv", "run/train.log"} <= set(packed.split())
    assert (tmp_path / "run" / "last.ckpt").read_bytes() == b"state"  # a copy was trained


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
])  # fmt: skip
def test_wrong_use_is_explained(tmp_path, arguments, message):
    code, said = check(tmp_path, *(a.format(tmp_path) for a in arguments))
    assert code == 2 and message in said


def test_without_a_gpu_nothing_is_checked(tmp_path):
    code, said = check(tmp_path, fake="no gpu")
    assert code == 2 and "no GPU" in said
