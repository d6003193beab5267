"""Shared backbone: a time-conditioned U-Net whose inputs are the state and the image."""

import itertools
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from f2d.nets.residual_block import ResidualBlock, zeroed
from f2d.nets.time_embedding import TimeEmbedding
from f2d_kernels import modules

from .channel_attention import ChannelAttention
from .config import F2DNetConfig
from .frequency_embedding import FrequencyEmbedding


class BackboneOutput(NamedTuple):
    shared: Tensor  # [B, head channels, h, w]: the correction that all factors share
    features: Tensor  # [B, stage_widths[0], h, w]: the experts' input
    time: Tensor  # [B, time_dim]
    frequency: Tensor  # [B, frequency_dim]


class Stages(nn.Module):
    """The order of a backbone's layers, which the network and its engine share.

    A subclass has the layers, and ``_raised(layer, h, skip)``: the upsampled features of a light design plus the skip
    connection.
    """

    def through(self, conv_in: nn.Module, x: Tensor, time: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Return (shared head, experts' input, bottleneck's features); time is what the blocks take."""
        h = conv_in(x)
        skips = []
        for level, blocks in enumerate(self.down_blocks):
            for block in blocks:
                h = block(h, time)
            skips.append(h)
            if level < len(self.downsamples):
                h = self.downsamples[level](h)
        for block in self.mid_blocks:
            h = block(h, time)
        h = bottleneck = self.mid_attention(h)
        for level, blocks in enumerate(self.up_blocks):
            h = self._upward(level, h, skips.pop())
            for block in blocks:
                h = block(h, time)
        return self.conv_out(self.norm_out(h)), h, bottleneck

    def _upward(self, level: int, h: Tensor, skip: Tensor) -> Tensor:
        """Compute the input of decoder stage `level`."""
        if self.light:  # without middle blocks, h is the skip connection itself
            return h if level == 0 else self._raised(self.upsamples[level - 1], h, skip)
        if level > 0:
            h = self.upsamples[level - 1](F.interpolate(h, scale_factor=2, mode="bilinear"))
        return torch.cat([h, skip], dim=1)


class Backbone(Stages):
    """``(shared, features) = U-Net([x_t, y], t)``: residual blocks with FiLM, channel attention at the bottleneck.

    x [B, image channels · 2, h, w] with h and w multiples of 2^(stages - 1), t [B]. Stride-2 3x3 convolutions
    downsample between stages. The published design upsamples by bilinear x2 and a 3x3 convolution, and concatenates the
    skip connections. The light design upsamples by a 1x1 convolution and pixel shuffle, adds the skip connections, and
    has no attention.
    """

    def __init__(self, config: F2DNetConfig):
        super().__init__()
        widths, depths = config.stage_widths, config.blocks_per_stage

        def block(in_channels: int, out_channels: int) -> ResidualBlock:
            return ResidualBlock(in_channels, out_channels, config.time_dim, config.groups)

        def stage(in_channels: int, out_channels: int, depth: int) -> nn.ModuleList:
            return nn.ModuleList(block(in_channels if i == 0 else out_channels, out_channels) for i in range(depth))

        self.time_embedding = TimeEmbedding(config.time_dim)
        self.conv_in = nn.Conv2d(2 * config.image_channels, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(
            stage(before, width, depth)
            for before, width, depth in zip((widths[0], *widths), widths, depths, strict=False)
        )
        self.downsamples = nn.ModuleList(nn.Conv2d(w, w, 3, stride=2, padding=1) for w in widths[:-1])
        self.mid_blocks = nn.ModuleList(block(widths[-1], widths[-1]) for _ in range(config.bottleneck_blocks))
        self.light = config.design == "light"
        self.mid_attention: nn.Module = nn.Identity()
        if not self.light:
            self.mid_attention = ChannelAttention(widths[-1], config.attention_heads, config.groups)
        self.frequency_embedding = FrequencyEmbedding(widths[-1], config.frequency_dim)
        upward = widths[::-1]
        if self.light:
            entering: tuple[int, ...] = upward  # stage widths, so that the skip connection can be added
            ups = [nn.Conv2d(w, 4 * after, 1) for w, after in itertools.pairwise(upward)]
        else:
            entering = tuple(before + width for before, width in zip((upward[0], *upward), upward, strict=False))
            ups = [nn.Conv2d(w, w, 3, padding=1) for w in upward[:-1]]
        self.up_blocks = nn.ModuleList(
            stage(before, width, depth) for before, width, depth in zip(entering, upward, depths[::-1], strict=True)
        )
        self.upsamples = nn.ModuleList(ups)
        self.norm_out = modules.GroupNormSiLU(config.groups, widths[0])
        self.conv_out = nn.Conv2d(widths[0], config.head_channels, 3, padding=1)
        if config.head == "affine":  # initially v = 0, so the restored output is the input
            zeroed(self.conv_out)

    def forward(self, x: Tensor, t: Tensor) -> BackboneOutput:
        time = self.time_embedding(t)
        shared, features, bottleneck = self.through(self.conv_in, x, time)
        return BackboneOutput(shared, features, time, self.frequency_embedding(bottleneck))

    def _raised(self, layer: nn.Module, h: Tensor, skip: Tensor) -> Tensor:
        # pixel shuffle returns a contiguous tensor, but the blocks work in channels_last
        return F.pixel_shuffle(layer(h), 2).contiguous(memory_format=torch.channels_last) + skip
