"""Allocation of results in one place, so that tests can fill every output with NaN before a kernel runs."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

new_memory = torch.empty  # tests replace it to fill new memory with NaN


def is_channels_last(image: Tensor) -> bool:
    """Whether the channels of `image` [..., C, H, W] lie next to each other in memory (C = 1 or H·W = 1 counts as
    NCHW)."""
    if image.stride(-3) != 1:
        return False
    channels, height, width = image.shape[-3:]
    return channels > 1 and height * width > 1


def empty_image(shape: Sequence[int], dtype: torch.dtype, like: Tensor, channels_last: bool) -> Tensor:
    """Uninitialised dense image(s) [..., C, H, W] on the device of `like`, NCHW or with channels innermost."""
    if not channels_last:
        return empty(shape, dtype, like)
    *batch, channels, height, width = shape
    return empty((*batch, height, width, channels), dtype, like).movedim(-1, -3)


def empty(shape: Sequence[int], dtype: torch.dtype, like: Tensor) -> Tensor:
    """Uninitialised contiguous tensor on the device of `like`."""
    return new_memory(shape, dtype=dtype, device=like.device)


def empty_gradient(of: Tensor | None, needed: bool, channels_last: bool = False) -> Tensor | None:
    """Uninitialised dense gradient of the tensor `of`, None where it is not needed."""
    if of is None or not needed:
        return None
    if channels_last or new_memory is not torch.empty:
        return empty_image(of.shape, of.dtype, of, channels_last)
    return torch.empty_like(of, memory_format=torch.contiguous_format)  # in a third of the time of torch.empty


def stand_in(tensor: Tensor, direct: bool) -> Tensor:
    """A tensor with the shape and dtype of `tensor` but one element of memory, saved where only the shape is needed.

    direct: `tensor` is a plain one on the CPU, in none of PyTorch's modes (see `_direct`).
    """
    if direct:
        return _zeros(tensor.shape, tensor.dtype)
    return tensor.new_zeros(()).expand(tensor.shape)


@lru_cache(256)  # making one takes 4 us
def _zeros(shape: torch.Size, dtype: torch.dtype) -> Tensor:
    return torch.zeros((), dtype=dtype, device="cpu").expand(shape)


def common_dtype(*tensors: Tensor | None) -> torch.dtype:
    """Return the promoted dtype of all given tensors; None is ignored."""
    dtypes = [t.dtype for t in tensors if t is not None]
    result = dtypes[0]
    for dtype in dtypes[1:]:
        result = torch.promote_types(result, dtype)
    return result
