"""Argument checks whose errors name the op and the argument, what it must be, and what was given."""

from collections.abc import Sequence

import torch
from torch import Tensor

FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_floating(op: str, name: str, value: object) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{op}: {name} must be a tensor, got {type(value).__name__}")
    if value.dtype not in FLOATING:
        raise TypeError(f"{op}: {name} must be float16, bfloat16, float32 or float64, got {value.dtype}")


def check_shape(op: str, name: str, value: Tensor, expected: Sequence[int], meaning: str) -> None:
    if tuple(value.shape) != tuple(expected):
        raise ValueError(f"{op}: {name} must be {meaning} = {list(expected)}, got {list(value.shape)}")


def check_device(op: str, name: str, value: Tensor, device: torch.device) -> None:
    if value.device != device:
        raise ValueError(f"{op}: {name} must be on {device} as the other tensors, got {value.device}")


def per_sample(op: str, name: str, value: Tensor | float, image: Tensor, dtype: torch.dtype) -> Tensor:
    """A schedule value as a tensor [B] on the device of `image` [B,C,H,W]: a tensor [B] or scalar as it is, a number as
    `dtype`."""
    batch = image.shape[0]
    if isinstance(value, Tensor):
        check_floating(op, name, value)
        check_device(op, name, value, image.device)
        if value.dim() == 0:  # 16 bits would round every sample's gradient before autograd adds them up
            return value.to(torch.promote_types(value.dtype, torch.float32)).expand(batch)
        check_shape(op, name, value, (batch,), "a scalar or [B]")
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float, torch.SymFloat, torch.SymInt)):
        raise TypeError(f"{op}: {name} must be a number or a tensor [B], got {type(value).__name__}")
    return torch.full((batch,), value, dtype=dtype, device=image.device)
