"""Time backward passes on a CPU whose gradient is stored differently from the inputs.

Our C++ ops take turns on one thread with a gradient in the inputs' memory format, in the other format, cropped from a
larger image, and with one pixel repeated (as after a global mean); and plain PyTorch with the other format. Each result
is compared with float64 first. The times are medians in milliseconds, without the forward pass. The C library keeps
freed memory. No GPU is used.
"""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

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


def as_given(gradient: Tensor, layout: torch.memory_format) -> Tensor:
    return gradient


def in_other_format(gradient: Tensor, layout: torch.memory_format) -> Tensor:
    other = torch.contiguous_format if layout == torch.channels_last else torch.channels_last
    return gradient.contiguous(memory_format=other)


def cropped(gradient: Tensor, layout: torch.memory_format) -> Tensor:
    batch, channels, height, width = gradient.shape
    larger = gradient.new_zeros(batch, channels, height + 2, width + 2).contiguous(memory_format=layout)
    return larger[:, :, 1:-1, 1:-1].copy_(gradient)


def one_pixel(gradient: Tensor, layout: torch.memory_format) -> Tensor:
    return gradient[:, :, :1, :1].clone().expand_as(gradient)


STORAGES: dict[str, Callable[[Tensor, torch.memory_format], Tensor]] = {
    "same format": as_given,
    "other": in_other_format,
    "cropped": cropped,
    "one pixel": one_pixel,
}
PLAIN = "plain PyTorch, other"


def stored(inputs: Inputs, case: Case, storage: Callable[[Tensor, torch.memory_format], Tensor]) -> Inputs:
    """Return the inputs with the gradients of the results stored in another way."""
    layout = torch.channels_last if case.channels_last else torch.contiguous_format
    return replace(inputs, upstream=[storage(g, layout) for g in inputs.upstream])


@contextmanager
def backward(provider: Provider, inputs: Inputs) -> Iterator[list[Thunk]]:
    with provider.running():
        yield [thunk(provider, inputs, "backward")]


def times(op: Op, case: Case, samples: int) -> dict[str, Times]:
    """Time each storage of the gradient, and `PLAIN`. Raise RedGateError if a result is wrong."""
    given = Inputs.new(op, case, CPU)
    ours, plain = Provider("cpp", "ours", op.ours, "cpp"), Provider("plain", "eager", op.ours, "reference")
    ways = {name: (ours, stored(given, case, storage)) for name, storage in STORAGES.items()}
    ways[PLAIN] = (plain, ways["other"][1])
    for name, (provider, inputs) in ways.items():
        if problem := Gate(op, case, inputs).problem(provider):
            raise RedGateError(f"{op.name}, {name}: {problem}")
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
    print(f"torch {torch.__version__}, {options.size}, one thread; ms: {' / '.join([*STORAGES, PLAIN])}")
    for dtype in (torch.bfloat16, torch.float32):
        for last in (False, True):
            for name, own in OPTIONS.items():
                case = Case(name, "formats", *options.size, dtype, last, "seed", train=True, options=own)
                found = times(ops()[name], case, options.samples)
                cells = " / ".join(f"{time.median:6.1f}" for time in found.values())
                print(f"{name:21}{str(dtype)[6:]:9}{'channels_last' if last else 'NCHW':14}{cells}", flush=True)


if __name__ == "__main__":
    main()
