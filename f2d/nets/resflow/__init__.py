"""The network of ResFlow: a DDPM U-Net that sees an auxiliary variable beside the image."""

from .config import PRESETS, ResFlowConfig
from .resflownet import ResFlowNet

__all__ = ["PRESETS", "ResFlowConfig", "ResFlowNet"]
