"""What the op tests share: backends to run on, and outputs poisoned with NaN before each kernel."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest
import torch

from f2d_kernels import backends
from f2d_kernels.ops import _allocate
from f2d_kernels.registry import REGISTRY, use_backend

from .cases import DEVICE

ALL_BACKENDS = ["reference", "cpp", "triton", "cuda"]

# Triton's interpreter takes a second for what the others do in milliseconds: without a GPU, sweeps leave it to
# test-full
_interpreted = () if torch.cuda.is_available() else pytest.mark.slow
SWEEP_BACKENDS = ["reference", "cpp", pytest.param("triton", marks=_interpreted), "cuda"]


@contextmanager
def running_on(name: str) -> Iterator[None]:
    """Ops run on backend `name` with every output and gradient full of NaN beforehand; skips with the backend's
    reason."""
    reason = REGISTRY[name].unavailable(DEVICE)
    if reason is not None or backends()[name] != "available":
        pytest.skip(f"{name}: {reason or backends()[name]}")

    def poisoned(*args, **kwargs) -> torch.Tensor:
        return torch.empty(*args, **kwargs).fill_(float("nan"))

    with use_backend(name), pytest.MonkeyPatch.context() as patch:
        patch.setattr(_allocate, "new_memory", poisoned)
        yield


def assert_compiles_once(backend: str, step: Callable, arguments_of: Callable[[tuple[int, int]], Sequence]) -> None:
    """torch.compile makes one graph of `step` on `backend`, and it serves images of any size with eager's bits."""
    graphs = []

    def keep(graph, inputs):
        graphs.append(graph)
        return graph

    compiled = torch.compile(step, fullgraph=True, dynamic=True, backend=keep)
    with running_on(backend):
        for size in ((8, 12), (5, 7), (33, 16), (16, 31)):
            arguments = arguments_of(size)
            torch.testing.assert_close(compiled(*arguments), step(*arguments), rtol=0, atol=0)
    assert len(graphs) == 1
