"""Exact foldings of F²D-Net's weights: nothing nonlinear stands between the layers that are merged."""

import torch
from torch import Tensor, nn

from f2d.nets.experts import Expert


def fold_projection(expert: Expert) -> Tensor:
    """[F, C + 1, 3, 3]: an expert's 1x1 projection P x + p and its dilated 3x3 convolution Q as one convolution.

        Q * (P x + p) = Σ_j Q_j (P x_j + p) = Σ_j [Q_j P, Q_j p] (x_j, 1)

    The constant p must vanish where the convolution reads its zero padding, so it multiplies a channel of ones, which
    is padded with zeros like the others: borders included, equal to the rounding. 27 % of an expert's arithmetic goes.
    """
    outer, inner = expert.conv1.weight.double(), expert.project_in
    projection = torch.cat([inner.weight.flatten(1), inner.bias[:, None]], dim=1).double()  # [F, C + 1]
    return torch.einsum("ofyx,fc->ocyx", outer, projection)


def fold_repeated_input(weight: Tensor) -> Tensor:
    """[O, C, 3, 3] of [O, 2 C, 3, 3]: conv([y, y]) is conv(y) with the halves' sum; the first call has x_t = y."""
    first, second = weight.double().chunk(2, dim=1)
    return first + second


def fold_film(time_linear: nn.Linear, time: Tensor) -> tuple[Tensor, Tensor]:
    """(scale, shift), each [C]: Linear(SiLU(time)) is constant at a given t."""
    scale, shift = time_linear(nn.functional.silu(time))[0].chunk(2)
    return scale, shift
