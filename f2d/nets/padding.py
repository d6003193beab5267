"""Padding of any image to a size the network can halve."""

import torch.nn.functional as F
from torch import Tensor


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """``x`` extended to the right and below until both sizes are multiples of `multiple`.

    x [B, C, H, W], any H, W >= 1. Each axis is reflected, or its edge repeated where it is too short to reflect
    (reflection needs more pixels than it adds).
    """
    for axis in (3, 2):
        size = x.shape[axis]
        extra = -size % multiple
        if extra:
            padding = (0, extra, 0, 0) if axis == 3 else (0, 0, 0, extra)
            x = F.pad(x, padding, mode="reflect" if extra < size else "replicate")
    return x
