// Sixteen floats at a time, the same on every instruction set: the result of a lane does not depend on the register
// width. Loads and stores convert from and to the 16-bit types; a line is 32 elements, one cache line of a 16-bit
// tensor.
#pragma once

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "../portable.h"

namespace f2d {
namespace {

constexpr int kWide = 16;

#if defined(__AVX512F__)

struct Wide {
  __m512 v;
};

inline Wide joined(__m256 low, __m256 high) { return {_mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1)}; }
inline Wide broadcast(float x) { return {_mm512_set1_ps(x)}; }
inline Wide operator+(Wide a, Wide b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Wide operator*(Wide a, Wide b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Wide multiply_add(Wide a, Wide b, Wide c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }

inline Wide load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline Wide load(const bf16* p) {
  const __m512i words = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(words, 16))};
}
inline Wide load(const f16* p) { return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))}; }
template <class T>
F2D_FN void load(const T* p, Wide& to) {
  to = load(p);
}
inline Wide load_first(const float* p, int count) {
  return {_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1), p)};
}

inline __m256i packed(Wide a, bf16) {
  const __m512i bits = _mm512_castps_si512(a.v);
  const __m512i odd = _mm512_and_epi32(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i up = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __mmask16 nan = _mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q);
  return _mm512_cvtepi32_epi16(_mm512_mask_mov_epi32(_mm512_srli_epi32(up, 16), nan, _mm512_set1_epi32(0x7fc0)));
}
inline __m256i packed(Wide a, f16) { return _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT); }

inline void store(float* p, Wide a) { _mm512_storeu_ps(p, a.v); }
template <class T>
inline void store(T* p, Wide a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), packed(a, T()));
}
inline void store_past_cache(float* p, Wide a) { _mm512_stream_ps(p, a.v); }
template <class T>
inline void store_past_cache(T* p, Wide a) {
  _mm256_stream_si256(reinterpret_cast<__m256i*>(p), packed(a, T()));
}

// out[l] = a[index[l]]
inline Wide select(Wide a, const int32_t* index) { return {_mm512_permutexvar_ps(_mm512_loadu_si512(index), a.v)}; }

// lanes[l] += a[l] * b[l]; the product of two floats is exact in double
inline void add_products(double* lanes, Wide a, Wide b) {
  const auto half = [&](double* at, __m256 x, __m256 y) {
    _mm512_storeu_pd(at, _mm512_fmadd_pd(_mm512_cvtps_pd(x), _mm512_cvtps_pd(y), _mm512_loadu_pd(at)));
  };
  half(lanes, _mm512_castps512_ps256(a.v), _mm512_castps512_ps256(b.v));
  half(lanes + 8, _mm512_extractf32x8_ps(a.v, 1), _mm512_extractf32x8_ps(b.v, 1));
}

inline __m256 upper_plus_lower(Wide a) {
  return _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
}

#elif defined(__AVX2__)

struct Wide {
  __m256 low, high;
};

inline Wide joined(__m256 low, __m256 high) { return {low, high}; }
inline Wide broadcast(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline Wide operator+(Wide a, Wide b) { return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)}; }
inline Wide operator*(Wide a, Wide b) { return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)}; }
inline Wide multiply_add(Wide a, Wide b, Wide c) {
  return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}

inline __m256 load_half(const float* p) { return _mm256_loadu_ps(p); }
inline __m256 load_half(const bf16* p) {
  const __m256i words = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return _mm256_castsi256_ps(_mm256_slli_epi32(words, 16));
}
inline __m256 load_half(const f16* p) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
template <class T>
inline Wide load(const T* p) {
  return {load_half(p), load_half(p + 8)};
}
// Half by half: if a whole Wide is assigned, GCC 12 writes the sums of expert_head's backward loop to the stack in
// every iteration, six stores for twelve fma.
template <class T>
F2D_FN void load(const T* p, Wide& to) {
  to.low = load_half(p);
  to.high = load_half(p + 8);
}
inline Wide load_first(const float* p, int count) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const auto half = [&](const float* at, int n) {
    return n <= 0 ? _mm256_setzero_ps() : _mm256_maskload_ps(at, _mm256_cmpgt_epi32(_mm256_set1_epi32(n), lane));
  };
  return {half(p, count), half(p + 8, count - 8)};
}

inline __m128i packed(__m256 a, bf16) {
  const __m256i bits = _mm256_castps_si256(a);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i up = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q));
  const __m256i words = _mm256_blendv_epi8(_mm256_srli_epi32(up, 16), _mm256_set1_epi32(0x7fc0), nan);
  return _mm_packus_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
}
inline __m128i packed(__m256 a, f16) { return _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT); }

