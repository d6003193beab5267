"""Engines for inference: a fast path for F²D-Net with folded weights, and a plain one for other networks.

    engine = engine_of(net, torch.bfloat16)
    restored = restore_tensor(engine.predictor(only={"rain"}), y)

`bands.restore.restore_banded` restores an image of any size within a given amount of memory.
"""

import torch

from f2d.nets import F2DNet
from f2d.nets.models import Network

from .engine import Engine, Prediction, Predictor
from .plain import PlainEngine, PlainPredictor
from .plan import BudgetError

__all__ = [
    "BudgetError",
    "Engine",
    "PlainEngine",
    "PlainPredictor",
    "Prediction",
    "Predictor",
    "engine_of",
]


def engine_of(
    net: Network, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None
) -> Engine | PlainEngine:
    """Return an `Engine` for an F2DNet, a `PlainEngine` for a ResFlowNet; both have predictor and plan."""
    if not isinstance(net, Network):
        raise TypeError(
            f"net must be an F2DNet or a ResFlowNet, got {type(net).__name__} (f2d.load takes a preset or a folder too)"
        )
    return Engine(net, dtype, device) if isinstance(net, F2DNet) else PlainEngine(net, dtype, device)
