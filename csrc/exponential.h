// exp(z) and exp(z) - 1 for -87 <= z <= 20 from one polynomial: z = n ln 2 + r, |r| <= ln(2) / 2,
//
//   p = r + r^2 Q(r) = exp(r) - 1,   exp(z) = 2^n p + 2^n,   expm1(z) = 2^n p + (2^n - 1)
//
// float32 uses explicit fma and is bit-exact on every backend; errors are below 1.1 ulp (exp) and 1.6 ulp (expm1).
// float64 uses the standard library.
#pragma once

#include "portable.h"

namespace f2d {

template <class A>
struct Exponential {
  A exp, expm1;
  A octave;  // n: 0 if |z| < ln(2) / 2. A number, because GCC 12 vectorises no structure with a bool (8x slower)
};

F2D_FN Exponential<float> exponential(float z) {
  const float shifted = fma(z, 0x1.715476p+0f, 0x1.8p+23f);  // the low mantissa bits hold n = nearest integer of z / ln 2
  const float n = shifted - 0x1.8p+23f;
  float r = fma(n, -0x1.62e4p-1f, z);  // ln 2 in two parts; the first ends in 8 zero bits, so n times it is exact
  r = fma(n, -0x1.7f7d1cp-20f, r);
  float q = 0x1.6b969ep-10f;
  q = fma(q, r, 0x1.122542p-7f);
  q = fma(q, r, 0x1.5556f6p-5f);
  q = fma(q, r, 0x1.5554b4p-3f);
  q = fma(q, r, 0x1.fffffep-2f);
  const float p = fma(q * r, r, r);
  const float scale = bit_cast<float>((bit_cast<uint32_t>(shifted) << 23) + 0x3f800000u);
  return {fma(scale, p, scale), fma(scale, p, scale - 1.0f), n};
}

F2D_FN Exponential<double> exponential(double z) {
  return {::exp(z), ::expm1(z), ::rint(z * 1.4426950408889634)};
}

}  // namespace f2d
