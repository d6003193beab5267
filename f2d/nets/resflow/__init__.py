"""The network of ResFlow: a DDPM U-Net whose inputs are the image and an auxiliary variable."""

from .config import PRESETS, ResFlowConfig
from .resflownet import ResFlowNet

__all__ = ["PRESETS", "ResFlowConfig", "ResFlowNet"]
