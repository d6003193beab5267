"""Bit-exact sums that do not depend on block size, number of warps or memory layout.

A tile of fixed size is summed in pairs (a + b is commutative, so it does not matter which thread adds). Each tile's sum
is stored, and a second kernel adds these in a fixed order. There are no atomics.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from f2d_kernels.triton._launch import index_type, launch, rounded

LANES = 256  # virtual lanes of the second kernel


@triton.constexpr_function
def _log2(power_of_two):
    return power_of_two.bit_length() - 1


@triton.jit
def tree_sum(values, COUNT: tl.constexpr):
    """Sum every COUNT neighbours in a binary tree, [..., N] -> [..., N / COUNT]; COUNT is a power of two."""
    tl.static_assert(len(values.shape) <= 2)
    for _ in tl.static_range(_log2(COUNT)):
        if len(values.shape) == 1:
            values = tl.sum(tl.reshape(values, [values.shape[0] // 2, 2]), axis=1)
        else:
            values = tl.sum(tl.reshape(values, [values.shape[0], values.shape[1] // 2, 2]), axis=2)
    return values


@triton.jit
def _sum_rows_kernel(partials, out, count, LANES: tl.constexpr, INDEX: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, LANES)
    total = tl.zeros([LANES], partials.dtype.element_ty)
    for first in range(0, tl.cast(count, INDEX), LANES):
        index = first + lane
        total += tl.load(partials + row * count + index, mask=index < count, other=0.0)
    total = tl.sum(tree_sum(total, LANES), axis=0)
    tl.store(out + row, rounded(total, out))


def sum_rows(partials: Tensor | None, out: Tensor | None) -> None:
    """out[r] = Σ_t partials[r, t] of contiguous tensors [..., T] and [...]: lane j adds t = j, j + LANES, ...; nothing
    where they are None."""
    if partials is None or out is None:
        return
    rows, count = partials.numel() // partials.shape[-1], partials.shape[-1]
    launch(_sum_rows_kernel, rows, out.device, partials, out, count, LANES=LANES, INDEX=index_type(count))


def empty_partials(shape: tuple[int, ...], dtype: torch.dtype, like: Tensor) -> Tensor:
    """Allocate a workspace for the sums of tiles on the device of `like`."""
    return torch.empty(shape, dtype=dtype, device=like.device)


def partials_of(result: Tensor | None, shape: tuple[int, ...], dtype: torch.dtype, like: Tensor) -> Tensor | None:
    """Allocate partial sums of `result`, or return None if it is None."""
    return None if result is None else empty_partials(shape, dtype, like)
