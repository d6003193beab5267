"""The parts of gpu_check.sh that need Python.

python bench/gpu_check.py machine       JSON of the device, the versions and the commit
python bench/gpu_check.py unrunnable    kernel tests that import a missing package: path, then package
python bench/gpu_check.py short         one small call of every op on every available backend, forward and backward,
                                        for compute-sanitizer
"""

import ast
import importlib.util
import json
import subprocess
import sys
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


def short() -> int:
    """Run every op on a small odd-sized image, in each of its layouts and with each source of noise."""
    from dataclasses import replace

    from bench.cases import ops
    from bench.providers import OURS, Inputs, missing_backends, tensors
    from f2d_kernels import use_backend

    device = torch.device("cuda")
    here = [name for name in OURS["cuda"] if name not in missing_backends(device)]
    for op in ops().values():
        layouts = {(case.variant, case.channels_last, case.dtype): case for case in op.cases}
        for case in layouts.values():
            small = replace(case, batch=2, height=7, width=13, train=True)
            inputs = Inputs.new(op, small, device)
            for backend in here:
                with use_backend(backend):
                    torch.autograd.grad(tensors(op.ours(**inputs.arguments)), inputs.leaves, inputs.upstream)
        print(f"{op.name}: {len(layouts)} small cases on {', '.join(here)}", flush=True)
    torch.cuda.synchronize()
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    if sys.argv[1:] == ["machine"]:
        print(json.dumps(machine(), indent=1))
    elif sys.argv[1:] == ["unrunnable"]:
        for path, missing in unrunnable(ROOT / "tests" / "kernels").items():
            print(path.relative_to(ROOT), *missing)
    elif sys.argv[1:] == ["short"]:
        sys.exit(short())
    else:
        sys.exit(__doc__)
