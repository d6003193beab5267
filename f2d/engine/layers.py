"""The layers of the engine: eval-only, weights in the engine's type and channels_last, small vectors in float32."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from f2d_kernels import group_norm_silu

from .statistics import Statistics, moments

LEAK = 0.2


class Conv(nn.Module):
    """``conv2d(x) [+ residual]``, or its transpose; the sum is made in place in the convolution's own result.

    Plain `F.conv2d`: on this path oneDNN's packed weights and its fused sum were measured within 3 % of it.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, like: nn.Conv2d | nn.ConvTranspose2d, dtype: torch.dtype):
        super().__init__()
        self.stride, self.padding, self.dilation, self.groups = like.stride, like.padding, like.dilation, like.groups
        self.transposed = isinstance(like, nn.ConvTranspose2d)
        self.register_buffer("weight", weight.detach().to(dtype, memory_format=torch.channels_last, copy=True))
        self.register_buffer("bias", None if bias is None else bias.detach().to(dtype, copy=True))

    @classmethod
    def of(cls, conv: nn.Conv2d | nn.ConvTranspose2d, dtype: torch.dtype) -> "Conv":
        return cls(conv.weight, conv.bias, conv, dtype)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        x = x.to(self.weight.dtype)
        if self.transposed:
            out = F.conv_transpose2d(x, self.weight, self.bias, self.stride, self.padding)
        else:
            out = F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
        return out if residual is None else out.add_(residual)


class Norm(nn.Module):
    """``SiLU(GN(x) · (1 + scale) + shift)``, or the normalisation alone (`silu` False), by the statistics given.

    Measuring, one fused kernel does it all. Otherwise GN(x) is x · gain + offset with the recorded moments.
    film (scale, shift), each [C] float32, or None; with return_mean also the result's channel means [B, C].
    """

    def __init__(self, norm: nn.GroupNorm, name: str, silu: bool = True):
        super().__init__()
        self.groups, self.eps, self.name, self.silu = norm.num_groups, norm.eps, name, silu
        wide = torch.promote_types(norm.weight.dtype, torch.float32)
        self.register_buffer("weight", norm.weight.detach().to(wide, copy=True))
        self.register_buffer("bias", norm.bias.detach().to(wide, copy=True))

    def forward(
        self, x: Tensor, statistics: Statistics, film: tuple[Tensor, Tensor] | None = None, return_mean: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        weight, bias = self.weight, self.bias
        if film is not None:  # GN(x) (1 + scale) + shift is a GN with other constants
            scale, shift = film
            weight, bias = weight * (1 + scale), bias * (1 + scale) + shift
        if statistics.measuring and self.silu:
            return group_norm_silu(x, self.groups, weight, bias, eps=self.eps, return_mean=return_mean)
        mean, rstd = statistics.of(f"{self.name}.moments", lambda: moments(x, self.groups, self.eps))
        gain = rstd * weight
        out = torch.addcmul((bias - mean * gain)[:, :, None, None], x, gain[:, :, None, None])
        out = (F.silu(out, inplace=True) if self.silu else out).to(x.dtype)
        if not return_mean:
            return out
        return out, statistics.of(f"{self.name}.mean", lambda: spatial_mean(out))


def spatial_mean(x: Tensor) -> Tensor:
    """[B, C] of [B, C, H, W], summed in float32 or wider."""
    return x.mean(dim=(2, 3), dtype=torch.promote_types(x.dtype, torch.float32))


def leaky(x: Tensor) -> Tensor:
    """LeakyReLU 0.2, in place: x is a convolution's fresh result."""
    return F.leaky_relu_(x, LEAK)


def wide_copy(module: nn.Module) -> nn.Module:
    """A copy of a small module (MLPs: a few numbers per image) in float32 or wider, without gradients."""
    import copy

    dtype = torch.promote_types(next(module.parameters()).dtype, torch.float32)
    return copy.deepcopy(module).to(dtype).requires_grad_(False).eval()
