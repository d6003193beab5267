"""Parser: which degradations an image has, how much, and where."""

import itertools
from typing import NamedTuple

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
