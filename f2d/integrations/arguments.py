"""Check the arguments of the scheduler, in which numbers of Python, NumPy and PyTorch are equivalent."""

import numbers
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def whole(value: Any, name: str) -> int:
    value = _plain(value)
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"LogNormalScheduler: {name} must be an integer, got {value!r}")
    return int(value)


def number(value: Any, name: str) -> float:
    value = _plain(value)
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"LogNormalScheduler: {name} must be a number, got {value!r}")
    return float(value)


def _plain(value: Any) -> Any:
    """Return the Python number in a 0-dimensional tensor, array or NumPy scalar, and anything else unchanged."""
    return value.item() if getattr(value, "ndim", None) == 0 else value


def rates(values: Any, name: str) -> Tensor:
    """Convert T numbers to float64 [T]."""
    listed = values.tolist() if hasattr(values, "tolist") else values
    if not isinstance(listed, Sequence) or isinstance(listed, str):
        raise TypeError(f"LogNormalScheduler: {name} must be a name or a sequence of numbers, got {values!r}")
    return torch.tensor([number(rate, name) for rate in listed], dtype=torch.float64)
