"""The shared backbone of the engine."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from f2d.nets.f2dnet.backbone import Backbone, Stages
from f2d.nets.f2dnet.channel_attention import ChannelAttention
from f2d.nets.residual_block import ResidualBlock

from .folding import fold_film, fold_repeated_input
from .layers import Conv, Norm, spatial_mean, wide_copy


class Constants(NamedTuple):
    """Values that depend on t only: the time embedding [1, time_dim] and each block's (scale, shift), by name."""

    time: Tensor
    film: dict[str, tuple[Tensor, Tensor]]


class FastBlock(nn.Module):
    """`f2d.nets.residual_block.ResidualBlock` with its modulation given as constants."""

    def __init__(self, block: ResidualBlock, name: str, dtype: torch.dtype):
        super().__init__()
        self.name = name
        self.norm1, self.norm2 = Norm(block.norm1), Norm(block.norm2)
        self.conv1, self.conv2 = Conv.of(block.conv1, dtype), Conv.of(block.conv2, dtype)
        self.skip = None if isinstance(block.skip, nn.Identity) else Conv.of(block.skip, dtype)
        self.time_linear = wide_copy(block.time_linear)

    def forward(self, x: Tensor, constants: Constants) -> Tensor:
        h = self.conv1(self.norm1(x))
        h = self.norm2(h, constants.film[self.name])
        return self.conv2(h, x if self.skip is None else self.skip(x))


class FastAttention(nn.Module):
    """`f2d.nets.f2dnet.channel_attention.ChannelAttention` with the C x C matrix in float32."""

    temperature: Tensor

    def __init__(self, attention: ChannelAttention, dtype: torch.dtype):
        super().__init__()
        self.heads = attention.heads
        self.norm1, self.norm2 = Norm(attention.norm1, silu=False), Norm(attention.norm2, silu=False)
        self.qkv, self.qkv_depthwise = Conv.of(attention.qkv, dtype), Conv.of(attention.qkv_depthwise, dtype)
        self.proj = Conv.of(attention.proj, dtype)
        self.ffn = nn.ModuleList([Conv.of(attention.ffn[0], dtype), Conv.of(attention.ffn[2], dtype)])
        wide = torch.promote_types(attention.temperature.dtype, torch.float32)
        self.register_buffer("temperature", attention.temperature.detach().to(wide, copy=True))

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        qkv = self.qkv_depthwise(self.qkv(self.norm1(x)))
        q, k, v = qkv.reshape(batch, 3, self.heads, channels // self.heads, height * width).unbind(1)
        mixed = (self._matrix(q, k).to(v.dtype) @ v).reshape(batch, channels, height, width)
        x = self.proj(mixed.contiguous(memory_format=torch.channels_last), x)
        return self.ffn[1](F.gelu(self.ffn[0](self.norm2(x))), x)

    def _matrix(self, q: Tensor, k: Tensor) -> Tensor:
        """Compute [B, heads, C / heads, C / heads], summing over all pixels in float32 or wider."""
        q, k = (F.normalize(side.to(self.temperature.dtype), dim=-1) for side in (q, k))
        return (self.temperature * (q @ k.transpose(-2, -1))).softmax(dim=-1)


class FastBackbone(Stages):
    """`f2d.nets.f2dnet.backbone.Backbone`: (features, shared head's normalised input, frequency embedding's mean)."""

    laplacian: Tensor

    def __init__(self, backbone: Backbone, dtype: torch.dtype):
        super().__init__()

        def blocks(name: str) -> nn.ModuleList:
            stages = getattr(backbone, name)
            return nn.ModuleList(
                nn.ModuleList(FastBlock(block, f"{name}.{level}.{i}", dtype) for i, block in enumerate(stage))
                for level, stage in enumerate(stages)
            )

        def convolutions(layers: nn.ModuleList) -> nn.ModuleList:
            return nn.ModuleList(Conv.of(layer, dtype) for layer in layers)

        self.light = backbone.light
        self.time_embedding = wide_copy(backbone.time_embedding)
        self.conv_in = Conv.of(backbone.conv_in, dtype)
        folded = fold_repeated_input(backbone.conv_in.weight)
        self.conv_in_repeated = Conv(folded, backbone.conv_in.bias, backbone.conv_in, dtype)
        self.down_blocks, self.up_blocks = blocks("down_blocks"), blocks("up_blocks")
        self.downsamples = convolutions(backbone.downsamples)
        self.upsamples = nn.ModuleList(Conv.of(layer, dtype, shuffled=self.light) for layer in backbone.upsamples)
        self.mid_blocks = nn.ModuleList(
            FastBlock(block, f"mid_blocks.{i}", dtype) for i, block in enumerate(backbone.mid_blocks)
        )
        self.mid_attention = nn.Identity() if self.light else FastAttention(backbone.mid_attention, dtype)
        laplacian = backbone.frequency_embedding.laplacian
        self.register_buffer("laplacian", laplacian.detach().to(dtype, copy=True))
        self.frequency_mlp = wide_copy(backbone.frequency_embedding.mlp)
        self.norm_out, self.conv_out = Norm(backbone.norm_out), Conv.of(backbone.conv_out, dtype)

    def constants(self, t: int) -> Constants:
        """Compute everything that depends on t only."""
        time = self.time_embedding(torch.tensor([t], device=self.laplacian.device))
        blocks = [*self.mid_blocks, *(b for stages in (self.down_blocks, self.up_blocks) for s in stages for b in s)]
        return Constants(time, {block.name: fold_film(block.time_linear, time) for block in blocks})

    def frequency(self, h: Tensor) -> Tensor:
        """Compute [B, frequency_dim] from the bottleneck's features."""
        high = F.conv2d(h, self.laplacian, padding=1, groups=h.shape[1])
        return self.frequency_mlp(spatial_mean(F.gelu(high)))

    def forward(self, x: Tensor, constants: Constants, repeated: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Compute (shared head, experts' input, bottleneck's features) of unshuffled [x_t, y], or y if `repeated`."""
        return self.through(self.conv_in_repeated if repeated else self.conv_in, x, constants)

    def _raised(self, layer: nn.Module, h: Tensor, skip: Tensor) -> Tensor:
        return layer(h, skip)
