// Sixteen numbers as one value, in as many registers as the instruction set needs. Every operation acts on each lane
// alone or adds in one fixed order, so results do not depend on the set.
#pragma once

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "args.h"

namespace f2d {
namespace {

template <class A>
struct Lanes {
  A v[kLaneCount];
};

#define F2D_LANES for (int l = 0; l < kLaneCount; ++l)

template <class A, class T>
F2D_FN void load(const T* from, Lanes<A>& to) {
#pragma omp simd
  F2D_LANES to.v[l] = load_as<A>(from + l);
}

template <class A, class T>
F2D_FN void store(T* to, const Lanes<A>& from) {
#pragma omp simd
  F2D_LANES store_as<A>(to + l, from.v[l]);
}

template <class A>
F2D_FN void fill(A value, Lanes<A>& to) {
#pragma omp simd
  F2D_LANES to.v[l] = value;
}

template <class A>
F2D_FN Lanes<A> fma(const Lanes<A>& a, const Lanes<A>& b, const Lanes<A>& c) {
  Lanes<A> r;
#pragma omp simd
  F2D_LANES r.v[l] = f2d::fma(a.v[l], b.v[l], c.v[l]);
  return r;
}

template <class A>
F2D_FN Lanes<A> operator*(const Lanes<A>& a, const Lanes<A>& b) {
  Lanes<A> r;
#pragma omp simd
  F2D_LANES r.v[l] = a.v[l] * b.v[l];
  return r;
}

// Lane l gets the sum of row l's sixteen, added in halves: (0..7) + (8..15), then fours, twos and ones.
template <class A>
F2D_FN Lanes<A> sum_rows(const A* rows) {
  Lanes<A> sums;
  for (int r = 0; r < kLaneCount; ++r) {
    A part[kLaneCount];
    F2D_LANES part[l] = rows[r * kLaneCount + l];
    for (int half = kLaneCount / 2; half > 0; half /= 2)
      for (int l = 0; l < half; ++l) part[l] += part[l + half];
    sums.v[r] = part[0];
  }
  return sums;
}

#if defined(__AVX2__)

// Eight of sum_rows' sixteen sums: 3 shuffles and additions for two rows instead of 8 for each.
F2D_FN __m256 sum_eight_rows(const float* rows) {
  __m256 eight[8], four[4], two[2];
  for (int r = 0; r < 8; ++r)
    eight[r] = _mm256_add_ps(_mm256_loadu_ps(rows + r * kLaneCount), _mm256_loadu_ps(rows + r * kLaneCount + 8));
  for (int r = 0; r < 4; ++r)
    four[r] = _mm256_add_ps(_mm256_permute2f128_ps(eight[r], eight[r + 4], 0x20),
                            _mm256_permute2f128_ps(eight[r], eight[r + 4], 0x31));
  for (int r = 0; r < 2; ++r)
    two[r] = _mm256_add_ps(_mm256_shuffle_ps(four[2 * r], four[2 * r + 1], 0x44),
                           _mm256_shuffle_ps(four[2 * r], four[2 * r + 1], 0xee));
  return _mm256_add_ps(_mm256_shuffle_ps(two[0], two[1], 0x88), _mm256_shuffle_ps(two[0], two[1], 0xdd));
}

// to_bf16 of eight values, as 32-bit numbers.
F2D_FN __m256i bf16_bits(__m256 value) {
  const __m256i bits = _mm256_castps_si256(value), one = _mm256_set1_epi32(1);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), one);
  const __m256i up = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(value, value, _CMP_UNORD_Q));
  return _mm256_blendv_epi8(_mm256_srli_epi32(up, 16), _mm256_set1_epi32(0x7fc0), nan);
}

F2D_FN void store_bf16(bf16* to, __m256 low, __m256 high) {
  const __m256i packed = _mm256_packus_epi32(bf16_bits(low), bf16_bits(high));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm256_permute4x64_epi64(packed, 0xd8));
}

F2D_FN __m256i widened(const bf16* from) {
  return _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))), 16);
}

#endif

#if defined(__AVX512F__)

template <>
struct Lanes<float> {
  __m512 v;
};

F2D_FN void load(const float* from, Lanes<float>& to) { to.v = _mm512_loadu_ps(from); }
F2D_FN void load(const bf16* from, Lanes<float>& to) {
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  to.v = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}
F2D_FN void store(float* to, const Lanes<float>& from) { _mm512_storeu_ps(to, from.v); }
F2D_FN void store(bf16* to, const Lanes<float>& from) {
  store_bf16(to, _mm512_castps512_ps256(from.v), _mm512_extractf32x8_ps(from.v, 1));
}
F2D_FN void fill(float value, Lanes<float>& to) { to.v = _mm512_set1_ps(value); }
F2D_FN Lanes<float> fma(const Lanes<float>& a, const Lanes<float>& b, const Lanes<float>& c) {
  return {_mm512_fmadd_ps(a.v, b.v, c.v)};
}
F2D_FN Lanes<float> operator*(const Lanes<float>& a, const Lanes<float>& b) { return {_mm512_mul_ps(a.v, b.v)}; }
F2D_FN Lanes<float> sum_rows(const float* rows) {
  const __m512 low = _mm512_castps256_ps512(sum_eight_rows(rows));
  return {_mm512_insertf32x8(low, sum_eight_rows(rows + 8 * kLaneCount), 1)};
}

#elif defined(__AVX2__)

template <>
struct Lanes<float> {
  __m256 low, high;
};

F2D_FN void load(const float* from, Lanes<float>& to) {
  to.low = _mm256_loadu_ps(from), to.high = _mm256_loadu_ps(from + 8);
}
F2D_FN void load(const bf16* from, Lanes<float>& to) {
  to.low = _mm256_castsi256_ps(widened(from)), to.high = _mm256_castsi256_ps(widened(from + 8));
}
F2D_FN void store(float* to, const Lanes<float>& from) {
  _mm256_storeu_ps(to, from.low), _mm256_storeu_ps(to + 8, from.high);
}
F2D_FN void store(bf16* to, const Lanes<float>& from) { store_bf16(to, from.low, from.high); }
F2D_FN void fill(float value, Lanes<float>& to) { to.low = to.high = _mm256_set1_ps(value); }
F2D_FN Lanes<float> fma(const Lanes<float>& a, const Lanes<float>& b, const Lanes<float>& c) {
  return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}
F2D_FN Lanes<float> operator*(const Lanes<float>& a, const Lanes<float>& b) {
  return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)};
}
F2D_FN Lanes<float> sum_rows(const float* rows) {
  return {sum_eight_rows(rows), sum_eight_rows(rows + 8 * kLaneCount)};
}

#endif

#undef F2D_LANES

template <class A, class T>
F2D_FN Lanes<A> loaded_lanes(const T* from) {
  Lanes<A> lanes;
  load(from, lanes);
  return lanes;
}

template <class A>
F2D_FN Lanes<A> all_lanes(A value) {
  Lanes<A> lanes;
  fill(value, lanes);
  return lanes;
}

}  // namespace
}  // namespace f2d
