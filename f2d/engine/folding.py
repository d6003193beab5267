"""Exact foldings of F²D-Net's weights: the merged layers have nothing nonlinear between them."""

import torch
from torch import Tensor, nn

from f2d.nets.f2dnet.experts import Expert


def fold_projection(expert: Expert) -> Tensor:
    """[F, C + 1, 3, 3]: an expert's 1x1 projection P x + p and its dilated 3x3 convolution Q as one convolution.

        Q * (P x + p) = Σ_j Q_j (P x_j + p) = Σ_j [Q_j P, Q_j p] (x_j, 1)

    The constant p must vanish where the convolution reads its zero padding, so it multiplies a channel of ones, which
    is padded with zeros like the others. Results agree up to rounding, borders included. Saves 27 % of the arithmetic.
    """
    outer, inner = expert.conv1.weight.double(), expert.project_in
    assert inner.bias is not None
    projection = torch.cat([inner.weight.flatten(1), inner.bias[:, None]], dim=1).double()  # [F, C + 1]
    return torch.einsum("ofyx,fc->ocyx", outer, projection)


def fold_repeated_input(weight: Tensor) -> Tensor:
    """[O, 2 C, 3, 3] -> [O, C, 3, 3]: conv([y, y]) is conv(y) with the halves' sum; the first call has x_t = y."""
    first, second = weight.double().chunk(2, dim=1)
    return first + second


def fold_transposed(weight: Tensor) -> Tensor:
    """[C, O, 4, 4] -> [4 O, C, 3, 3]: a transposed convolution (stride 2, padding 1) is a 3x3 one and a pixel shuffle.

    Output 2p + a reads inputs p - 1, p, p + 1 with taps 3, 1, none (a = 0) or none, 2, 0 (a = 1), in either direction.
    It doubles the arithmetic of a few small layers, but oneDNN's transposed one rounds differently with two threads.
    """
    taps = ((3, 1, None), (None, 2, 0))
    channels, outputs = weight.shape[:2]
    folded = weight.new_zeros(outputs, 2, 2, channels, 3, 3)
    for a, rows in enumerate(taps):
        for b, columns in enumerate(taps):
            for i, row in enumerate(rows):
                for j, column in enumerate(columns):
                    if row is not None and column is not None:
                        folded[:, a, b, :, i, j] = weight[:, :, row, column].T
    return folded.flatten(0, 2)


def fold_film(time_linear: nn.Linear, time: Tensor) -> tuple[Tensor, Tensor]:
    """Return (scale, shift), each [C], since Linear(SiLU(time)) is constant at a given t."""
    scale, shift = time_linear(nn.functional.silu(time))[0].chunk(2)
    return scale.clone(), shift.clone()  # memory of their own, as `torch.export.save` wants it
