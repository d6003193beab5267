"""The parts of gpu_check.sh that need Python.

python bench/gpu_check.py machine         JSON of the device, the versions and the commit
python bench/gpu_check.py calls           small calls of every op on every available backend, forward and backward
python bench/gpu_check.py short [OP ...]  the same for some ops in this process, for compute-sanitizer
python bench/gpu_check.py tests SECONDS   the kernel tests, several files at a time; what SECONDS do not suffice for is
                                          stopped or skipped, and listed
"""

import ast
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]


def machine() -> dict:
    from bench.environment import environment
    from f2d_kernels import backends

    def said_by(*command: str) -> str:
        try:
            return subprocess.run(command, capture_output=True, text=True, timeout=10).stdout.strip()
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"unknown ({error})"

    device = torch.cuda.get_device_properties(0)
    return environment() | {
        "devices": torch.cuda.device_count(),
        "capability": f"{device.major}.{device.minor}",
        "memory_gib": round(device.total_memory / 2**30, 1),
        "multiprocessors": device.multi_processor_count,
        "driver": said_by("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        "cuda": torch.version.cuda or torch.version.hip,
        "nvcc": said_by("nvcc", "--version").splitlines()[-1:],
        "backends": backends(),
    }


def unrunnable(folder: Path) -> dict[Path, list[str]]:
    """Map each test file to the packages that it imports and that are not installed."""
    found = {}
    for path in sorted(folder.glob("test_*.py")):
        names = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names.add(node.module.split(".")[0])
        if missing := sorted(name for name in names if importlib.util.find_spec(name) is None):
            found[path] = missing
    return found


def at_once(commands: dict[str, Sequence[str]], seconds: float = float("inf")) -> int:
    """Run the commands, as many at a time as there are cores, at most 8, and print the output of each when it ends.
    Return how many failed, were stopped after `seconds`, or were not started by then."""
    end = time.monotonic() + seconds

    def run(command: Sequence[str]) -> tuple[str, str]:
        left = end - time.monotonic()
        if left <= 0:
            return "skipped, no time left", ""
        # interrupted, pytest says what it found
        limit = ["timeout", "--signal=INT", "--kill-after=3", f"{max(left, 0.1):.1f}"] if left < float("inf") else []
        done = subprocess.run([*limit, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)
        stopped = done.returncode == 124 or (done.returncode == -9 and time.monotonic() >= end)  # -9: killed as well
        failed = "stopped, no time left" if stopped else f"failed, exit code {done.returncode}"
        return failed if done.returncode else "passed", done.stdout

    bad = 0
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        running = {pool.submit(run, command): name for name, command in commands.items()}
        for done in as_completed(running):
            how, said = done.result()
            bad += how != "passed"
            print(f"== {running[done]}: {how}", *filter(None, [said.rstrip()]), sep="\n", flush=True)
    return bad


FIRST = ("on_gpu", "expert_assembly", "lognormal", "transport", "expert_head", "group_norm", "gaussian")
ELSEWHERE = {"test_triton_compile.py", "test_cuda_compile.py"}  # compile for other GPUs, and run nothing


def tests(seconds: float) -> int:
    """Run the kernel tests that can run here, those that only a GPU can show and those of single ops first."""
    folder = ROOT / "tests" / "kernels"
    missing = unrunnable(folder)
    for path, names in missing.items():
        print(f"skipped: {path.relative_to(ROOT)} needs {', '.join(names)}")

    def place(path: Path) -> tuple[int, str]:
        return next((i for i, name in enumerate(FIRST) if name in path.name), len(FIRST)), path.name

    paths = sorted((p for p in folder.glob("test_*.py") if p not in missing and p.name not in ELSEWHERE), key=place)
    # exit code 5: all tests of the file are slow
    script = "import sys, pytest; code = pytest.main(sys.argv[1:]); sys.exit(0 if code == 5 else code)"
    command = [sys.executable, "-c", script, "-q", "-m", "not slow", "-rsfE", "-p", "no:cacheprovider"]
    return at_once({path.name: [*command, str(path)] for path in paths}, seconds)


def calls() -> int:
    from bench.cases import ops

    return at_once({op: [sys.executable, __file__, "short", op] for op in ops()})


def short(names: Iterable[str]) -> int:
    """Run ops on a small odd-sized image, in each of its layouts and with each source of noise."""
    from dataclasses import replace

    from bench.cases import ops
    from bench.providers import OURS, Inputs, missing_backends, tensors
    from f2d_kernels import use_backend

    os.environ["F2D_KERNELS_AUTOTUNE"] = "0"  # else every kernel is compiled for several numbers of warps
    device = torch.device("cuda")
    here = [name for name in OURS["cuda"] if name not in missing_backends(device)]
    for op in [ops()[name] for name in names] or ops().values():
        layouts = {(case.variant, case.channels_last, case.dtype): case for case in op.cases}
        for case in layouts.values():
            small = replace(case, batch=2, height=7, width=13, train=True)
            inputs = Inputs.new(op, small, device)
            for backend in here:
                with use_backend(backend):
                    torch.autograd.grad(tensors(op.ours(**inputs.arguments)), inputs.leaves, inputs.upstream)
        torch.cuda.synchronize()
        print(f"{op.name}: {len(layouts)} small cases on {', '.join(here)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    what, *rest = sys.argv[1:] or [""]
    if [what, *rest] == ["machine"]:
        print(json.dumps(machine(), indent=1))
    elif [what, *rest] == ["calls"]:
        sys.exit(min(calls(), 1))
    elif what == "short":
        sys.exit(short(rest))
    elif what == "tests" and len(rest) == 1:
        sys.exit(min(tests(float(rest[0])), 1))
    else:
        sys.exit(__doc__)
