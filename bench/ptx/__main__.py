"""`python -m bench.ptx`: count what the GPU kernels would do on an H100, by executing their PTX on a CPU.

    python -m bench.ptx                            every op at 256x256; some minutes of one core
    python -m bench.ptx --ops expert_assembly --backends cuda
    python -m bench.ptx --output bench/results/ptx-counts.txt

Only a sample of the blocks of each launch is executed, and its counts are scaled to all blocks. Nothing is timed:
bounds follow from counts. docs/performance.md explains the columns.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

os.environ.pop("TRITON_INTERPRET", None)

import torch

from bench.cases import ops
from bench.providers import Inputs, tensors
from bench.ptx.capture import Capture, captured
from bench.ptx.counts import Counts
from bench.ptx.cuda import missing
from bench.ptx.table import Row, kinds, table
from bench.registry import Case, Op
from f2d_kernels.registry import WITH_CUDA

CPU = torch.device("cpu")
HEIGHT = 256  # of an image
BLOCKS = 48  # executed per launch
OPTIONS = {  # samples, channels and options of each op, as in f2d-lite and the transport of images
    "expert_assembly": (8, 3, {"stacked": False}),
    "lognormal_transition": (8, 3, {}),
    "transport_step": (8, 3, {"mixed": False}),
    "gaussian_transition": (8, 3, {}),
    "expert_head": (2, 24, {"features": 16}),
    "group_norm_silu": (2, 32, {"film": True, "mean": False}),
}
VARIANTS = {  # name -> dtype, channels_last, width
    "f32": (torch.float32, False, 256),
    "bf16": (torch.bfloat16, False, 256),
    "f32 odd width": (torch.float32, False, 253),
    "bf16 odd width": (torch.bfloat16, False, 253),
    "f32 channels_last": (torch.float32, True, 256),
    "bf16 channels_last": (torch.bfloat16, True, 256),
}


def case_of(op: Op, variant: str) -> Case:
    batch, channels, options = OPTIONS[op.name]
    dtype, channels_last, width = VARIANTS[variant]
    base = op.cases[0]
    return replace(
        base, name=variant, batch=batch, channels=channels, height=HEIGHT, width=width, dtype=dtype,
        channels_last=channels_last, variant="seed" if base.variant else "", train=True,
        options={**base.options, **options},
    )  # fmt: skip


def run(op: Op, case: Case, backend: str, **options: object) -> Capture:
    """Capture the launches of one forward and one backward call."""
    torch.manual_seed(0)
    inputs = Inputs.new(op, case, CPU)
    with captured(backend, **options) as capture:
        torch.autograd.grad(tensors(op.ours(**inputs.arguments)), inputs.leaves, inputs.upstream)
    return capture


def largest(op: Op, case: Case, backend: str) -> dict[str, int]:
    """Map each call to the warps of its largest launch for eight samples of 64x64, without executing a block."""
    capture = run(op, replace(case, batch=8, height=64, width=64), backend, sample=0)
    warps: dict[str, int] = {}
    for each in capture.launches:
        warps[each.op] = max(warps.get(each.op, 0), each.grid * each.block // 32)
    return warps


def rows(op: Op, variant: str, backend: str) -> Iterator[Row]:
    case = case_of(op, variant)
    launches = run(op, case, backend, counting=True, sample=BLOCKS).launches
    warps = largest(op, case, backend)
    for mode, call in (("forward", op.name), ("backward", f"{op.name} backward")):
        total, here = Counts(), [each for each in launches if each.op == call]
        for each in here:
            total.add(each.counts)
        pixels = case.batch * case.height * case.width
        yield Row(
            f"{backend} {op.name} {mode} {variant}", pixels * case.channels, op.traffic(case, mode).total, total,
            len(here), warps[call],
        )  # fmt: skip


def main(arguments: list[str]) -> int:
    known = ops()
    parser = argparse.ArgumentParser(
        prog="python -m bench.ptx", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, values, what in (
        ("--ops", list(known), "Ops"),
        ("--backends", ["cuda", "triton"], "Backends"),
        ("--variants", list(VARIANTS), "Dtypes and layouts"),
    ):
        parser.add_argument(name, nargs="+", choices=values, default=values, help=f"{what} to count (default: all).")
    parser.add_argument("--output", type=Path, help="Also write the tables to this file.")
    chosen = parser.parse_args(arguments)
    if "cuda" in chosen.backends and (reason := missing()) is not None:
        print(f"the CUDA kernels are not counted: {reason}", file=sys.stderr)
        chosen.backends.remove("cuda")
    kernels = [(b, name) for b in chosen.backends for name in chosen.ops if b != "cuda" or name in WITH_CUDA]
    if not kernels:
        parser.error(f"there is nothing to count: only {', '.join(sorted(WITH_CUDA))} have CUDA kernels, built by nvcc")
    torch.set_num_threads(1)
    found: list[Row] = []
    for backend, name in kernels:
        for variant in chosen.variants:
            found += rows(known[name], variant, backend)
            print(f"counted {found[-1].name}", file=sys.stderr)
    text = f"{table(found)}\n\nShare of each kind of instruction, in per cent\n\n{kinds(found)}\n"
    print(text)
    if chosen.output:
        chosen.output.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
