"""Shared by all launchers: start a kernel, strides that are safe to flatten, and element types."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from f2d_kernels.triton._autotune import tuned_warps

INT32_LIMIT = 2**31
INTERPRETED: tl.constexpr = tl.constexpr(type(tl.philox).__name__ == "InterpretedFunction")


def launch(
    kernel: Any, programs: int, device: torch.device, *arguments: Any, tuned: bool = True, **constants: Any
) -> None:
    """Start `kernel` on `programs` programs, on the current stream of `device`; the host does not wait.

    The grid has one axis, since a second one ends at 65535 on NVIDIA GPUs. Fusion is off because the kernels spell out
    each fma, so results do not depend on the compiler's contractions and equal those of the C++ code. If `num_warps` is
    among the constants, it is the rule of thumb from which the autotuner starts, unless `tuned` is False. Timing runs a
    launch several times, so no kernel may read what its launch writes.
    """

    def run(warps: int | None) -> None:
        chosen = constants if warps is None else {**constants, "num_warps": warps}
        kernel[(programs,)](*arguments, **chosen, enable_fp_fusion=False)

    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        warps = None
        if tuned and "num_warps" in constants:
            warps = tuned_warps(kernel, programs, device, arguments, constants, run)
        run(warps)


def strides(tensor: Tensor | None) -> tuple[int, int, int, int]:
    """Return the (batch, channel or expert, row, column) strides of [B,C,H,W]; those of size 1 are made to fit a flat
    walk."""
    if tensor is None:
        return 0, 0, 0, 0
    batch, channel, row, column = tensor.stride()
    height, width = tensor.shape[2:]
    if width == 1:
        column = row
    if height == 1:
        row = column * width
    return batch, channel, row, column


def flat_pixels(width: int, all_strides: Sequence[tuple[int, int, int, int]]) -> bool:
    """Whether the pixels of an image are equidistant in every tensor, so that rows and columns need no distinction."""
    return all(row == width * column for _, _, row, column in all_strides)


def index_type(*sizes: int) -> tl.dtype:
    """Return int32 if it can count each of `sizes` plus a block, otherwise int64, whose divisions cost far more."""
    return tl.int32 if max(sizes) < INT32_LIMIT - 2**16 else tl.int64


@triton.jit
def block_count(size, BLOCK: tl.constexpr, INDEX: tl.constexpr):
    """Return the number of blocks that cover `size`, in type INDEX; in 32 bits, size + BLOCK - 1 may overflow."""
    return tl.cdiv(tl.cast(size, INDEX), BLOCK)


def compute_type(*tensors: Tensor | None) -> tuple[torch.dtype, tl.dtype]:
    """Return (PyTorch's, Triton's) float64 if any tensor is float64, otherwise float32."""
    if any(t is not None and t.dtype == torch.float64 for t in tensors):
        return torch.float64, tl.float64
    return torch.float32, tl.float32


@triton.jit
def pixel_offsets(p, width, stride, FLAT: tl.constexpr):
    """Return int64 offsets of pixels p = y·width + x within a plane; stride is (batch, channel, row, column)."""
    if FLAT:
        return p.to(tl.int64) * stride[3]
    else:
        return (p // width).to(tl.int64) * stride[2] + (p % width).to(tl.int64) * stride[3]


@triton.jit
def as_type(values, DTYPE: tl.constexpr):
    """Round `values` to DTYPE as GPUs do, to nearest even. Triton's interpreter would convert float64 to garbage in 16
    bits, hence the step through float32, and would truncate to bfloat16."""
    if DTYPE.primitive_bitwidth == 16:
        values = values.to(tl.float32)
    if INTERPRETED and tl.bfloat16 == DTYPE:
        bits = values.to(tl.uint32, bitcast=True)
        bits = tl.where(values == values, bits + 0x7FFF + ((bits >> 16) & 1), 0x7FC00000)
        values = (bits & 0xFFFF0000).to(tl.float32, bitcast=True)
    return values.to(DTYPE)


@triton.jit
def rounded(values, pointer):
    """Round `values` to the dtype that `pointer` points to."""
    return as_type(values, pointer.dtype.element_ty)
