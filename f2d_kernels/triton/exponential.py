"""exp(z) and exp(z) - 1 for -87 <= z <= 20 from one polynomial; in float32, bit-exact with csrc/exponential.h.

z = n ln 2 + r, |r| <= ln(2) / 2;   p = r + r² Q(r) = exp(r) - 1;   exp(z) = 2^n p + 2^n,   expm1(z) = 2^n p + (2^n - 1)
"""

import math

import triton
import triton.language as tl

from f2d_kernels.triton.normal import ROUND, coefficients, polynomial

INVERSE_LN_2: tl.constexpr = tl.constexpr(float.fromhex("0x1.715476p+0"))
LN_2_HIGH: tl.constexpr = tl.constexpr(float.fromhex("-0x1.62e4p-1"))  # ends in 8 zero bits, so n times it is exact
LN_2_LOW: tl.constexpr = tl.constexpr(float.fromhex("-0x1.7f7d1cp-20"))
EXP: tl.constexpr = coefficients("0x1.6b969ep-10", "0x1.122542p-7", "0x1.5556f6p-5", "0x1.5554b4p-3", "0x1.fffffep-2")
# float64: the series to z^14 / 14!, used for |z| < ln(2) / 2, where the next term is below 1e-19 of z
TAYLOR: tl.constexpr = tl.constexpr(tuple(1.0 / math.factorial(n) for n in range(14, 1, -1)))
SMALL: tl.constexpr = tl.constexpr(0.34657359)


@triton.jit
def exponential(z):
    """Return (exp(z), expm1(z), whether |z| is so small that exp(z) - 1 would lose digits)."""
    if z.dtype == tl.float64:
        small = (z > -SMALL) & (z < SMALL)
        exp = tl.exp(z)
        return exp, tl.where(small, tl.fma(polynomial(z, TAYLOR) * z, z, z), exp - 1.0), small
    else:
        shifted = tl.fma(z, tl.full(z.shape, INVERSE_LN_2, tl.float32), tl.full(z.shape, ROUND, tl.float32))
        n = shifted - ROUND
        r = tl.fma(n, tl.full(z.shape, LN_2_HIGH, tl.float32), z)
        r = tl.fma(n, tl.full(z.shape, LN_2_LOW, tl.float32), r)
        p = tl.fma(polynomial(r, EXP) * r, r, r)
        scale = ((shifted.to(tl.int32, bitcast=True) << 23) + 0x3F800000).to(tl.float32, bitcast=True)
        return tl.fma(scale, p, scale), tl.fma(scale, p, scale - 1.0), n == 0.0
