// Standard normals from random words: Box-Muller in float32, from polynomials shared by every backend.
//
//   u = word * 2^-32 + 2^-33,   r = sqrt(-2 ln u0),   eps = r cos(2 pi u1), r sin(2 pi u1)
//
// Each operation below is one correctly rounded float32 operation (fma, multiply, subtract, square root), so
// CPUs, CUDA and Triton are bit-exact. The tests state the maximum error against float64 from the same u. The
// coefficients are minimax in relative error, rounded to float32 one at a time while the rest is refitted.
#pragma once

#include "philox.h"

namespace f2d {

// float(word) rounds to nearest even; without a vectorised unsigned conversion, one fma of its halves is used.
F2D_FN float uniform(uint32_t word) {
#if defined(__CUDA_ARCH__) || defined(__AVX512F__)
  const float value = static_cast<float>(word);
#else
  const float high = static_cast<float>(static_cast<int32_t>(word >> 16));
  const float low = static_cast<float>(static_cast<int32_t>(word & 0xffffu));
  const float value = fma(high, 65536.0f, low);
#endif
  return fma(value, 0x1p-32f, 0x1p-33f);
}

// -2 ln u for a normal float u > 0: u = 2^e (1 + f), sqrt(1/2) <= 1 + f < sqrt(2); relative error of P: 3.0e-8.
F2D_FN float minus_two_log(float u) {
  const int32_t bits = bit_cast<int32_t>(u);
  const int32_t exponent = (bits - 0x3f3504f3) >> 23;
  const float f = bit_cast<float>(bits - exponent * (1 << 23)) - 1.0f;
  float p = -0x1.65f03cp-3f;
  p = fma(p, f, 0x1.250548p-2f);
  p = fma(p, f, -0x1.317c96p-2f);
  p = fma(p, f, 0x1.535c32p-2f);
  p = fma(p, f, -0x1.98d3a2p-2f);
  p = fma(p, f, 0x1.0004a8p-1f);
  p = fma(p, f, -0x1.5556fp-1f);
  p = fma(p, f, 0x1.fffffap-1f);
  p = fma(p * f, f, -2.0f * f);
  return fma(static_cast<float>(exponent), -0x1.62e43p+0f, p);
}

// sin(pi x), cos(pi x) for 0 <= x <= 2: x = q / 2 + t with |t| <= 1/4, exactly; errors 2.9e-8 and 4.4e-10.
F2D_FN void sincos_pi(float x, float& sine, float& cosine) {
  const float shifted = fma(x, 2.0f, 0x1.8p+23f);  // the low mantissa bits now hold q = nearest integer of 2 x
  const uint32_t q = bit_cast<uint32_t>(shifted);
  const float t = fma(shifted - 0x1.8p+23f, -0.5f, x);
  const float t2 = t * t;
  float s = -0x1.33198ap-1f;
  s = fma(s, t2, 0x1.4680a4p+1f);
  s = fma(s, t2, -0x1.4abc24p+2f);
  s = fma(s, t2, 0x1.921fb6p+1f);
  s = s * t;
  float c = 0x1.d4f7eep-3f;
  c = fma(c, t2, -0x1.55b2b6p+0f);
  c = fma(c, t2, 0x1.03c1bp+2f);
  c = fma(c, t2, -0x1.3bd3ccp+2f);
  c = fma(c, t2, 1.0f);
  const bool odd = (q & 1) != 0;
  sine = bit_cast<float>(bit_cast<uint32_t>(odd ? c : s) ^ (q & 2) << 30);
  cosine = bit_cast<float>(bit_cast<uint32_t>(odd ? s : c) ^ ((q + 1) & 2) << 30);
}

F2D_FN void box_muller(uint32_t word0, uint32_t word1, float& eps0, float& eps1) {
  float sine, cosine;
  sincos_pi(2.0f * uniform(word1), sine, cosine);
  const float radius = sqrtf(minus_two_log(uniform(word0)));
  eps0 = radius * cosine;
  eps1 = radius * sine;
}

// The noise of elements x = 4 * quad .. 4 * quad + 3 of row y, channel c.
F2D_FN void normal_quad(NoiseKey key, uint32_t quad, uint32_t y, uint32_t c, float eps[4]) {
  const Words words = noise_words(key, quad, y, c);
  box_muller(words.w0, words.w1, eps[0], eps[1]);
  box_muller(words.w2, words.w3, eps[2], eps[3]);
}

}  // namespace f2d
