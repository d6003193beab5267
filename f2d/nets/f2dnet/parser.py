"""Parser: which degradations an image has, how much, and where."""

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

    y [B, C, h, w] with h and w multiples of `stride`. E: a 7x7 convolution, then stride-2 3x3 convolutions;
    D: a 3x3 convolution, then as many transposed 4x4 stride-2 ones, a 3x3 to K maps. LeakyReLU 0.2 throughout.
    It sees the image only, not t, so one call serves a whole trajectory.
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


class DetailParser(nn.Module):
    """``m = sigmoid(D(L(y) + up(P C(L(y)))))``, w and logits from ``mean C``: local detail beside a coarse context.

    y [B, C, h, w] with h and w multiples of `stride`. L: two 3x3 convolutions at full size, C: stride-2 3x3 ones, P 1x1
    and a bilinear enlargement, D: 3x3 convolutions of dilation 2 and 1, then one to K maps of y's own size. LeakyReLU 0.2 throughout.
    It sees the image only, not t, so one call serves a whole trajectory.
    """

    def __init__(self, config: F2DNetConfig):
        super().__init__()
        width, *coarse = config.parser_widths
        factors = len(config.factors)
        self.local1 = nn.Conv2d(config.image_channels, width, 3, padding=1)
        self.local2 = nn.Conv2d(width, width, 3, padding=1)
        self.context = nn.ModuleList(
            nn.Conv2d(before, after, 3, stride=2, padding=1) for before, after in itertools.pairwise([width, *coarse])
        )
        self.merge = nn.Conv2d(coarse[-1], width, 1)
        self.join1 = nn.Conv2d(width, width, 3, padding=2, dilation=2)
        self.join2 = nn.Conv2d(width, width, 3, padding=1)
        self.to_maps = nn.Conv2d(width, factors, 3, padding=1)
        hidden = coarse[-1]
        self.weight_mlp = nn.Sequential(nn.Linear(hidden, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, factors))
        self.gated = config.presence_gates_maps

    def forward(self, y: Tensor) -> Parsed:
        def act(x: Tensor) -> Tensor:
            return F.leaky_relu(x, 0.2)

        local = act(self.local2(act(self.local1(y))))
        context = local
        for conv in self.context:
            context = act(conv(context))
        logits = self.weight_mlp(context.mean(dim=(2, 3)))
        h = local + F.interpolate(self.merge(context), size=local.shape[-2:], mode="bilinear")
        h = act(self.join2(act(self.join1(act(h)))))
        maps = self.to_maps(h).sigmoid()
        if self.gated:
            maps = maps * logits.sigmoid()[:, :, None, None]
        return Parsed(maps, logits.sigmoid(), logits)
