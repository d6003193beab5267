"""Attention across channels, at a cost linear in the number of pixels."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ChannelAttention(nn.Module):
    """``x += proj(softmax(τ q̂ k̂ᵀ) v)``, then ``x += FFN(GN(x))``.

    x [B, C, h, w] -> the same shape. A 1x1 and a depthwise 3x3 convolution compute q, k and v from GN(x); q̂ and k̂ are
    normalised to unit length over the pixels. Each of `heads` heads attends among its C / heads channels, with a
    learned temperature τ. FFN is 1x1 (4 C), GELU, 1x1.
    """

    def __init__(self, channels: int, heads: int, groups: int):
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.norm1 = nn.GroupNorm(groups, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.qkv_depthwise = nn.Conv2d(3 * channels, 3 * channels, 3, padding=1, groups=3 * channels)
        self.proj = nn.Conv2d(channels, channels, 1)
        self.norm2 = nn.GroupNorm(groups, channels)
        self.ffn = nn.Sequential(nn.Conv2d(channels, 4 * channels, 1), nn.GELU(), nn.Conv2d(4 * channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        qkv = self.qkv_depthwise(self.qkv(self.norm1(x)))
        q, k, v = qkv.reshape(batch, 3, self.heads, channels // self.heads, height * width).unbind(1)
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        attention = (self.temperature * (q @ k.transpose(-2, -1))).softmax(dim=-1)  # [B, heads, C/heads, C/heads]
        x = x + self.proj((attention.to(v.dtype) @ v).reshape(batch, channels, height, width))
        return x + self.ffn(self.norm2(x))
