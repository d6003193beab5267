"""Networks: F²D-Net in `f2dnet`, ResFlow in `resflow`, and all of them by name in `models`."""

from .f2dnet import PRESETS, Analysis, F2DNet, F2DNetConfig, F2DOutput

__all__ = ["PRESETS", "Analysis", "F2DNet", "F2DNetConfig", "F2DOutput"]
