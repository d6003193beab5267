"""F²D-Net: the first line of each file says what it computes; `network` assembles the parts."""

from .config import PRESETS, F2DNetConfig
from .network import Analysis, F2DNet, F2DOutput

__all__ = ["PRESETS", "Analysis", "F2DNet", "F2DNetConfig", "F2DOutput"]
