"""A global descriptor of the high frequencies of a feature map."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FrequencyEmbedding(nn.Module):
    """``MLP(mean_hw GELU(L * x))``, L the fixed 3x3 Laplacian (centre 8, neighbours -1) on every channel.

    x [B, C, h, w] -> [B, dim]; the MLP is C -> 2 C -> dim. The Laplacian is a frozen parameter: it is never
    trained, but counted among the network's parameters, as in the published size of 23,771,627.
    """

    def __init__(self, channels: int, dim: int):
        super().__init__()
        laplacian = torch.full((3, 3), -1.0)
        laplacian[1, 1] = 8.0
        self.laplacian = nn.Parameter(laplacian.repeat(channels, 1, 1, 1), requires_grad=False)  # [C, 1, 3, 3]
        self.mlp = nn.Sequential(nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, dim))

    def forward(self, x: Tensor) -> Tensor:
        high = F.conv2d(x, self.laplacian, padding=1, groups=x.shape[1])
        return self.mlp(F.gelu(high).mean(dim=(2, 3)))
