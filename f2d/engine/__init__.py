"""The fast path of F²D-Net: same weights, folded and laid out for inference.

    engine = Engine(net, torch.bfloat16)
    restored = restore_tensor(engine.predictor(only={"rain"}), y)

`Statistics` records every quantity that depends on the whole image and gives it back for tiles of it.
"""

from .describe import describe
from .engine import Engine, Prediction, Predictor
from .graphs import first_call
from .plan import BudgetError
from .statistics import Statistics

__all__ = ["BudgetError", "Engine", "Prediction", "Predictor", "Statistics", "describe", "first_call"]
