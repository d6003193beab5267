"""F²D-Net, one part per file; `network` assembles them."""

from .config import PRESETS, F2DNetConfig
from .network import Analysis, F2DNet, F2DOutput

__all__ = ["PRESETS", "Analysis", "F2DNet", "F2DNetConfig", "F2DOutput"]
