"""Time backward passes on a CPU whose gradient has a different memory format from the inputs.

Three ways take turns on one thread: our C++ ops with a gradient in the inputs' format, the same ops with a gradient in
the other format, and plain PyTorch with a gradient in the other format. Each result is compared with float64 first.
The times are medians in milliseconds, without the forward pass. The C library keeps freed memory. No GPU is used.
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import torch

from bench.cases import ops
from bench.cases.stages import GROUPS
from bench.gate import Gate
from bench.measure import RedGateError
from bench.memory import keep_freed_memory
from bench.providers import Inputs, Provider, thunk
from bench.registry import Case, Op
from bench.timing import Thunk, Times, interleaved

CPU = torch.device("cpu")
# the ops that copy a gradient of another format (all but expert_head), and the options of their cases
OPTIONS: dict[str, dict[str, object]] = {
    "expert_assembly": {"stacked": False},
    "lognormal_transition": {},
    "gaussian_transition": {"terms": 3},
    "group_norm_silu": {"film": False, "mean": False},
    "transport_step": {"mixed": False},
}


def in_the_other_format(inputs: Inputs, case: Case) -> Inputs:
    """Return the inputs with the gradients of the results copied to the format that the inputs do not have."""
    other = torch.contiguous_format if case.channels_last else torch.channels_last
    return replace(inputs, upstream=[g.contiguous(memory_format=other) for g in inputs.upstream])


@contextmanager
def backward(provider: Provider, inputs: Inputs) -> Iterator[list[Thunk]]:
    with provider.running():
        yield [thunk(provider, inputs, "backward")]


def times(op: Op, case: Case, samples: int) -> dict[str, Times]:
    """Time the three ways of one case: "same", "other" and "plain". Raise RedGateError if a result is wrong."""
    same = Inputs.new(op, case, CPU)
    other = in_the_other_format(same, case)
    ours, plain = Provider("cpp", "ours", op.ours, "cpp"), Provider("plain", "eager", op.ours, "reference")
    for provider in (ours, plain):
        if problem := Gate(op, case, other).problem(provider):
            raise RedGateError(f"{op.name}, {provider.name}: {problem}")
    ways = {"same": (ours, same), "other": (ours, other), "plain": (plain, other)}
    return interleaved({name: partial(backward, *way) for name, way in ways.items()}, CPU, samples, seconds=20)


def main(command_line: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.formats", description=__doc__)
    parser.add_argument(
        "--size",
        type=int,
        nargs=4,
        default=[4, 24, 128, 128],
        metavar=("B", "C", "H", "W"),
        help=f"batch, channels, height and width (default 4 24 128 128); C must be a multiple of {GROUPS}",
    )
    parser.add_argument("--samples", type=int, default=9, help="least number of timed calls of each way (default 9)")
    options = parser.parse_args(command_line)
    if min(options.size) < 1 or options.size[1] % GROUPS:
        parser.error(f"--size must be four numbers of at least 1, and C a multiple of {GROUPS}, got {options.size}")
    if options.samples < 1:
        parser.error(f"--samples must be at least 1, got {options.samples}")
    torch.set_num_threads(1)
    keep_freed_memory()
    print(f"torch {torch.__version__}, {options.size}, one thread; ms: same format / other / plain PyTorch, other")
    for dtype in (torch.bfloat16, torch.float32):
        for last in (False, True):
            for name, own in OPTIONS.items():
                case = Case(name, "formats", *options.size, dtype, last, "seed", train=True, options=own)
                found = times(ops()[name], case, options.samples)
                cells = " / ".join(f"{time.median:6.1f}" for time in found.values())
                print(f"{name:21}{str(dtype)[6:]:9}{'channels_last' if last else 'NCHW':14}{cells}", flush=True)


if __name__ == "__main__":
    main()
