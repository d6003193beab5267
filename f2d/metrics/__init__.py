"""Measures of restorations: fidelity to the ground truth, naturalness without one, and the experts' behaviour."""

from f2d.metrics.batch import LUMA, luma, psnr, sharpness, ssim

__all__ = ["LUMA", "luma", "psnr", "sharpness", "ssim"]
