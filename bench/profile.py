"""`python -m bench.profile MODEL`: profile one restoration, with the plain network and the engine side by side.

The table sums the self time of PyTorch's operators by class: convolutions, matrix products, our kernels,
normalisations, elementwise work, copies, and the rest. The weights are random (see `bench.restorers`).
"""

import argparse
import math
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch.profiler import ProfilerActivity, profile

from bench.environment import environment
from bench.registry import Case
from bench.restorers import restorers
from bench.timing import interleaved

# class -> parts of operator names; the first class that matches counts
CLASSES = {
    "convolutions": ("conv", "reorder"),
    "matrix products": ("mm", "linear", "matmul"),
    "our kernels": ("f2d_kernels::",),
    "normalisation, activation": ("norm", "silu", "gelu", "leaky_relu", "sigmoid", "tanh", "softmax"),
    "sums, products": ("add", "mul", "div", "sub", "mean", "sum", "clamp", "var_mean", "exp"),
    "copies, resizing": ("copy", "cat", "upsample", "pixel", "pad", "contiguous", "empty", "fill", "clone", "to"),
}


def class_of(operator: str) -> str:
    """Return the class to which an operator's self time is added."""
    return next((name for name, words in CLASSES.items() if any(word in operator for word in words)), "other")


def shares(call: Callable[[], object]) -> dict[str, float]:
    """Map each class to its milliseconds of self time in one call, after a warm-up call."""
    call()
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        call()
    found = dict.fromkeys([*CLASSES, "other"], 0.0)
    for event in recorded.key_averages():
        found[class_of(event.key)] += event.self_cpu_time_total / 1e3
    return found


def table(measured: dict[str, tuple[float, dict[str, float]]]) -> str:
    """Return Markdown with a row per class and a column per way: milliseconds and share; the last row is wall time."""
    lines = ["| |" + "|".join(measured) + "|", "|---|" + "---:|" * len(measured)]
    for name in [*CLASSES, "other"]:
        cells = (f"{parts[name]:.0f} ms ({parts[name] / sum(parts.values()):.0%})" for _, parts in measured.values())
        lines.append(f"|{name}|" + "|".join(cells) + "|")
    lines.append("|median wall time|" + "|".join(f"{ms:.0f} ms" for ms, _ in measured.values()) + "|")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.profile", description=__doc__)
    parser.add_argument("model", choices=("paper", "base", "lite"))
    parser.add_argument("--height", type=int, default=256)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--precision", choices=("bf16", "f32"), default="bf16")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args(arguments)

    torch.set_num_threads(options.threads)
    dtype = torch.bfloat16 if options.precision == "bf16" else torch.float32
    size = (options.height, options.width)
    case = Case("restore", f"{options.model}/{size[0]}x{size[1]}/{options.precision}", 1, 3, *size, dtype)
    calls = {name: call for name, (_, call) in restorers(case, torch.device("cpu")).items()}
    parts = {name: shares(call) for name, call in calls.items()}
    blocks = {name: lambda call=call: nullcontext([call]) for name, call in calls.items()}
    times = interleaved(blocks, torch.device("cpu"), options.repeats, seconds=math.inf)
    print(table({name: (times[name].median, parts[name]) for name in calls}))
    print(", ".join(f"{key} {value}" for key, value in environment(torch.device("cpu")).items()))


if __name__ == "__main__":
    main()
