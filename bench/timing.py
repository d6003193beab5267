"""Time several providers, interleaved, on rotated buffers.

A provider's thunks, one per set of buffers, run one after the other. Together the sets exceed the last-level cache, so
each call reads cold memory. Providers take turns after each such block, in a new order each round.
"""

import gc
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

Thunk = Callable[[], object]
MIN_ROUNDS = 2


@dataclass(frozen=True)
class Times:
    """Milliseconds: median, 20th and 80th percentile, and the number of samples."""

    median: float
    p20: float
    p80: float
    samples: int

    @classmethod
    def of(cls, milliseconds: list[float]) -> "Times":
        """Summarise samples in milliseconds; raise ValueError if there are none."""
        if not milliseconds:
            raise ValueError("Times.of: no samples")
        return cls(*np.quantile(milliseconds, (0.5, 0.2, 0.8)).tolist(), len(milliseconds))


def last_cache_bytes(device: torch.device) -> int:
    """Return the size of the last-level cache of the GPU, or of the CPU as Linux reports it (32 MiB if unknown)."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).L2_cache_size
    units = {"K": 2**10, "M": 2**20}
    sizes = [p.read_text().strip() for p in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    return max((int(size[:-1]) * units[size[-1]] for size in sizes), default=32 * 2**20)


def sets_needed(bytes_per_set: int, device: torch.device) -> int:
    """Return the number of sets of buffers that exceed twice the last-level cache: 2 to 32."""
    return max(2, min(32, -(-2 * last_cache_bytes(device) // max(bytes_per_set, 1))))


def interleaved(
    providers: Mapping[str, Callable[[], AbstractContextManager[list[Thunk]]]],
    device: torch.device,
    samples: int,
    seconds: float,
) -> dict[str, Times]:
    """Time each provider. Calling a provider, untimed, before each block returns a context with its thunks.

    Each gets at least `samples` samples, or as many as fit into `seconds`, but at least two rounds.
    """
    found: dict[str, list[float]] = {name: [] for name in providers}
    order = list(providers)
    run = _block_on_gpu if device.type == "cuda" else _block_on_cpu

    def block(name: str) -> list[float]:
        with providers[name]() as thunks:
            return run(thunks)

    for name in order:  # warm-up
        block(name)
    start, rounds = time.perf_counter(), 0
    while min(map(len, found.values())) < samples:
        if rounds >= MIN_ROUNDS and time.perf_counter() - start > seconds:
            break
        for name in order:
            found[name] += block(name)
        order = order[1:] + order[:1]
        rounds += 1
    return {name: Times.of(values) for name, values in found.items()}


def _block_on_cpu(thunks: list[Thunk]) -> list[float]:
    # threads of another provider may still spin for a millisecond
    time.sleep(0.002)
    milliseconds = []
    gc.disable()
    try:
        for i, thunk in enumerate(thunks):
            start = time.perf_counter_ns()
            result = thunk()
            milliseconds.append((time.perf_counter_ns() - start) / 1e6)
            del result
            thunks[i] = None  # a backward pass may free its graph, untimed
    finally:
        gc.enable()
    return milliseconds


def _block_on_gpu(thunks: list[Thunk]) -> list[float]:
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in thunks]
    gc.disable()
    try:
        torch.cuda._sleep(2_000_000 * len(thunks))  # a filled queue hides the launch time of the host: 1 ms per call
        for (start, stop), thunk in zip(events, thunks, strict=True):
            start.record()
            thunk()
            stop.record()
        torch.cuda.synchronize()
    finally:
        gc.enable()
    return [start.elapsed_time(stop) for start, stop in events]


def host_microseconds(thunk: Thunk, device: torch.device, calls: int = 200, repeats: int = 5) -> float:
    """Measure the host time of a call without work: the smallest mean over `repeats` batches of `calls` calls."""
    means = []
    for _ in range(repeats + 1):
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter_ns()
        for _ in range(calls):
            thunk()
        means.append((time.perf_counter_ns() - start) / calls / 1e3)
    return min(means[1:])
