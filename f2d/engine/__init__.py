"""Networks made ready for inference: the fast path of F²D-Net, folded and laid out anew, and the plain one of others.

    engine = engine_of(net, torch.bfloat16)
    restored = restore_tensor(engine.predictor(only={"rain"}), y)

`bands.restore.restore_banded` restores an image of any size within a given memory.
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
    """`Engine` for an F2DNet, `PlainEngine` for other networks; both have predictor and plan."""
    return Engine(net, dtype, device) if isinstance(net, F2DNet) else PlainEngine(net, dtype, device)
