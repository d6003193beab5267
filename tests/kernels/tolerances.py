"""The one table of tolerances for the ops, with reasons.

A kernel's error against float64 may be FACTOR times the error of the same formula in plain PyTorch at the same dtype,
plus EPSILON of the largest magnitude in the result. The plain formula can be lucky (zero error on one element), hence
EPSILON. Where the result is a sum over many terms that may cancel, its rounding error goes with the root of the sum of
their squares, not with what is left of them: `scale` is that root.
"""

import torch
from torch import Tensor

FORWARD, BACKWARD = 2.0, 3.0

EPSILON = {
    torch.float64: 4e-15,  # 16 units of round-off: sums over 4099 pixels in another order
    torch.float32: 5e-7,  # 4 units of round-off: fused against separate multiply-add
    torch.bfloat16: 4.0e-3,  # one rounding of the result (2^-8): arithmetic is float32, only the store rounds
    torch.float16: 5.0e-4,  # one rounding of the result (2^-11)
}

# Box-Muller through float32 polynomials against its float64 evaluation from the same words (KERNELS.md)
NORMAL = 2e-6


def assert_close_as_formula(
    actual: Tensor, plain: Tensor, exact: Tensor, factor: float, what: str, scale: float = 0.0
) -> None:
    """|actual - exact| <= factor · max|plain - exact| + EPSILON · max(|exact|, scale), nothing left unwritten (NaN)."""
    assert actual.shape == exact.shape, f"{what}: shape {tuple(actual.shape)}, expected {tuple(exact.shape)}"
    assert not actual.isnan().any(), f"{what}: {int(actual.isnan().sum())} elements were never written"
    if exact.numel() == 0:
        return
    exact = exact.double()
    size = max(exact.abs().max().item(), scale, 1e-30)
    allowed = factor * (plain.double() - exact).abs().max() + EPSILON[actual.dtype] * size
    error = (actual.double() - exact).abs().max()
    assert error <= allowed, f"{what}: error {error:.3e} > {allowed:.3e}"
