"""Experts: one small convolutional head per degradation factor."""

from torch import Tensor, nn

from f2d.nets.residual_block import zeroed
from f2d_kernels import modules


class SqueezeExcitation(nn.Module):
    """``x · sigmoid(W2 ReLU(W1 mean_hw x))``, reduction 4, no biases (Hu et al., CVPR 2018). x [B, C, h, w]."""

    def __init__(self, channels: int):
        super().__init__()
        self.fc = nn.Sequential(
            nn.Linear(channels, channels // 4, bias=False),
            nn.ReLU(),
            nn.Linear(channels // 4, channels, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc(x.mean(dim=(2, 3)))[:, :, None, None]


class Expert(nn.Module):
    """``Δ = W SE(SiLU GN conv(SiLU GN conv_dilated(P x)))``, with W zero-initialised, so a new expert corrects nothing.

    x [B, in_channels, h, w] -> [B, out_channels, h, w]. P and W are 1x1, the convolutions 3x3; the first one's
    dilation sets the expert's reach, so experts differ by their receptive field.
    """

    def __init__(self, in_channels: int, width: int, out_channels: int, dilation: int, groups: int):
        super().__init__()
        self.project_in = nn.Conv2d(in_channels, width, 1)
        self.conv1 = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation)
        self.norm1 = modules.GroupNormSiLU(groups, width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.norm2 = modules.GroupNormSiLU(groups, width)
        self.squeeze_excitation = SqueezeExcitation(width)
        self.project_out = zeroed(nn.Conv2d(width, out_channels, 1))

    @property
    def last_norm(self) -> modules.GroupNormSiLU:
        """The normalisation before W."""
        return self.norm2

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm1(self.conv1(self.project_in(x)))
        h = self.norm2(self.conv2(h))
        return self.project_out(self.squeeze_excitation(h))


class LightExpert(nn.Module):
    """``Δ = W SiLU GN conv_dilated(x)``, with W zero-initialised, so a new expert corrects nothing.

    x [B, in_channels, h, w] -> [B, out_channels, h, w]. The convolution is 3x3, W is 1x1; the dilation sets the
    expert's reach, so experts differ by their receptive field.
    """

    def __init__(self, in_channels: int, width: int, out_channels: int, dilation: int, groups: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, width, 3, padding=dilation, dilation=dilation)
        self.norm = modules.GroupNormSiLU(groups, width)
        self.project_out = zeroed(nn.Conv2d(width, out_channels, 1))

    @property
    def last_norm(self) -> modules.GroupNormSiLU:
        """The normalisation before W."""
        return self.norm

    def forward(self, x: Tensor) -> Tensor:
        return self.project_out(self.norm(self.conv(x)))
