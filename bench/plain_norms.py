"""The networks' group norm and SiLU as most U-Nets write them, to compare with and to accelerate."""

import torch.nn.functional as F
from torch import Tensor, nn

from f2d_kernels.modules import GroupNormSiLU


class PlainNormSiLU(nn.Module):
    """silu(group_norm(x) (1 + scale) + shift) by PyTorch's modules, with the parameters of a `GroupNormSiLU`."""

    def __init__(self, norm: GroupNormSiLU):
        super().__init__()
        self.norm = nn.GroupNorm(norm.num_groups, norm.num_channels, norm.eps)
        self.norm.weight, self.norm.bias = norm.weight, norm.bias

    def forward(self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        h = self.norm(x)
        if scale is not None:
            scale, shift = scale[:, :, None, None], shift[:, :, None, None]
            h = h * (1 + scale) + shift
        return F.silu(h)


def with_plain_norms(net: nn.Module) -> nn.Module:
    """Replace every `GroupNormSiLU` in `net` by a `PlainNormSiLU` with its parameters; return `net`."""
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, GroupNormSiLU):
                setattr(parent, name, PlainNormSiLU(child))
    return net
