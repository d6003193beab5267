"""The exponential moving average of a network's weights."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


class Average(AveragedModel):
    """``averaged <- d · averaged + (1 - d) · current``, d = min(decay, (1 + n) / (10 + n)) after n updates, 0 at first.

    The average therefore has no memory of the initial weights. Buffers are copied from the network.
    """

    def __init__(self, net: nn.Module, decay: float):
        def average(averaged: Any, current: Any, count: Tensor | int) -> None:
            torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + float(count)) / (10 + float(count))))

        super().__init__(net, multi_avg_fn=average)
        self.requires_grad_(False).eval()
