"""What the tests of the CUDA kernels' bodies on the host share: results to fill, and how near is right."""

import torch

from .cases import lay_out

BITS = {torch.float64: 52, torch.float32: 23, torch.float16: 10, torch.bfloat16: 7}


def assert_near(actual, exact, scale, name=""):
    """Within one rounding of the stored dtype, plus 8 float32 (float64) roundings of the magnitudes that were added."""
    assert not actual.isnan().any(), f"{name}: elements never written"
    arithmetic = 2.0**-53 if actual.dtype == torch.float64 and scale.dtype == torch.float64 else 2.0**-24
    allowed = (
        exact.abs() * 2.0 ** -(BITS[actual.dtype] + 1) * 1.01
        + 8 * arithmetic * scale
        + 6e-8 * (actual.dtype == torch.float16)
    )
    excess = (actual.double() - exact).abs() - allowed
    assert (excess <= 0).all(), f"{name}: {excess.max():.3e} beyond its bound"


def poisoned(like, layout="contiguous", shape=None, dtype=None):
    return lay_out(torch.full(shape or like.shape, float("nan"), dtype=dtype or like.dtype), layout)
