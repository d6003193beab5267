"""Parser: estimates which degradations an image has, their strength, and where they act."""

import itertools
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from .config import F2DNetConfig


class Parsed(NamedTuple):
    maps: Tensor | None  # [B, K, h, w] in (0, 1); None for image-level routing
    weights: Tensor  # [B, K] in (0, 1)
    logits: Tensor  # [B, K]


class Parser(nn.Module):
    """``m = sigmoid(D(E(y))), w = sigmoid(MLP_w(mean E(y))), logits = MLP_c(mean E(y))``.

    y [B, C, h, w] with h and w multiples of `stride`. E: a 7x7 convolution, then stride-2 3x3 convolutions.
    D: a 3x3 convolution, as many transposed 4x4 stride-2 convolutions as E has strides, and a 3x3 convolution to K
    maps. All activations are LeakyReLU 0.2. The parser does not depend on t, so one call serves a whole trajectory.
    """

    def __init__(self, config: F2DNetConfig):
        super().__init__()
        widths, factors = config.parser_widths, len(config.factors)
        encoder = [nn.Conv2d(config.image_channels, widths[0], 7, padding=3), nn.LeakyReLU(0.2)]
        for before, width in itertools.pairwise(widths):
            encoder += [nn.Conv2d(before, width, 3, stride=2, padding=1), nn.LeakyReLU(0.2)]
        self.encoder = nn.Sequential(*encoder)
        hidden = widths[-1]
        self.weight_mlp = nn.Sequential(nn.Linear(hidden, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, factors))
        self.logit_mlp = nn.Sequential(nn.Linear(hidden, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, factors))
        self.decoder = None
        if config.spatial_maps:
            upward = config.parser_decoder_widths
            decoder = [nn.Conv2d(hidden, upward[0], 3, padding=1), nn.LeakyReLU(0.2)]
            for before, width in itertools.pairwise(upward):
                decoder += [nn.ConvTranspose2d(before, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
            self.decoder = nn.Sequential(*decoder, nn.Conv2d(upward[-1], factors, 3, padding=1))

    def forward(self, y: Tensor) -> Parsed:
        features = self.encoder(y)
        pooled = features.mean(dim=(2, 3))
        maps = None if self.decoder is None else self.decoder(features).sigmoid()
        return Parsed(maps, self.weight_mlp(pooled).sigmoid(), self.logit_mlp(pooled))


class LightParser(nn.Module):
    """``m = sigmoid(D(L(y) + up(P C(L(y))))), logits = MLP(mean C(L(y))), w = sigmoid(logits)``.

    y [B, C, h, w] with h and w multiples of `stride`. L: two 3x3 convolutions. C: stride-2 3x3 convolutions. P: a 1x1
    convolution; `up` is bilinear x2, repeated to h x w. D: 3x3 convolutions of dilation 2 and 1, then one to K maps.
    All activations are LeakyReLU 0.2. L resolves streaks and flakes at the network's full resolution, C sees haze and
    low light in their context, and without transposed convolutions the maps have no grid artefacts. The parser does
    not depend on t, so one call serves a whole trajectory.
    """

    def __init__(self, config: F2DNetConfig):
        super().__init__()
        width, *coarse = config.parser_widths
        factors, hidden = len(config.factors), coarse[-1]

        def conv(before: int, after: int, **geometry: int) -> list[nn.Module]:
            return [nn.Conv2d(before, after, 3, **{"padding": 1, **geometry}), nn.LeakyReLU(0.2)]

        self.detail = nn.Sequential(*conv(config.image_channels, width), *conv(width, width))
        downward = itertools.pairwise([width, *coarse])
        self.context = nn.Sequential(*itertools.chain(*(conv(a, b, stride=2) for a, b in downward)))
        self.doublings = len(coarse)
        self.weight_mlp = nn.Sequential(nn.Linear(hidden, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, factors))
        self.decoder = None
        if config.spatial_maps:
            self.merge = nn.Conv2d(hidden, width, 1)
            self.decoder = nn.Sequential(
                *conv(width, width, dilation=2, padding=2), *conv(width, width), nn.Conv2d(width, factors, 3, padding=1)
            )

    def forward(self, y: Tensor) -> Parsed:
        detail = self.detail(y)
        context = self.context(detail)
        logits = self.weight_mlp(context.mean(dim=(2, 3)))
        maps = None
        if self.decoder is not None:
            h = self.merge(context)
            for _ in range(self.doublings):
                h = F.interpolate(h, scale_factor=2, mode="bilinear")
            maps = self.decoder(F.leaky_relu(detail + h, 0.2)).sigmoid()
        return Parsed(maps, logits.sigmoid(), logits)
