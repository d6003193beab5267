"""Damaged files of every format through `f2d restore`: a few of `tests.mutants` here, 2,000 in the long sweeps."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pillow_heif")
pytest.importorskip("resource", reason="needs POSIX")


@pytest.mark.parametrize("count", [86, pytest.param(2000, marks=pytest.mark.slow)])
def test_one_line_for_every_damaged_file(count, tmp_path):
    command = [sys.executable, "-m", "tests.mutants", str(tmp_path / "mutants"), "--count", str(count)]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, env=os.environ.copy())
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{count} mutated files" in done.stdout and "one line each" in done.stdout
