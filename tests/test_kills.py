"""Training and folders survive SIGKILL and SIGTERM: a few of `tests.kills` here, 50 and 20 in the long sweeps."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("lightning", reason="needs the [train] extra")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX signals")
@pytest.mark.parametrize("kills, terms", [(2, 2), pytest.param(50, 20, marks=pytest.mark.slow)])
def test_killed_again_and_again(kills, terms, tmp_path):
    command = [
        sys.executable,
        "-m",
        "tests.kills",
        str(tmp_path / "runs"),
        "--kills",
        str(kills),
        "--terms",
        str(terms),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(f"{kills} SIGKILL, {terms} SIGTERM") == 2
