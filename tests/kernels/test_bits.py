"""The cpp backend gives the same bits on every instruction set and with any number of threads."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from f2d_kernels import backends

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(backends()["cpp"] != "available", reason=f"cpp: {backends()['cpp']}")


@functools.cache
def digests(level: str, threads: int) -> dict[str, str]:
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "F2D_KERNELS_SIMD": level}
    environ.pop("OMP_NUM_THREADS", None)
    command = [sys.executable, str(ROOT / "tests" / "kernels" / "bits.py"), str(threads)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True)
    if "this processor does not have it" in done.stderr:
        pytest.skip(f"this processor has no {level}")
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def assert_same(first: dict[str, str], second: dict[str, str]) -> None:
    # every case is there, and most have their own bits (one layout may give those of another)
    assert len(first) == 7 * 28 and len(set(first.values())) > len(first) / 2
    different = [name for name in first if first[name] != second[name]]
    assert not different, f"{len(different)} of {len(first)} differ: {different[:5]}"


@pytest.mark.parametrize("level", ["avx2", "avx512"])
def test_instruction_sets_agree(level):
    assert_same(digests("baseline", 2), digests(level, 2))


@pytest.mark.parametrize("threads", [1, 4])
def test_threads_agree(threads):
    assert_same(digests("", 2), digests("", threads))
