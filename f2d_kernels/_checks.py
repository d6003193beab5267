"""Argument checks whose errors name the op and the argument, what it must be, and what was given."""

import numbers
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_floating(op: str, name: str, value: object) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{op}: {name} must be a tensor, got {type(value).__name__}")
    check_dense(op, name, value)
    if value.dtype not in FLOATING:
        raise TypeError(f"{op}: {name} must be float16, bfloat16, float32 or float64, got {value.dtype}")


def as_list(op: str, name: str, value: Any) -> list[Tensor]:
    """Return the tensors of a sequence, or of one tensor alone, as a list; the elements are not checked."""
    if isinstance(value, Tensor):
        return [value]
    try:
        return list(value)
    except TypeError:
        kind = type(value).__name__
        raise TypeError(f"{op}: {name} must be a tensor or a sequence of tensors, got {kind}") from None


def check_dense(op: str, name: str, value: Tensor) -> None:
    if value.layout != torch.strided or value.is_nested:
        kind = "a nested tensor" if value.is_nested else str(value.layout)
        raise TypeError(f"{op}: {name} must be a dense (torch.strided) tensor, got {kind}")


def check_shape(op: str, name: str, value: Tensor, expected: Sequence[int], meaning: str) -> None:
    if tuple(value.shape) != tuple(expected):
        raise ValueError(f"{op}: {name} must be {meaning} = {list(expected)}, got {list(value.shape)}")


def check_device(op: str, name: str, value: Tensor, device: torch.device) -> None:
    if value.device != device:
        raise ValueError(f"{op}: {name} must be on {device} as the other tensors, got {value.device}")


def per_sample(op: str, name: str, value: Tensor | float, image: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a schedule value as a tensor [B] on the device of `image` [B,C,H,W].

    A number gets `dtype`, and a scalar tensor at least float32.
    """
    batch = image.shape[0]
    if isinstance(value, Tensor):
        check_floating(op, name, value)
        check_device(op, name, value, image.device)
        if value.dim() == 0:  # 16 bits would round every sample's gradient before autograd adds them up
            return value.to(torch.promote_types(value.dtype, torch.float32)).expand(batch)
        check_shape(op, name, value, (batch,), "a scalar or [B]")
        return value
    return torch.full((batch,), real(op, name, value, "a number or a tensor [B]"), dtype=dtype, device=image.device)


def whole(op: str, name: str, value: Any, meaning: str = "a whole number") -> int:
    """Return an int, a torch.SymInt, or a NumPy integer as an int; raise TypeError for anything else, also bools."""
    known: Any = value  # unlike `value`, not narrowed by mypy
    if type(value) is int or isinstance(value, torch.SymInt):
        return known
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{op}: {name} must be {meaning}, got {type(value).__name__}")
    return int(value)


def real(op: str, name: str, value: Any, meaning: str = "a number") -> float:
    """Return a float, torch.SymFloat, or other real number as a float; raise TypeError for others, also bools."""
    known: Any = value
    if type(value) is float or isinstance(value, (torch.SymFloat, torch.SymInt)):
        return known
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{op}: {name} must be {meaning}, got {type(value).__name__}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{op}: {name} must fit in a float, got a number of more than 10**308") from None


def bounds(op: str, name: str, value: Any) -> tuple[float, float]:
    """Return (low, high) as floats; raise ValueError unless low <= high."""
    if type(value) is tuple and len(value) == 2:
        low, high = value
        if type(low) is float and type(high) is float and low <= high:
            return value
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise ValueError(f"{op}: {name} must be (low, high), got {value!r}")
    low, high = (real(op, name, bound, "(low, high), two numbers") for bound in value)
    if not low <= high:  # NaN too
        raise ValueError(f"{op}: {name} must be (low, high) with low <= high, got {value!r}")
    return low, high
