"""The options of a process as plain Python numbers; errors name the process and the option."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from f2d_kernels._checks import real, whole


def number(owner: str, name: str, value: Any, meaning: str = "a number") -> float:
    """Return a real number, or a tensor or array of one, as a float; raise TypeError for anything else, also bools."""
    return real(owner, name, _plain(value), meaning)


def count(owner: str, name: str, value: Any, meaning: str = "a whole number") -> int:
    """Return an integer, or a tensor or array of one, as an int; raise TypeError for anything else, also bools."""
    return whole(owner, name, _plain(value), meaning)


def flag(owner: str, name: str, value: Any) -> bool:
    """Return True or False; raise TypeError for anything else, because a text such as "False" would count as True."""
    value = _plain(value)
    if not isinstance(value, bool):
        raise TypeError(f"{owner}: {name} must be True or False, got {type(value).__name__}")
    return value


def limit(owner: str, name: str, value: Any) -> float | None:
    """Return a number above 0, or None for no limit; raise ValueError for other numbers."""
    if value is None:
        return None
    found = number(owner, name, value, "a number or None")
    if not found > 0:
        raise ValueError(f"{owner}: {name} must be > 0, got {found}")
    return found


def levels(owner: str, name: str, values: Tensor | Sequence[float]) -> Tensor:
    """Return float64 [T] on the CPU; raise ValueError unless there is at least one value and all are finite."""
    listed = [number(owner, name, v, "a sequence of numbers [T]") for v in _listed(owner, name, values, "numbers [T]")]
    found = torch.tensor(listed, dtype=torch.float64)
    if len(found) == 0 or not found.isfinite().all():
        raise ValueError(f"{owner}: {name} must hold T finite numbers, got {brief(listed)}")
    return found


def visited(owner: str, times: Sequence[int] | Tensor | None, length: int) -> list[int]:
    """Return a sampler's times, noisiest first, by default length-1..0; raise ValueError unless they fall in range."""
    if times is None:
        return list(range(length))[::-1]
    found = [count(owner, "times", t, "whole numbers") for t in _listed(owner, "times", times, "whole numbers")]
    if not found or not all(a > b for a, b in pairwise(found)) or found[-1] < 0 or found[0] >= length:
        raise ValueError(f"{owner}: times must fall from at most {length - 1} to at least 0, got {brief(found)}")
    return found


def brief(values: Sequence[float]) -> str:
    return str(list(values)) if len(values) <= 8 else f"[{values[0]}, {values[1]}, ..., {values[-1]}]"


def _listed(owner: str, name: str, values: Any, meaning: str) -> list[Any]:
    """Return the elements of a sequence, tensor or array."""
    values = values.tolist() if hasattr(values, "tolist") else values
    if isinstance(values, (str, bytes, dict)) or not isinstance(values, Iterable):
        raise TypeError(f"{owner}: {name} must be a sequence of {meaning}, got {type(values).__name__}")
    return list(values)


def _plain(value: Any) -> Any:
    """Return the Python number in a tensor, array or NumPy scalar of one element; anything else unchanged."""
    if isinstance(value, (int, float)):  # a compiler's symbols too, which have no attributes
        return value
    if isinstance(value, Tensor):
        return value.item() if value.numel() == 1 else value
    return value.item() if getattr(value, "size", None) == 1 else value
