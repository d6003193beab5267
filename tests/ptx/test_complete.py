"""The cases of test_ops.py reach every kernel that the launchers of the six ops can start. No kernel runs here: the
launchers do, and the names of what they start are compared with what the sources hold."""

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.ptx import cuda, triton
from bench.ptx.capture import captured
from tests.ptx.check import eps_of, results_of
from tests.ptx.ops import PROBLEMS, Case
from tests.ptx.test_ops import FULL, FULL_TRITON, QUICK, TRITON_ONLY, needs_nvcc

FOLDER = Path(importlib.import_module("f2d_kernels.triton").__file__).parent


def launched_by(source: str) -> set[str]:
    """The kernels that the launchers of a module start: the first arguments of its calls of `launch`."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    launches = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "launch"]
    return {ast.unparse(call.args[0]) for call in launches}


def in_sources() -> set[tuple[str, str]]:
    return {(path.stem, kernel) for path in FOLDER.glob("*.py") for kernel in launched_by(path.read_text())}


@contextmanager
def recorded() -> Iterator[set[tuple[str, str]]]:
    """(module, kernel) of what Triton's launchers start within the block; nothing is compiled."""
    names: set[tuple[str, str]] = set()

    def record(kernel: Any, *_: Any, **__: Any) -> None:
        names.add((kernel.fn.__module__.rpartition(".")[2], kernel.fn.__name__))

    with captured("triton"), triton.launching(record):
        yield names


def call(case: Case) -> None:
    problem = PROBLEMS[case.op](case)
    results_of(problem.ours, problem.leaves, eps_of(case))


@pytest.mark.slow  # minutes: the launchers of all cases run
def test_every_triton_kernel_has_a_case():
    torch.set_num_threads(1)
    expected = in_sources()
    assert len(expected) >= 16 and {module for module, _ in expected} <= set(triton.MODULES)
    with recorded() as reached:
        for case in [*QUICK, *TRITON_ONLY, *FULL, *FULL_TRITON]:
            call(case)
    assert reached == expected


def test_a_jitted_kernel_that_nobody_launches_is_no_kernel():
    """Every function that looks like a kernel by its name is one of those above, so that none is overlooked."""
    named = {(path.stem, node.name) for path in FOLDER.glob("*.py") for node in ast.walk(ast.parse(path.read_text()))
             if isinstance(node, ast.FunctionDef) and node.name.endswith("_kernel")}  # fmt: skip
    assert named == in_sources()


@pytest.mark.slow
@needs_nvcc
def test_every_cuda_kernel_has_a_case():
    """Every instantiation of every __global__ function, as nvcc lists them."""
    torch.set_num_threads(1)
    reached: set[str] = set()
    for case in [*QUICK, *FULL]:
        with captured("cuda", sample=0) as capture:
            call(case)
        reached |= {launch.kernel for launch in capture.launches}
    assert reached == cuda.kernels()


def test_an_op_without_a_cuda_kernel_is_refused():
    """In a process of its own: the command has Triton's kernels compiled, which other tests have interpreted."""
    command = [sys.executable, "-m", "bench.ptx", "--backends", "cuda", "--ops", "expert_head"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 2 and "only expert_assembly, lognormal_transition, transport_step have" in done.stderr
