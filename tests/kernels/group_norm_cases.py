"""What the tests of group_norm_silu share: its formula, its arguments, and where it runs."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from .cases import lay_out, random

BACKENDS = ["reference", "cpp", "triton"]
SWEEP = ["reference", "cpp", pytest.param("triton", marks=() if torch.cuda.is_available() else pytest.mark.slow)]


def two_pass(x: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """F.group_norm in float64 without its own rounding: PyTorch's subtracts squares."""
    grouped = x.unflatten(1, (groups, -1))
    centred = grouped - grouped.mean((2, 3, 4), keepdim=True)
    n = (centred / (centred.square().mean((2, 3, 4), keepdim=True) + 1e-5).sqrt()).flatten(1, 2)
    n = n if weight is None else n * weight[:, None, None]
    return n if bias is None else n + bias[:, None, None]


def formula(x: Tensor, groups: int, weight, bias, scale, shift, norm=two_pass) -> tuple[Tensor, Tensor]:
    """The formula as models write it, in the dtype of the arguments, and its spatial mean."""
    y = norm(x, groups, weight, bias)
    if scale is not None:
        y = y * (1 + scale[..., None, None])
    if shift is not None:
        y = y + shift[..., None, None]
    out = F.silu(y)
    return out, out.mean((2, 3))


def inputs(batch, channels, size, dtype, *, layout="contiguous", ratio=0.0, seed=0) -> list[Tensor | None]:
    """x of standard deviation 1 around `ratio`, and the four parameters."""
    x = random(batch, channels, *size, seed=seed).add(ratio).to(dtype)
    shapes = [(channels,), (channels,), (batch, channels), (batch, channels)]
    parameters = [random(*shape, seed=seed + 1 + i, dtype=dtype) for i, shape in enumerate(shapes)]
    return [lay_out(x, layout), *parameters]
