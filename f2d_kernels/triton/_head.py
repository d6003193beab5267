"""Shared by the forward and backward kernels of expert_head: weights and parameters of a group of experts."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def weights_of(weight, stride, b, k: tl.constexpr, c, f, on):
    """Load weight[b,k,f,c] [BLOCK_C, 1] of channels c."""
    place = weight + b * stride[0] + tl.cast(k, tl.int64) * stride[1] + tl.cast(f, tl.int64) * stride[2]
    return tl.load(place + c.to(tl.int64) * stride[3], mask=on, other=0.0)[:, None]


@triton.jit
def bias_of(bias, stride, k: tl.constexpr, c, on, COMPUTE: tl.constexpr):
    """Load bias[k,c] [BLOCK_C, 1] of channels c."""
    place = bias + tl.cast(k, tl.int64) * stride[0] + c.to(tl.int64) * stride[1]
    return tl.load(place, mask=on, other=0.0).to(COMPUTE)[:, None]


def folded_weights(weight: Tensor, scale: Tensor | None, dtype: torch.dtype) -> Tensor:
    """weight[k,c,f] · scale[b,k,f] as [B,K,F,C] in memory: a program reads all channels of a feature together."""
    weight = weight.to(dtype).transpose(1, 2)[None]
    return (weight if scale is None else weight * scale.to(dtype)[..., None]).contiguous()


def parameters_of(weight: Tensor, bias: Tensor | None, gates: Tensor, batch: int, group: slice) -> tuple[Any, Any]:
    """Return folded weights, bias and gates of a group of experts, and their strides."""
    chosen = weight.expand(batch, -1, -1, -1)[:, group], None if bias is None else bias[group], gates[:, group]
    return chosen, tuple((0, 0, 0) if t is None else t.stride() for t in chosen)
