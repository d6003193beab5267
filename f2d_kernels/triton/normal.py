"""Position-keyed standard normals on the device: Philox 4x32-10 words, Box-Muller in float32.

    u = word · 2^-32 + 2^-33,   r = sqrt(-2 ln u0),   eps = r cos(2 pi u1), r sin(2 pi u1)

The polynomials, their constants and the order of every fma are those of csrc/normal.h, so that the result is
bit-exact with C++ and CUDA. (tl.randn maps words to numbers in another way.)
"""

import triton
import triton.language as tl


def coefficients(*hexadecimal: str) -> tl.constexpr:
    return tl.constexpr(tuple(float.fromhex(value) for value in hexadecimal))


ROUND: tl.constexpr = tl.constexpr(float.fromhex("0x1.8p+23"))  # in x + ROUND the low mantissa bits hold an integer
WORD: tl.constexpr = tl.constexpr(2.0**-32)
HALF_WORD: tl.constexpr = tl.constexpr(2.0**-33)
MINUS_TWO_LN_2: tl.constexpr = tl.constexpr(float.fromhex("-0x1.62e43p+0"))
LOG: tl.constexpr = coefficients(
    "-0x1.65f03cp-3", "0x1.250548p-2", "-0x1.317c96p-2", "0x1.535c32p-2",
    "-0x1.98d3a2p-2", "0x1.0004a8p-1", "-0x1.5556fp-1", "0x1.fffffap-1",
)  # fmt: skip
SINE: tl.constexpr = coefficients("-0x1.33198ap-1", "0x1.4680a4p+1", "-0x1.4abc24p+2", "0x1.921fb6p+1")
COSINE: tl.constexpr = coefficients("0x1.d4f7eep-3", "-0x1.55b2b6p+0", "0x1.03c1bp+2", "-0x1.3bd3ccp+2", "0x1p+0")


@triton.constexpr_function
def _count(coefficients):
    return len(coefficients)


@triton.constexpr_function
def _item(coefficients, i):
    return coefficients[i]


@triton.jit
def polynomial(x, COEFFICIENTS: tl.constexpr):
    """Evaluate a polynomial by Horner's scheme with fma, highest power first."""
    value = tl.full(x.shape, _item(COEFFICIENTS, 0), x.dtype)
    for i in tl.static_range(1, _count(COEFFICIENTS)):
        value = tl.fma(value, x, tl.full(x.shape, _item(COEFFICIENTS, i), x.dtype))
    return value


@triton.jit
def uniform(word):
    """Map uint32 to (0, 1]; both conversions round to nearest."""
    value = word.to(tl.float32)
    return tl.fma(value, tl.full(value.shape, WORD, tl.float32), tl.full(value.shape, HALF_WORD, tl.float32))


@triton.jit
def minus_two_log(u):
    """-2 ln u for u > 0: u = 2^e (1 + f) with sqrt(1/2) <= 1 + f < sqrt(2)."""
    bits = u.to(tl.int32, bitcast=True)
    exponent = (bits - 0x3F3504F3) >> 23
    f = (bits - (exponent << 23)).to(tl.float32, bitcast=True) - 1.0
    p = polynomial(f, LOG)
    p = tl.fma(p * f, f, -2.0 * f)
    return tl.fma(exponent.to(tl.float32), tl.full(f.shape, MINUS_TWO_LN_2, tl.float32), p)


@triton.jit
def sincos_pi(x):
    """sin(pi x), cos(pi x) for 0 <= x <= 2: x = q / 2 + t with |t| <= 1/4, exactly."""
    shifted = tl.fma(x, tl.full(x.shape, 2.0, tl.float32), tl.full(x.shape, ROUND, tl.float32))
    q = shifted.to(tl.uint32, bitcast=True)
    t = tl.fma(shifted - ROUND, tl.full(x.shape, -0.5, tl.float32), x)
    t2 = t * t
    s = polynomial(t2, SINE) * t
    c = polynomial(t2, COSINE)
    odd = (q & 1) != 0
    sine = tl.where(odd, c, s).to(tl.uint32, bitcast=True) ^ ((q & 2) << 30)
    cosine = tl.where(odd, s, c).to(tl.uint32, bitcast=True) ^ (((q + 1) & 2) << 30)
    return sine.to(tl.float32, bitcast=True), cosine.to(tl.float32, bitcast=True)


@triton.jit
def box_muller(word0, word1):
    sine, cosine = sincos_pi(2.0 * uniform(word1))
    radius = tl.sqrt_rn(minus_two_log(uniform(word0)))
    return radius * cosine, radius * sine


@triton.jit
def normal_quads(seed, quad, y, c, stream, sample):
    """Draw eps [4N] of elements x = 4·quad .. 4·quad + 3 in rows y of channels c, all [N]; one Philox call draws four.

    key = (seed low, seed high) from the int64 scalar `seed`; counter = (quad, y, c + 65536 · stream, sample).
    """
    channel = c.to(tl.uint32) + (stream.to(tl.uint32) << 16)
    s = sample.to(tl.uint32) + tl.zeros(quad.shape, tl.uint32)
    word0, word1, word2, word3 = tl.philox(seed, quad.to(tl.uint32), y.to(tl.uint32), channel, s)
    eps0, eps1 = box_muller(word0, word1)
    eps2, eps3 = box_muller(word2, word3)
    return tl.interleave(tl.interleave(eps0, eps2), tl.interleave(eps1, eps3))
