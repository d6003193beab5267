"""How good a restoration is: fidelity to the truth, naturalness without one, what the experts do."""

from f2d.metrics.batch import LUMA, luma, psnr, sharpness, ssim

__all__ = ["LUMA", "luma", "psnr", "sharpness", "ssim"]
