"""The networks: F²D-Net and ResFlow. Model cards import names from this package, so they must stay here."""

from .f2dnet import PRESETS, Analysis, F2DNet, F2DNetConfig, F2DOutput
from .resflow import ResFlowConfig, ResFlowNet

__all__ = ["PRESETS", "Analysis", "F2DNet", "F2DNetConfig", "F2DOutput", "ResFlowConfig", "ResFlowNet"]
