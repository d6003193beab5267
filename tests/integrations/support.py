"""Comparison of an adapter with a method's formula, written in float64."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from f2d_kernels import use_backend

SHAPE = (2, 3, 9, 13)


def images(count: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(4)
    return [torch.randn(SHAPE, generator=generator).to(dtype) for _ in range(count)]


def per_sample(values: Tensor) -> Tensor:
    return values.reshape(-1, 1, 1, 1)


def assert_follows(adapter: Callable[..., Tensor], formula: Callable[..., Tensor], inputs: list[Tensor]) -> None:
    """Within 1e-5 of the result's size in float32 on every CPU backend there is, and 1e-12 in float64."""
    exact = formula(*(x.double() for x in inputs))
    size = float(exact.abs().max())
    for backend in ("reference", "auto"):
        with use_backend(backend):
            found = adapter(*inputs)
            assert found.dtype == torch.float32
            torch.testing.assert_close(found.double(), exact, rtol=0, atol=1e-5 * max(size, 1))
            torch.testing.assert_close(adapter(*(x.double() for x in inputs)), exact, rtol=0, atol=1e-12 * max(size, 1))


def assert_one_seed_serves(step: Callable[..., Tensor], times: tuple[int, ...]) -> None:
    """The same seed gives the same draw; another seed and another time give others."""
    first = step(times[0], seed=3)
    assert torch.equal(first, step(times[0], seed=3))
    assert not torch.equal(first, step(times[0], seed=4))
    quiet, loud = step(times[1], noise=torch.zeros(SHAPE)), step(times[1], seed=3)
    still = step(times[0], noise=torch.zeros(SHAPE))
    drawn = [(a - b) / (a - b).std() for a, b in ((first, still), (loud, quiet))]
    assert float((drawn[0] * drawn[1]).mean().abs()) < 0.2


def assert_times_as_tensors(step: Callable[..., Tensor], times: tuple[int, ...]) -> None:
    """A tensor of times [B] takes each sample's own row."""
    both = step(torch.tensor(times[:2]))
    for b, t in enumerate(times[:2]):
        torch.testing.assert_close(both[b], step(t)[b], rtol=0, atol=0)


def rejects(message: str, call: Callable[[], object], error: type[Exception] = ValueError) -> None:
    with pytest.raises(error, match=message):
        call()
