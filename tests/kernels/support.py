"""What the op tests share: backends to run on, and outputs poisoned with NaN before each kernel."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from f2d_kernels import backends
from f2d_kernels.backends import REGISTRY, use_backend
from f2d_kernels.ops import _allocate

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
