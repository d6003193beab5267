"""`python -m bench.integrations`: the adapters against the way their methods are published, and `accelerate`.

A step per row, on images of 3x512x512 in float32 (the mixtures on features): plain PyTorch as the methods'
repositories write it (the schedule looked up, a handful of elementwise passes, `randn_like`) beside one call of
`f2d_kernels.integrations`. Nothing is timed before both agree to 1e-5 on given noise. The two take turns on buffers
larger than the last cache. Before that, whole networks without and with `accelerate`: difference, time of a forward,
peak memory of a training step. Last, one pair of norm and SiLU by size, which `accelerate`'s size rule follows.
"""

import argparse
import contextlib
import copy
import time
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from bench.environment import environment
from bench.integrations.networks import networks
from bench.integrations.pairs import pair_rows
from bench.integrations.steps import FAMILIES
from bench.memory import keep_freed_memory, peak_bytes
from bench.timing import interleaved, sets_needed
from f2d_kernels import accelerate

CPU = torch.device("cpu")


def adapter_rows(samples: int, seconds: float) -> Iterator[list[str]]:
    for row in (row for family in FAMILIES for row in family()):
        drawn = [torch.randn(shape) for shape in row.shapes]
        noise = torch.randn(row.shapes[0]) if row.random else None
        expected = row.published(*drawn, noise)
        error = float((row.ours(*drawn, noise) - expected).abs().max()) / max(1.0, float(expected.abs().max()))
        if not error <= 1e-5:
            yield [row.name, f"off by {error:.1e}", "", "", ""]
            continue
        sets = sets_needed(sum(x.nbytes for x in drawn), CPU)
        buffers = [[x.clone() for x in drawn] for _ in range(sets)]

        def running(call: Callable[..., Tensor], buffers: list = buffers) -> Any:
            return contextlib.nullcontext([partial(call, *inputs, None) for inputs in buffers])

        with torch.inference_mode():
            times = interleaved(
                {"published": partial(running, row.published), "ours": partial(running, row.ours)},
                CPU,
                samples,
                seconds,
            )
        theirs, mine = times["published"].median, times["ours"].median
        yield [row.name, f"{error:.0e}", f"{theirs:.2f}", f"{mine:.2f}", f"{theirs / mine:.1f}x"]


def training_step(net: nn.Module, inputs: tuple) -> None:
    out = net(*inputs)
    (out if isinstance(out, Tensor) else out.sample).square().mean().backward()


def network_rows(rounds: int) -> Iterator[list[str]]:
    """Time both networks in turns, so that other load affects them alike; the ratio is the median over the rounds."""
    for name, plain, inputs in networks():
        fast = copy.deepcopy(plain.eval())
        report = accelerate(fast, verify=inputs)
        times: list[tuple[float, float]] = []
        with torch.inference_mode():
            for i in range(rounds + 1):
                turns = (plain, fast) if i % 2 else (fast, plain)
                found = {net: forward_milliseconds(net, inputs) for net in turns}
                times.append((found[plain], found[fast]))
        before, after = (median(column) for column in zip(*times[1:]))
        ratio = median(a / b for a, b in times[1:])
        peaks = [peak_bytes(partial(training_step, net, inputs), CPU) / 2**20 for net in (plain, fast)]
        counts = f"{len(report.fused)}, {len(report.unchanged)}"
        milliseconds = [f"{before:.0f}", f"{after:.0f}", f"{ratio:.2f}x"]
        yield [name, counts, f"{report.difference:.0e}", *milliseconds, *(f"{peak:.0f}" for peak in peaks)]


def forward_milliseconds(net: nn.Module, inputs: tuple) -> float:
    start = time.perf_counter()
    net(*inputs)
    return (time.perf_counter() - start) * 1e3


def print_table(names: list[str], rows: Iterator[list[str]]) -> None:
    for cells in (names, ["---"] * len(names)):
        print("| " + " | ".join(cells) + " |")
    for cells in rows:
        print("| " + " | ".join(cells) + " |", flush=True)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.integrations", description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--samples", type=int, default=60, help="timed samples of each version")
    parser.add_argument("--seconds", type=float, default=20.0, help="time limit for a step")
    parser.add_argument("--rounds", type=int, default=9, help="forward passes of each network")
    parser.add_argument("--only", choices=("adapters", "networks", "pairs"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    # networks first, with the C library's own ways: large results then pay for page faults, as they do in use
    if options.only in (None, "networks"):
        columns = [
            "network",
            "fused, unchanged",
            "difference",
            "forward, ms",
            "after",
            "ratio",
            "training peak, MiB",
            "after",
        ]
        print_table(columns, network_rows(options.rounds))
        print()
    keep_freed_memory()
    if options.only in (None, "adapters"):
        columns = ["step, 1x3x512x512", "difference", "published, ms", "f2d_kernels, ms", "ratio"]
        print_table(columns, adapter_rows(options.samples, options.seconds))
        print()
    if options.only in (None, "pairs"):
        columns = ["one norm and SiLU", "layout", "elements", "forward: plain / op", "forward + backward"]
        print_table(columns, pair_rows(options.rounds))
        print()
    print(environment(CPU))


if __name__ == "__main__":
    main()
