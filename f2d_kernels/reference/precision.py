"""The precision in which an op computes, and the filling of results from it."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def compute_dtype(*tensors: Tensor | None) -> torch.dtype:
    """float64 when any given tensor is float64, else float32."""
    return torch.float64 if any(t is not None and t.dtype == torch.float64 for t in tensors) else torch.float32


def representable(bound: float, dtype: torch.dtype) -> float:
    """The bound of a clamp as PyTorch takes it: infinite where `dtype` holds no number as large."""
    return bound if abs(bound) <= torch.finfo(dtype).max else math.copysign(math.inf, bound)


def fill(results: Sequence[Tensor | None], values: Sequence[Tensor]) -> None:
    """Round `values` into those of `results` that are not None."""
    for result, value in zip([r for r in results if r is not None], values, strict=True):
        result.copy_(value)


def filling(gradients: Callable[..., list[Tensor]], count: int) -> Callable[..., None]:
    """The backward pass of a backend, whose last `count` arguments are the results to fill, by the formulas of
    `gradients`, whose last argument is which of them are needed."""

    def backward(*arguments: Any) -> None:
        inputs, results = arguments[:-count], arguments[-count:]
        needs = [bool(d) if isinstance(d, list) else d is not None for d in results]
        flat = [d for group in results for d in (group if isinstance(group, list) else [group])]
        fill(flat, gradients(*inputs, needs))

    return backward