inline void store(float* p, Wide a) {
  _mm256_storeu_ps(p, a.low);
  _mm256_storeu_ps(p + 8, a.high);
}
template <class T>
inline void store(T* p, Wide a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), packed(a.low, T()));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8), packed(a.high, T()));
}
inline void store_past_cache(float* p, Wide a) {
  _mm256_stream_ps(p, a.low);
  _mm256_stream_ps(p + 8, a.high);
}
template <class T>
inline void store_past_cache(T* p, Wide a) {
  _mm_stream_si128(reinterpret_cast<__m128i*>(p), packed(a.low, T()));
  _mm_stream_si128(reinterpret_cast<__m128i*>(p + 8), packed(a.high, T()));
}

inline Wide select(Wide a, const int32_t* index) {
  const auto half = [&](const int32_t* at) {  // the permutation reads only the low three bits of an index
    const __m256i i = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
    const __m256 upper = _mm256_castsi256_ps(_mm256_cmpgt_epi32(i, _mm256_set1_epi32(7)));
    return _mm256_blendv_ps(_mm256_permutevar8x32_ps(a.low, i), _mm256_permutevar8x32_ps(a.high, i), upper);
  };
  return {half(index), half(index + 8)};
}

inline void add_products(double* lanes, Wide a, Wide b) {
  const auto quarter = [&](double* at, __m128 x, __m128 y) {
    _mm256_storeu_pd(at, _mm256_fmadd_pd(_mm256_cvtps_pd(x), _mm256_cvtps_pd(y), _mm256_loadu_pd(at)));
  };
  quarter(lanes, _mm256_castps256_ps128(a.low), _mm256_castps256_ps128(b.low));
  quarter(lanes + 4, _mm256_extractf128_ps(a.low, 1), _mm256_extractf128_ps(b.low, 1));
  quarter(lanes + 8, _mm256_castps256_ps128(a.high), _mm256_castps256_ps128(b.high));
  quarter(lanes + 12, _mm256_extractf128_ps(a.high, 1), _mm256_extractf128_ps(b.high, 1));
}

inline __m256 upper_plus_lower(Wide a) { return _mm256_add_ps(a.low, a.high); }

#else

struct Wide {
  float v[kWide];
};

template <class Function>
inline Wide each_lane(Function function) {
  Wide out;
  for (int l = 0; l < kWide; ++l) out.v[l] = function(l);
  return out;
}
inline Wide broadcast(float x) { return each_lane([&](int) { return x; }); }
inline Wide operator+(const Wide& a, const Wide& b) { return each_lane([&](int l) { return a.v[l] + b.v[l]; }); }
inline Wide operator*(const Wide& a, const Wide& b) { return each_lane([&](int l) { return a.v[l] * b.v[l]; }); }
inline Wide multiply_add(const Wide& a, const Wide& b, const Wide& c) {
  return each_lane([&](int l) { return fma(a.v[l], b.v[l], c.v[l]); });
}
template <class T>
inline Wide load(const T* p) {
  return each_lane([&](int l) { return load_as<float>(p + l); });
}
inline Wide load_first(const float* p, int count) {
  return each_lane([&](int l) { return l < count ? p[l] : 0.0f; });
}
template <class T>
inline void store(T* p, const Wide& a) {
  for (int l = 0; l < kWide; ++l) store_as<float>(p + l, a.v[l]);
}
template <class T>
inline void store_past_cache(T* p, const Wide& a) {
  store(p, a);
}
inline Wide select(const Wide& a, const int32_t* index) {
  return each_lane([&](int l) { return a.v[index[l]]; });
}
inline void add_products(double* lanes, const Wide& a, const Wide& b) {
  for (int l = 0; l < kWide; ++l) lanes[l] += static_cast<double>(a.v[l]) * static_cast<double>(b.v[l]);
}

#endif

// The sum of the lanes as a tree over halves: l + (l + 8), then 4, 2, 1 apart.
inline float sum(const Wide& a) {
#if defined(__AVX2__)
  const __m256 eight = upper_plus_lower(a);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
#else
  Wide part = a;
  for (int half = kWide / 2; half > 0; half /= 2)
    for (int l = 0; l < half; ++l) part.v[l] += part.v[l + half];
  return part.v[0];
#endif
}

// Stores past the cache are not ordered with other threads' reads until a fence.
inline void fence() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

inline void prefetch(const void* p) {
#if defined(__GNUC__)
  __builtin_prefetch(p);
#endif
}

template <bool kPastCache, class T>
inline void put(T* p, const Wide& a) {
  if (kPastCache) return store_past_cache(p, a);
  store(p, a);
}

}  // namespace
}  // namespace f2d
