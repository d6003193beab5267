"""The U-Net of DDPM, conditioned on time by adaptive normalisation."""

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from f2d.nets.residual_block import ResidualBlock, zeroed
from f2d.nets.time_embedding import TimeEmbedding
from f2d_kernels import modules

Modulations = Sequence[tuple[Tensor, Tensor]]


class AdaptiveBlock(ResidualBlock):
    """A `ResidualBlock`, conv2 zero-initialised as in DDPM, followed by self-attention if `attention`."""

    def __init__(self, in_channels: int, out_channels: int, time_dim: int, groups: int, attention: bool = False):
        super().__init__(in_channels, out_channels, time_dim, groups)
        zeroed(self.conv2)
        self.attention = SelfAttention(out_channels, groups) if attention else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return self.attention(super().forward(x, time))


class SelfAttention(nn.Module):
    """``x + proj(softmax(qᵀ k / sqrt(C)) v)`` between all pixels, one head; [q; k; v] = W GN(x), proj zero-initialised.

    x [B, C, h, w] -> the same shape. The cost grows with (h w)², so use it on coarse levels only.
    """

    def __init__(self, channels: int, groups: int):
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        tokens = self.qkv(self.norm(x)).reshape(batch, 3, 1, channels, height * width).transpose(-2, -1)
        h = F.scaled_dot_product_attention(*tokens.unbind(1))  # [B, 1, h w, C]
        return x + self.proj(h.transpose(-2, -1).reshape(batch, channels, height, width))


class UNet(nn.Module):
    """``velocity = U-Net(x, modulations, t)``: Ho et al., Denoising Diffusion Probabilistic Models (NeurIPS 2020).

    x [B, in_channels, h, w] with h and w multiples of 2^(levels - 1), t [B] -> [B, out_channels, h, w], initially zero.
    A stride-2 3x3 convolution leads to the next level down, nearest x2 and a 3x3 convolution to the next level up. The
    outputs of the first convolution, of every block and of every downsampling (modulated) are skip connections; each
    decoder block concatenates one. modulations: (scale, shift) per level, applied as h ⊙ (1 + scale) + shift at the
    entry of the level, or empty.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        widths: Sequence[int],
        blocks: Sequence[int],
        attention_levels: int,
        groups: int,
        time_dim: int,
    ):
        super().__init__()
        entries = entry_widths(widths)
        kept = []  # channels of the skip connections, in the order of their creation

        def block(level: int, before: int) -> AdaptiveBlock:
            return AdaptiveBlock(before, widths[level], time_dim, groups, level >= len(widths) - attention_levels)

        self.time_embedding = TimeEmbedding(time_dim)
        self.entries = nn.ModuleList([nn.Conv2d(in_channels, widths[0], 3, padding=1)])
        self.entries.extend(nn.Conv2d(width, width, 3, stride=2, padding=1) for width in entries[1:])
        self.down_blocks = nn.ModuleList()
        for level, (before, width) in enumerate(zip(entries, widths, strict=True)):
            inputs = [before] + [width] * blocks[level]
            self.down_blocks.append(nn.ModuleList(block(level, channels) for channels in inputs[:-1]))
            kept += inputs
        before = widths[-1]
        self.mid_blocks = nn.ModuleList(
            AdaptiveBlock(before, before, time_dim, groups, attention=first) for first in (True, False)
        )
        self.up_blocks = nn.ModuleList()
        for level, width in reversed(list(enumerate(widths))):
            inputs = [before] + [width] * blocks[level]
            self.up_blocks.append(nn.ModuleList(block(level, channels + kept.pop()) for channels in inputs))
            before = width
        self.upsamples = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for width in widths[:0:-1])
        self.norm_out = modules.GroupNormSiLU(groups, widths[0])
        self.conv_out = zeroed(nn.Conv2d(widths[0], out_channels, 3, padding=1))

    def forward(self, x: Tensor, modulations: Modulations, t: Tensor) -> Tensor:
        time, h, kept = self.time_embedding(t), x, []
        for entry, blocks, modulation in itertools.zip_longest(self.entries, self.down_blocks, modulations):
            h = entry(h)
            if modulation is not None:
                scale, shift = modulation
                h = torch.addcmul(h + shift, h, scale)
            kept.append(h)
            for block in blocks:
                h = block(h, time)
                kept.append(h)
        for block in self.mid_blocks:
            h = block(h, time)
        for blocks, upsample in itertools.zip_longest(self.up_blocks, self.upsamples):
            for block in blocks:
                h = block(torch.cat([h, kept.pop()], dim=1), time)
            if upsample is not None:
                h = upsample(F.interpolate(h, scale_factor=2, mode="nearest"))
        return self.conv_out(self.norm_out(h))


def entry_widths(widths: Sequence[int]) -> list[int]:
    """Return the channels at the entry of each level; downsampling keeps those of the previous level."""
    return [widths[0], *widths[:-1]]
