"""Run the registry under pytest-benchmark: `pytest bench/test_speed.py --benchmark-only [-k "lite and bf16"]`.

There is one test per case, mode and provider, on a GPU if there is one. The tests assert that results are correct, and
nothing about time.
"""

from typing import Any

import pytest
import torch

from bench.cases import ops
from bench.gate import Gate
from bench.providers import input_sets, providers, thunk
from bench.registry import Case, Op
from bench.timing import Thunk

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
CALLS = [
    pytest.param(op, case, mode, p.name, id=f"{op.name}-{case.name}-{mode}-{p.name}")
    for op in ops().values()
    for case in op.cases
    for p in providers(op, case, DEVICE)
    for mode in case.modes
]


@pytest.mark.parametrize(("op", "case", "mode", "name"), CALLS)
def test_speed(benchmark: Any, op: Op, case: Case, mode: str, name: str) -> None:
    torch.compiler.reset()
    sets = input_sets(op, case, DEVICE)
    provider = next(p for p in providers(op, case, DEVICE) if p.name == name)
    assert Gate(op, case, sets[0]).problem(provider) is None
    taken = 0

    def next_call() -> tuple[tuple, dict]:
        nonlocal taken
        taken += 1
        return (thunk(provider, sets[taken % len(sets)], mode),), {}

    def run(call: Thunk) -> None:
        call()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()

    benchmark.extra_info["least_traffic_bytes"] = op.traffic(case, mode).total
    with provider.running(), torch.set_grad_enabled(case.train):
        benchmark.pedantic(run, setup=next_call, rounds=10, warmup_rounds=2)
