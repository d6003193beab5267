"""The networks: F²D-Net and ResFlow. Model cards say `from f2d.nets import ...`, so the names here stay."""

from .f2dnet import PRESETS, Analysis, F2DNet, F2DNetConfig, F2DOutput
from .resflow import ResFlowConfig, ResFlowNet

__all__ = ["PRESETS", "Analysis", "F2DNet", "F2DNetConfig", "F2DOutput", "ResFlowConfig", "ResFlowNet"]
