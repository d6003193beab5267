"""Inputs for the op tests: sizes around every vector and block boundary, memory layouts, devices."""

import os

import torch
from torch import Tensor

DEVICE = os.environ.get("F2D_KERNELS_TEST_DEVICE", "cpu")

# H·W around 1, 3, 31, 32, 33, 255, 256, 257, 4099 with widths that are and are not multiples of 4
SIZES = [(1, 1), (1, 3), (31, 1), (4, 8), (3, 11), (15, 17), (16, 16), (1, 257), (257, 1)]
LARGE_SIZE = (1, 4099)
CHANNELS = [1, 3, 31, 48, 64]
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
LAYOUTS = ["contiguous", "channels_last", "sliced", "expanded"]


def random(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype).to(DEVICE)


def lay_out(image: Tensor, layout: str) -> Tensor:
    """`image` [..., C, H, W] with the same values in another memory layout ("expanded" makes all rows equal first)."""
    if layout == "channels_last":
        return image.movedim(-3, -1).contiguous().movedim(-1, -3)
    if layout == "sliced":
        wider = torch.full(
            (*image.shape[:-1], image.shape[-1] + 5), float("nan"), dtype=image.dtype, device=image.device
        )
        wider[..., 2:-3] = image
        return wider[..., 2:-3]
    if layout == "expanded":
        return image[..., :1, :].expand(image.shape)
    return image.contiguous()
