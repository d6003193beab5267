"""The parts of gpu_check.sh that need Python: what the machine is, and a short table of times on it.

    python bench/gpu_check.py machine            JSON of the device, the versions and the commit, on standard output
    python bench/gpu_check.py times TIMES.json   table on standard output, the same rows as JSON in the file

ms: median of CUDA event times over rotated buffers, larger than the last cache. GB/s: least traffic (every input
read once, every output written once) by that time. A provider whose result is wrong has no time.
"""

import itertools
import json
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from f2d_kernels import backends, expert_assembly, lognormal_transition, use_backend

SIZES = [(512, 512), (720, 1080)]
MODES = ["forward", "backward"]
DTYPES = [torch.float32, torch.bfloat16]
EXPERTS, CHANNELS, BATCH = 4, 3, 4
CACHE_BYTES = 256 * 2**20
ROUNDS = 30


def machine() -> dict:
    import triton

    def said_by(*command: str) -> str:
        try:
            return subprocess.run(command, capture_output=True, text=True, timeout=10).stdout.strip()
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"unknown ({error})"

    device = torch.cuda.get_device_properties(0)
    return {
        "device": device.name,
        "capability": f"{device.major}.{device.minor}",
        "memory_gib": round(device.total_memory / 2**30, 1),
        "multiprocessors": device.multi_processor_count,
        "driver": said_by("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        "torch": torch.__version__,
        "cuda": torch.version.cuda or torch.version.hip,
        "triton": triton.__version__,
        "nvcc": said_by("nvcc", "--version").splitlines()[-1:],
        "python": platform.python_version(),
        "commit": said_by("git", "rev-parse", "HEAD"),
        "backends": backends(),
    }


def assembly_formula(deltas: Tensor, gates: Tensor, maps: Tensor, base: Tensor) -> Tensor:
    return base + (gates[:, :, None, None, None] * maps[:, :, None] * deltas).sum(1)


def transition_formula(x: Tensor, mu: Tensor, log_mean: Tensor, log_std: Tensor) -> Tensor:
    z = log_mean.view(-1, 1, 1, 1) + log_std.view(-1, 1, 1, 1) * torch.randn_like(x)
    return mu + (x - mu) * torch.exp(z.clamp(-20, 20))


def inputs(op: str, size: tuple[int, int], dtype: torch.dtype) -> list[Tensor]:
    image = (BATCH, CHANNELS, *size)
    if op == "expert_assembly":
        shapes = [(BATCH, EXPERTS, CHANNELS, *size), (BATCH, EXPERTS), (BATCH, EXPERTS, *size), image]
        return [torch.randn(shape, device="cuda").to(dtype) for shape in shapes]
    schedule = [torch.full((BATCH,), value, device="cuda") for value in (-0.1, 0.3)]
    return [*(torch.randn(image, device="cuda").to(dtype) for _ in range(2)), *schedule]


def rotated(make: Callable[[], list[Tensor]]) -> list[list[Tensor]]:
    first = make()
    each = sum(t.numel() * t.element_size() for t in first)
    return [first, *(make() for _ in range(CACHE_BYTES // each + 1))]


def median_ms(run: Callable[[list[Tensor]], object], buffers: list[list[Tensor]]) -> float:
    for arguments in buffers[:3]:
        run(arguments)
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(ROUNDS)]
    for i, (start, stop) in enumerate(events):
        # a filled queue hides the host's time per launch
        if i == 0:
            torch.cuda._sleep(20_000_000)
        start.record()
        run(buffers[i % len(buffers)])
        stop.record()
    torch.cuda.synchronize()
    return statistics.median(start.elapsed_time(stop) for start, stop in events)


def on(backend: str, op: str) -> Callable[..., Tensor]:
    def run(*arguments: Tensor) -> Tensor:
        with use_backend(backend):
            if op == "expert_assembly":
                return expert_assembly(*arguments)
            return lognormal_transition(*arguments, seed=7)

    return run


def providers(op: str) -> dict[str, Callable[..., Tensor]]:
    formula = assembly_formula if op == "expert_assembly" else transition_formula
    found = {"eager": formula, "compile": torch.compile(formula, dynamic=False)}
    return found | {name: on(name, op) for name in ("triton", "cuda") if backends()[name] == "available"}


def is_right(op: str, name: str, run: Callable[..., Tensor], arguments: list[Tensor]) -> bool:
    """Against float64; the formula's own transition draws other noise and is the yardstick of time only."""
    wide = [t.double() if t.dim() > 3 else t for t in arguments]
    if op == "expert_assembly":
        exact = assembly_formula(*(t.double() for t in arguments))
    elif name in ("eager", "compile"):
        return True
    else:
        exact = on("reference", op)(*wide)
    error = ((run(*arguments).double() - exact).abs() / (exact.abs() + 1)).max()
    return bool(error < (1e-5 if arguments[0].dtype == torch.float32 else 5e-2))


def least_traffic(op: str, mode: str, size: tuple[int, int], dtype: torch.dtype) -> int:
    """Bytes. Assembly: read deltas, maps, base, write out; backward: read g, deltas, maps, write d_deltas, d_maps.
    Transition: read x, mu, write out; backward: read g, x, mu, write d_x, d_mu."""
    plane = BATCH * size[0] * size[1] * dtype.itemsize
    image, experts, maps = CHANNELS * plane, EXPERTS * CHANNELS * plane, EXPERTS * plane
    if op == "expert_assembly":
        return experts + maps + 2 * image if mode == "forward" else image + 2 * (experts + maps)
    return 3 * image if mode == "forward" else 5 * image


def timed(op: str, mode: str, run: Callable[..., Tensor], size: tuple[int, int], dtype: torch.dtype) -> float:
    buffers = rotated(lambda: inputs(op, size, dtype))
    if mode == "forward":
        return median_ms(lambda arguments: run(*arguments), buffers)
    graphs = []
    for arguments in buffers:
        leaves = [t.requires_grad_() for t in arguments]
        out = run(*leaves)
        graphs.append([out, torch.randn_like(out), *leaves])
    return median_ms(lambda graph: torch.autograd.grad(graph[0], graph[2:], graph[1], retain_graph=True), graphs)


def times(path: str) -> int:
    rows = []
    failed = [name for name in ("triton", "cuda") if backends()[name] != "available"]
    for name in failed:
        print(f"{name} is missing: {backends()[name]}")
    print(f"{'op':<22}{'mode':<10}{'size':<11}{'dtype':<10}{'provider':<10}{'ms':>9}{'GB/s':>9}", flush=True)
    for op in ("expert_assembly", "lognormal_transition"):
        for (name, run), mode, size, dtype in itertools.product(providers(op).items(), MODES, SIZES, DTYPES):
            row = {"op": op, "mode": mode, "size": f"{size[1]}x{size[0]}", "dtype": str(dtype)[6:], "provider": name}
            start = "".join(f"{row[key]:<{width}}" for key, width in zip(row, (22, 10, 11, 10, 10), strict=True))
            if not is_right(op, name, run, inputs(op, size, dtype)):
                failed.append(name)
                print(f"{start}{'WRONG':>9}", flush=True)
                continue
            ms = timed(op, mode, run, size, dtype)
            rows.append(row | {"ms": ms, "gbps": least_traffic(op, mode, size, dtype) / ms / 1e6})
            print(f"{start}{ms:>9.4f}{rows[-1]['gbps']:>9.0f}", flush=True)
            Path(path).write_text(json.dumps(rows, indent=1))  # after each row: a time limit may end the run
    return 1 if failed else 0


if __name__ == "__main__":
    if sys.argv[1:] == ["machine"]:
        print(json.dumps(machine(), indent=1))
    elif len(sys.argv) == 3 and sys.argv[1] == "times":
        sys.exit(times(sys.argv[2]))
    else:
        sys.exit(__doc__)
