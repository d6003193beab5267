// Lanes<A>: sixteen floats or doubles as one value. Every operation acts on each lane separately or adds in a fixed
// order, so results do not depend on the instruction set.
#pragma once

#include "args.h"
#include "vector.h"

namespace f2d {
namespace {

template <class A>
struct Sixteen {
  A v[kLaneCount];
};

template <class A>
struct LanesOf {
  using type = Sixteen<A>;
};

#if defined(__AVX2__)
template <>
struct LanesOf<float> {
  using type = Wide;
};
#endif

template <class A>
using Lanes = typename LanesOf<A>::type;

#define F2D_LANES for (int l = 0; l < kLaneCount; ++l)

template <class A, class T>
F2D_FN void load(const T* from, Sixteen<A>& to) {
#pragma omp simd
  F2D_LANES to.v[l] = load_as<A>(from + l);
}

template <class A, class T>
F2D_FN void store(T* to, const Sixteen<A>& from) {
#pragma omp simd
  F2D_LANES store_as<A>(to + l, from.v[l]);
}

template <class A>
F2D_FN void fill(A value, Sixteen<A>& to) {
#pragma omp simd
  F2D_LANES to.v[l] = value;
}

template <class A>
F2D_FN Sixteen<A> fma(const Sixteen<A>& a, const Sixteen<A>& b, const Sixteen<A>& c) {
  Sixteen<A> r;
#pragma omp simd
  F2D_LANES r.v[l] = f2d::fma(a.v[l], b.v[l], c.v[l]);
  return r;
}

template <class A>
F2D_FN Sixteen<A> operator*(const Sixteen<A>& a, const Sixteen<A>& b) {
  Sixteen<A> r;
#pragma omp simd
  F2D_LANES r.v[l] = a.v[l] * b.v[l];
  return r;
}

// Lane l receives the sum of the sixteen values of row l, added in halves: (0..7) + (8..15), then fours, twos and ones.
template <class A>
F2D_FN Sixteen<A> sum_rows(const A* rows) {
  Sixteen<A> sums;
  for (int r = 0; r < kLaneCount; ++r) {
    A part[kLaneCount];
    F2D_LANES part[l] = rows[r * kLaneCount + l];
    for (int half = kLaneCount / 2; half > 0; half /= 2)
      for (int l = 0; l < half; ++l) part[l] += part[l + half];
    sums.v[r] = part[0];
  }
  return sums;
}

#undef F2D_LANES

#if defined(__AVX2__)

F2D_FN void fill(float value, Wide& to) { to = broadcast(value); }

F2D_FN Wide fma(const Wide& a, const Wide& b, const Wide& c) { return multiply_add(a, b, c); }

// Eight of the sixteen sums of sum_rows, with 3 shuffles and additions for two rows instead of 8 for each.
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

F2D_FN Wide sum_rows(const float* rows) {
  return joined(sum_eight_rows(rows), sum_eight_rows(rows + 8 * kLaneCount));
}

#endif

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
