"""Inject the auxiliary y_t into the U-Net: by an adaptor, or in the two simpler ways of the paper's ablation.

Each is a module (x [B, C, h, w], y_t of the same shape) -> (input of the first convolution, modulations). The
modulations are a pair (scale, shift) per level, each [B, widths[l], h / 2^l, w / 2^l], or empty. `input_channels` is
the number of channels of the first convolution's input.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from f2d.nets.residual_block import zeroed

from .unet import Modulations


class Adaptor(nn.Module):
    """``h_l <- h_l ⊙ (1 + s_l) + b_l,  [s_l; b_l] = Z_l SiLU(e_l),  e_0 = conv(y_t),  e_l = conv_↓2(SiLU(e_{l-1}))``.

    y_t modulates the features per pixel at the entry of every level. Skip connections carry the effect to the decoder,
    which has to recover y_t to predict its velocity. The convolutions e are 3x3 with `width` channels, and Z_l is 1x1
    and zero-initialised, so a new adaptor changes nothing.

    ResFlow's paper names an adaptor but prints no layers. This design, the modulation of SPADE (Park et al., CVPR 2019)
    starting at zero, is ours. In the paper's ablation its adaptor reaches 25.51 dB, concatenation 24.94 and addition
    24.04.
    """

    def __init__(self, image_channels: int, widths: Sequence[int], width: int):
        super().__init__()
        self.input_channels = image_channels
        self.conv_in = nn.Conv2d(image_channels, width, 3, padding=1)
        self.downsamples = nn.ModuleList(nn.Conv2d(width, width, 3, stride=2, padding=1) for _ in widths[1:])
        self.modulations = nn.ModuleList(zeroed(nn.Conv2d(width, 2 * channels, 1)) for channels in widths)

    def forward(self, x: Tensor, auxiliary: Tensor) -> tuple[Tensor, Modulations]:
        features = [F.silu(self.conv_in(auxiliary))]
        for downsample in self.downsamples:
            features.append(F.silu(downsample(features[-1])))
        return x, [modulation(e).chunk(2, dim=1) for modulation, e in zip(self.modulations, features, strict=True)]


class Concatenation(nn.Module):
    """The first convolution sees ``[x; y_t]``. Adding a convolution of y_t to the first features would be the same."""

    def __init__(self, image_channels: int):
        super().__init__()
        self.input_channels = 2 * image_channels

    def forward(self, x: Tensor, auxiliary: Tensor) -> tuple[Tensor, Modulations]:
        return torch.cat([x, auxiliary], dim=1), ()


class Addition(nn.Module):
    """The first convolution sees ``x + y_t``, which the network has to separate by itself."""

    def __init__(self, image_channels: int):
        super().__init__()
        self.input_channels = image_channels

    def forward(self, x: Tensor, auxiliary: Tensor) -> tuple[Tensor, Modulations]:
        return x + auxiliary, ()
