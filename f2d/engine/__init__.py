"""The fast path of F²D-Net: same weights, folded and laid out for inference.

    engine = Engine(net, torch.bfloat16)
    restored = restore_tensor(engine.predictor(only={"rain"}), y)

`banded.restore_banded` restores an image of any size within a given memory.
"""

from .describe import describe
from .engine import Engine, Prediction, Predictor
from .graphs import first_call
from .plan import BudgetError

__all__ = ["BudgetError", "Engine", "Prediction", "Predictor", "describe", "first_call"]
