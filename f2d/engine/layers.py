"""The layers of the engine, for eval mode only: weights in the engine's dtype and channels_last, vectors in float32."""

import copy
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from f2d_kernels import group_norm_silu

from .folding import fold_transposed

LEAK = 0.2


class Conv(nn.Module):
    """``conv2d(x) [+ residual]``, adding in place; with `doubles` a pixel shuffle follows, which doubles the rows, and
    with `leaky` a LeakyReLU.

    It uses plain `F.conv2d`, as oneDNN's packed weights and fused sum were measured within 3 % of it. There are two
    exceptions where oneDNN's sums depend on the number of threads: transposed convolutions are folded
    (`folding.fold_transposed`), and float32 1x1 convolutions on a CPU are matrix products.
    """

    weight: Tensor
    bias: Tensor | None
    geometry: dict[str, Any]

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        like: nn.Conv2d | nn.ConvTranspose2d,
        dtype: torch.dtype,
        shuffled: bool = False,
        leaky: bool = False,
    ):
        super().__init__()
        transposed, self.leaky = isinstance(like, nn.ConvTranspose2d), leaky
        self.doubles = transposed or shuffled
        if transposed:
            weight = fold_transposed(weight.detach())
            bias = None if bias is None else bias.detach().repeat_interleave(4)
            self.geometry = {"padding": 1}
        else:
            self.geometry = {"stride": like.stride, "padding": like.padding, "dilation": like.dilation}
            self.geometry["groups"] = like.groups
        self.register_buffer("weight", weight.detach().to(dtype, memory_format=torch.channels_last, copy=True))
        self.register_buffer("bias", None if bias is None else bias.detach().to(dtype, copy=True))
        self.pointwise = weight.shape[2:] == (1, 1) and dtype != torch.bfloat16

    @classmethod
    def of(cls, conv: nn.Conv2d | nn.ConvTranspose2d, dtype: torch.dtype, **more: bool) -> "Conv":
        return cls(conv.weight, conv.bias, conv, dtype, **more)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        x = x.to(self.weight.dtype)
        if self.pointwise and x.device.type == "cpu" and not torch.compiler.is_exporting():
            out = pixelwise_linear(x, self.weight.flatten(1), self.bias)
        else:
            out = F.conv2d(x, self.weight, self.bias, **self.geometry)
        out = self.finished(out)
        return out if residual is None else out.add_(residual)

    def finished(self, out: Tensor) -> Tensor:
        """Shuffle and activate the result of the convolution itself."""
        if self.doubles:
            out = F.pixel_shuffle(out, 2).contiguous(memory_format=torch.channels_last)
        return leaky(out) if self.leaky else out


ROWS = 32


def pixelwise_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """[B, O, h, w] in channels_last: ``weight x(p) + bias`` at every pixel p of x [B, C, h, w].

    The product's rows are padded to a multiple of 32, so that threads split whole blocks of MKL's: with a few odd rows
    the sums would depend on the number of threads.
    """
    batch, channels, height, width = x.shape
    rows = x.permute(0, 2, 3, 1).reshape(-1, channels)
    count = rows.shape[0]
    if count % ROWS:
        rows = F.pad(rows, (0, 0, 0, -count % ROWS))
    return F.linear(rows, weight, bias)[:count].view(batch, height, width, -1).permute(0, 3, 1, 2)


class Norm(nn.Module):
    """``SiLU(GN(x) · (1 + scale) + shift)``, or the normalisation alone (`silu` False), of x [B, C, H, W].

    film (scale, shift), each [C] float32, or None; with return_mean also the result's channel means [B, C].
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, norm: nn.GroupNorm, silu: bool = True):
        super().__init__()
        self.groups, self.eps, self.silu = norm.num_groups, norm.eps, silu
        wide = torch.promote_types(norm.weight.dtype, torch.float32)
        self.register_buffer("weight", norm.weight.detach().to(wide, copy=True))
        self.register_buffer("bias", norm.bias.detach().to(wide, copy=True))

    def forward(
        self, x: Tensor, film: tuple[Tensor, Tensor] | None = None, return_mean: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        if self.silu:
            weight, bias = self._constants(film)
            return group_norm_silu(x, self.groups, weight, bias, eps=self.eps, return_mean=return_mean)
        out = self.given(x, moments(x, self.groups, self.eps), film)
        return (out, spatial_mean(out)) if return_mean else out

    def given(self, x: Tensor, moments: Tensor, film: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Normalise x with given `moments` [2, B, C], for example those of the image that x is a band of."""
        weight, bias = self._constants(film)
        mean, rstd = moments
        gain = rstd * weight
        out = torch.addcmul((bias - mean * gain)[:, :, None, None], x, gain[:, :, None, None])
        return (F.silu(out, inplace=True) if self.silu else out).to(x.dtype)

    def _constants(self, film: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
        """Return weight and bias of ``GN(x) (1 + scale) + shift``, which is again a GN."""
        if film is None:
            return self.weight, self.bias
        scale, shift = film
        return self.weight * (1 + scale), self.bias * (1 + scale) + shift


def moments(x: Tensor, groups: int, eps: float) -> Tensor:
    """Return [2, B, C]: group mean and ``1 / sqrt(variance + eps)`` per channel of x [B, C, H, W], float32 or wider."""
    wide = x.dtype if x.dtype == torch.float64 else torch.float32
    grouped = x.unflatten(1, (groups, -1)).to(wide)
    variance, mean = torch.var_mean(grouped, dim=(2, 3, 4), correction=0)
    per_group = torch.stack([mean, (variance + eps).rsqrt()])
    return per_group.repeat_interleave(x.shape[1] // groups, dim=2)


def spatial_mean(x: Tensor) -> Tensor:
    """Return the mean [B, C] of [B, C, H, W], summed in float32 or wider."""
    return x.mean(dim=(2, 3), dtype=torch.promote_types(x.dtype, torch.float32))


def leaky(x: Tensor) -> Tensor:
    """Apply LeakyReLU 0.2 in place, since x is the fresh result of a convolution."""
    return F.leaky_relu_(x, LEAK)


def wide_copy(module: nn.Module) -> nn.Module:
    """Copy a small module (an MLP, a few numbers per image) to float32 or wider, without gradients."""
    dtype = torch.promote_types(next(module.parameters()).dtype, torch.float32)
    return copy.deepcopy(module).to(dtype).requires_grad_(False).eval()


def without_autocast(device: torch.device) -> AbstractContextManager:
    """Return a context in which a caller's autocast has no effect on `device`; the engine chooses its own types."""
    return torch.autocast(device.type, enabled=False) if torch.amp.is_autocast_available(device.type) else nullcontext()
