"""Network modules of F²D-Net; `f2dnet.F2DNet` assembles them."""

from .f2dnet import PRESETS, Analysis, F2DNet, F2DNetConfig, F2DOutput

__all__ = ["PRESETS", "Analysis", "F2DNet", "F2DNetConfig", "F2DOutput"]
