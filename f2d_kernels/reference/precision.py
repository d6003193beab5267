"""The precision in which an op computes, and the filling of results from it."""

from collections.abc import Sequence

import torch
from torch import Tensor


def compute_dtype(*tensors: Tensor | None) -> torch.dtype:
    """float64 when any given tensor is float64, else float32."""
    return torch.float64 if any(t is not None and t.dtype == torch.float64 for t in tensors) else torch.float32


def fill(results: Sequence[Tensor | None], values: Sequence[Tensor]) -> None:
    """Round `values` into those of `results` that are not None."""
    for result, value in zip([r for r in results if r is not None], values, strict=True):
        result.copy_(value)
