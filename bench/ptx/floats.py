"""IEEE 754 arithmetic of PTX on numpy arrays, bit for bit: round to nearest even, subnormals kept, one NaN.

Registers hold raw bits; these functions take and return floating-point arrays. PTX's arithmetic returns the NaN
0x7FFFFFFF (0x7FFF in 16 bits, 0x7FFFFFFFFFFFFFFF in 64), whatever NaN goes in: section 9.7.3 of the PTX ISA.
"""

from collections.abc import Callable
from fractions import Fraction

import numpy as np

NAN32, NAN64 = np.uint32(0x7FFFFFFF), np.uint64(0x7FFFFFFFFFFFFFFF)
_TIE = np.uint64(1 << 28)
_BELOW_FLOAT = np.uint64((1 << 29) - 1)  # bits of a double's mantissa that a float has no room for
_TINY = 2.0**-126
_SPLIT = 2.0**27 + 1


def canonical(values: np.ndarray) -> np.ndarray:
    """`values` with every NaN replaced by PTX's."""
    bad = values != values
    if bad.any():
        bits = values.view(f"u{values.itemsize}").copy()
        bits[bad] = {2: np.uint16(0x7FFF), 4: NAN32, 8: NAN64}[values.itemsize]
        return bits.view(values.dtype)
    return values


def rounded(operation: Callable) -> Callable:
    """numpy's own operation, which is IEEE's, with PTX's NaN."""
    return lambda *values: canonical(operation(*values))


def fma32(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """a · b + c of float32, rounded once.

    The product is exact in float64. Its sum with c, rounded to float64 and then to float32, is wrong only where the
    first rounding moves it onto a tie of the second, or where the result is subnormal: these are rounded to odd first,
    which keeps what was lost (Boldo and Melquiond 2008, "Emulation of a FMA").
    """
    product = a.astype(np.float64) * b
    total = product + c
    near = (total.view(np.uint64) & _BELOW_FLOAT) == _TIE
    near |= np.abs(total) < _TINY
    if near.any():
        product, total, near, c = np.broadcast_arrays(product, total, near, c)
        total = total.copy()
        total[near] = _add_to_odd(product[near], c[near].astype(np.float64))
    return canonical(total.astype(np.float32))


def fma64(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """a · b + c of float64, rounded once (Boldo and Melquiond 2008); by exact fractions where the method's exponents
    leave its range."""
    a, b, c = np.broadcast_arrays(a, b, c)
    high, low = _exact_product(a, b)
    middle, rest = _exact_sum(c, low)
    top, bottom = _exact_sum(high, middle)
    result = top + _add_to_odd(bottom, rest)
    product, size = np.abs(a * b), np.maximum(np.abs(a), np.abs(b))
    usual = (size < 2.0**990) & (product < 2.0**1000) & (np.abs(c) < 2.0**1000)
    usual &= (product > 2.0**-900) & ((np.abs(c) > 2.0**-900) | (c == 0))
    zero = (a == 0) | (b == 0)
    finite = np.isfinite(a) & np.isfinite(b)
    result = np.where(zero | ~finite, a * b + c, np.where(np.isfinite(c), result, c))
    strange = ~usual & ~zero & finite & np.isfinite(c)
    for i in np.flatnonzero(strange):
        result[i] = _exact_fma(float(a[i]), float(b[i]), float(c[i]))
    return canonical(result)


def _exact_fma(a: float, b: float, c: float) -> float:
    total = Fraction(a) * Fraction(b) + Fraction(c)
    if total == 0:
        return a * b + c if c == 0 else 0.0
    try:
        return float(total)
    except OverflowError:
        return float("inf") if total > 0 else float("-inf")


def _exact_sum(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(rounded sum, what it lost) of float64: Knuth's TwoSum."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _exact_product(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(rounded product, what it lost) of float64: Dekker's product with Veltkamp's halves."""
    product = a * b
    a_high = a * _SPLIT - (a * _SPLIT - a)
    b_high = b * _SPLIT - (b * _SPLIT - b)
    a_low, b_low = a - a_high, b - b_high
    return product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low


def _add_to_odd(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a + b of float64, where inexact the neighbour whose last bit is 1."""
    total, lost = _exact_sum(a, b)
    bits = total.view(np.int64).copy()
    inexact = (lost != 0) & np.isfinite(total)
    towards_zero = inexact & ((lost < 0) != (total < 0))
    bits -= towards_zero  # truncated: the lost part points to zero
    bits |= inexact
    return bits.view(np.float64)


def minimum(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The smaller; of a number and a NaN the number; -0 is smaller than +0."""
    a, b = np.broadcast_arrays(a, b)
    pick_a = (a < b) | ((a == b) & np.signbit(a)) | np.isnan(b)
    return canonical(np.where(pick_a, a, b))


def maximum(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return _negative(minimum(_negative(a), _negative(b)))


def _negative(values: np.ndarray) -> np.ndarray:
    return np.where(values == values, -values, values)


def to_bf16(values: np.ndarray) -> np.ndarray:
    """float32 -> the 16 bits of a bfloat16, to nearest even."""
    bits = values.view(np.uint32)
    result = ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype(np.uint16)
    return np.where(values == values, result, np.uint16(0x7FFF))


def from_bf16(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def to_integer(values: np.ndarray, kind: str, rounding: Callable) -> np.ndarray:
    """To the nearest integer that `kind` (as numpy names it: "i4") holds; NaN becomes 0."""
    limits = np.iinfo(kind)
    whole = rounding(values.astype(np.float64))
    inside = (whole >= float(limits.min)) & (whole < float(limits.max) + (limits.bits <= 32))
    result = np.where(inside, whole, 0.0).astype(kind)
    result = np.where(whole >= float(limits.max) + (limits.bits <= 32), limits.max, result)
    return np.where(whole < float(limits.min), limits.min, result).astype(kind)
