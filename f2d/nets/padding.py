"""Pad images of any size to multiples of the network's stride."""

import torch.nn.functional as F
from torch import Tensor


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Extend ``x`` to the right and below until both sizes are multiples of `multiple`.

    x is [B, C, H, W] with any H, W >= 1. Each axis is reflected; if it is too short to reflect, its edge is repeated
    (reflection needs more pixels than it adds).
    """
    for axis in (3, 2):
        size = x.shape[axis]
        extra = -size % multiple
        if extra:
            padding = (0, extra, 0, 0) if axis == 3 else (0, 0, 0, extra)
            x = F.pad(x, padding, mode="reflect" if extra < size else "replicate")
    return x
