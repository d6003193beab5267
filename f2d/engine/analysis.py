"""The parts of the engine that see only the image: enhancer and parser, which run once per image."""

from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from f2d.nets import Analysis
from f2d.nets.f2dnet.enhancer import Enhancer
from f2d.nets.f2dnet.parser import LightParser, Parser

from .control import Adjust, adjusted
from .layers import Conv, leaky, spatial_mean, wide_copy


class ImageAnalysis(Analysis):
    """`f2d.nets.Analysis` whose enhanced image is a single object, so that a state can be recognised as this image."""

    @cached_property
    def enhanced(self) -> Tensor:
        return self.padded_image[..., : self.height, : self.width]

    def as_state(self, x_t: Tensor) -> Tensor | None:
        """Return the padded image if the state x_t is the enhanced image, padding included; otherwise None.

        Padding reflects the state, but the enhancer sees the padded image; without padding or enhancer they agree.
        """
        padded = self.padded_image.shape[-2:] != (self.height, self.width)
        same = x_t is self.enhanced and not (padded and self.enhancer_gate is not None)
        return self.padded_image if same else None


class FastEnhancer(nn.Module):
    """`f2d.nets.f2dnet.enhancer.Enhancer` with image and gate in float32 and convolutions in the engine's dtype."""

    def __init__(self, enhancer: Enhancer, dtype: torch.dtype):
        super().__init__()
        self.patch, self.threshold = enhancer.patch, enhancer.threshold
        self.conv_in = Conv.of(enhancer.conv_in, dtype)
        self.blocks = nn.ModuleList(convolutions(block, dtype) for block in enhancer.blocks)
        self.tail = convolutions(enhancer.tail, dtype)
        self.gate_mlp = wide_copy(enhancer.gate_mlp)

    def forward(self, x: Tensor, adjust: Adjust | None = None) -> tuple[Tensor, Tensor]:
        gate = adjusted(self.gate_of(spatial_mean(x)), "enhancer gate", adjust)
        h = self.conv_in(F.pixel_unshuffle(x, self.patch))
        for first, second in self.blocks:
            h = second(first(h), h)
        delta = F.pixel_shuffle(self.tail(h), self.patch).to(x.dtype).tanh_()
        return torch.addcmul(x, gate, delta).clamp_(-1, 1), gate

    gate_of = Enhancer.gate_of


class FastParser(nn.Module):
    """`f2d.nets.f2dnet.parser.Parser` with maps, weights and logits in float32."""

    def __init__(self, parser: Parser, dtype: torch.dtype):
        super().__init__()
        self.encoder = convolutions(parser.encoder, dtype)
        self.decoder = None if parser.decoder is None else convolutions(parser.decoder, dtype)
        self.weight_mlp, self.logit_mlp = wide_copy(parser.weight_mlp), wide_copy(parser.logit_mlp)

    def forward(self, y: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        y = self.encoder(y)
        pooled = spatial_mean(y)
        maps = None
        if self.decoder is not None:
            maps = self.decoder(y).to(pooled.dtype).sigmoid_().contiguous()  # the experts read one map at a time
        return maps, self.weight_mlp(pooled).sigmoid(), self.logit_mlp(pooled)


class FastLightParser(nn.Module):
    """`f2d.nets.f2dnet.parser.LightParser` with maps, weights and logits in float32."""

    def __init__(self, parser: LightParser, dtype: torch.dtype):
        super().__init__()
        self.detail, self.context = convolutions(parser.detail, dtype), convolutions(parser.context, dtype)
        self.doublings = parser.doublings
        self.weight_mlp = wide_copy(parser.weight_mlp)
        self.decoder = None
        if parser.decoder is not None:
            self.merge = Conv.of(parser.merge, dtype)
            self.decoder = convolutions(parser.decoder, dtype)

    def forward(self, y: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        y = self.detail(y)
        context = self.context(y)
        logits = self.weight_mlp(spatial_mean(context))
        maps = None
        if self.decoder is not None:
            h = self.merge(context)
            for _ in range(self.doublings):
                h = F.interpolate(h, scale_factor=2, mode="bilinear")
            maps = self.decoder(leaky(h.add_(y))).to(logits.dtype).sigmoid_().contiguous()
        return maps, logits.sigmoid(), logits


def convolutions(layers: nn.Sequential, dtype: torch.dtype) -> nn.Sequential:
    """Convert the convolutions of `layers`, each with the LeakyReLU that follows it."""
    pairs = zip(layers, (*layers[1:], None))
    return nn.Sequential(
        *(
            Conv.of(layer, dtype, leaky=isinstance(after, nn.LeakyReLU))
            for layer, after in pairs
            if not isinstance(layer, nn.LeakyReLU)
        )
    )
