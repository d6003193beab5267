// Blocks of strided tensors of any dtype as dense arrays of the compute type in L1: a pointer into the tensor if it
// already is such an array, otherwise a vectorised conversion or a gather. Kernels are then plain loops over arrays.
#pragma once

#if defined(__F16C__)
#include <immintrin.h>
#endif

#include "args.h"
#include "../portable.h"

namespace f2d {
namespace {

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// Part of one image: `pixels` positions starting at `pixel` (row-major) of the channels [channel, channel + channels).
// Values are ordered pixel by pixel, channel fastest.
struct Block {
  int64_t b, channel, channels, pixel, pixels;
  F2D_MEMBER int64_t size() const { return channels * pixels; }
};

inline bool is_dense(const Stream& s, const Block& block) {
  if (block.channels == 1) return s.linear && s.w == 1;
  return s.linear && s.c == 1 && s.w == block.channels;
}

template <class T>
inline T* first(const Stream& s, const Block& block) {
  return reinterpret_cast<T*>(s.data) + block.b * s.b + block.channel * s.c;
}

// Calls visit(offset of the first pixel, index in the block, length) for each run along a row.
template <class Visit>
inline void each_run(const Stream& s, const Block& block, Visit visit) {
  if (s.linear) return visit(block.pixel * s.w, int64_t(0), block.pixels);
  int64_t y = block.pixel / s.width, x = block.pixel % s.width;
  for (int64_t done = 0; done < block.pixels;) {
    const int64_t length = block.pixels - done < s.width - x ? block.pixels - done : s.width - x;
    visit(y * s.h + x * s.w, done, length);
    done += length;
    ++y;
    x = 0;
  }
}

template <class A, class T>
inline void convert_in(const T* from, A* to, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) to[i] = load_as<A>(from + i);
}

template <class A, class T>
inline void convert_out(const A* from, T* to, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) store_as<A>(to + i, from[i]);
}

#if defined(__F16C__)  // these instructions round like the integer arithmetic and take a fifth of the time
inline void convert_in(const f16* from, float* to, int64_t n) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8)
    _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i))));
  for (; i < n; ++i) to[i] = to_float(from[i]);
}

inline void convert_out(const float* from, f16* to, int64_t n) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i),
                     _mm256_cvtps_ph(_mm256_loadu_ps(from + i), _MM_FROUND_TO_NEAREST_INT));
  for (; i < n; ++i) to[i] = to_f16(from[i]);
}
#endif

// kChannels > 0 is a compile-time channel count, with which small interleaved groups vectorise.
template <int kChannels, class A>
inline void repeat_each(const A* from, A* to, int64_t pixels, int64_t channels) {
  const int64_t count = kChannels ? kChannels : channels;
  for (int64_t p = 0; p < pixels; ++p)
    for (int64_t c = 0; c < count; ++c) to[p * count + c] = from[p];
}

// Repeats one value per pixel for every element.
template <class A>
inline void spread(const A* from, A* to, int64_t pixels, int64_t channels) {
  switch (channels) {
    case 2: return repeat_each<2>(from, to, pixels, channels);
    case 3: return repeat_each<3>(from, to, pixels, channels);
    case 4: return repeat_each<4>(from, to, pixels, channels);
    default: return repeat_each<0>(from, to, pixels, channels);
  }
}

template <class A, class T>
inline void gather(const Stream& s, const Block& block, A* to) {
  const T* from = first<T>(s, block);
  if (is_dense(s, block)) return convert_in(from + block.pixel * s.w, to, block.size());
  const int64_t nc = block.channels;
  each_run(s, block, [&](int64_t offset, int64_t at, int64_t length) {
    if (nc == 1 && s.w == 1) return convert_in(from + offset, to + at, length);
    for (int64_t i = 0; i < length; ++i)
      for (int64_t c = 0; c < nc; ++c) to[(at + i) * nc + c] = load_as<A>(from + offset + i * s.w + c * s.c);
  });
}

template <class A, class T>
inline void scatter(const Stream& s, const Block& block, const A* from) {
  T* to = first<T>(s, block);
  if (is_dense(s, block)) return convert_out(from, to + block.pixel * s.w, block.size());
  const int64_t nc = block.channels;
  each_run(s, block, [&](int64_t offset, int64_t at, int64_t length) {
    if (nc == 1 && s.w == 1) return convert_out(from + at, to + offset, length);
    for (int64_t i = 0; i < length; ++i)
      for (int64_t c = 0; c < nc; ++c) store_as<A>(to + offset + i * s.w + c * s.c, from[(at + i) * nc + c]);
  });
}

template <class A> constexpr DType dtype_of();
template <> constexpr DType dtype_of<float>() { return DType::f32; }
template <> constexpr DType dtype_of<double>() { return DType::f64; }
template <> constexpr DType dtype_of<f16>() { return DType::f16; }
template <> constexpr DType dtype_of<bf16>() { return DType::bf16; }

// The values of the block: in place if they are dense and of type A, otherwise in `buffer`.
template <class A>
inline const A* read(const Stream& s, const Block& block, A* buffer) {
  if (s.dtype == dtype_of<A>() && is_dense(s, block)) return first<A>(s, block) + block.pixel * s.w;
  if (s.c == 0 && block.channels > 1) {  // a map
    A pixels[kMaxPixels];
    for (int64_t done = 0; done < block.pixels; done += kMaxPixels) {
      const int64_t n = block.pixels - done < kMaxPixels ? block.pixels - done : kMaxPixels;
      const A* values = read(s, Block{block.b, 0, 1, block.pixel + done, n}, pixels);
      spread(values, buffer + done * block.channels, n, block.channels);
    }
    return buffer;
  }
  switch (s.dtype) {
    case DType::f32: gather<A, float>(s, block, buffer); break;
    case DType::f64: gather<A, double>(s, block, buffer); break;
    case DType::f16: gather<A, f16>(s, block, buffer); break;
    case DType::bf16: gather<A, bf16>(s, block, buffer); break;
  }
  return buffer;
}

// The memory in which to compute the block: in place if the tensor allows it, otherwise `buffer`, which `write` stores.
template <class A>
inline A* target(const Stream& s, const Block& block, A* buffer) {
  if (s.dtype == dtype_of<A>() && is_dense(s, block)) return first<A>(s, block) + block.pixel * s.w;
  return buffer;
}

// The memory into which an earlier `read` put the block.
template <class A>
inline const A* loaded(const Stream& s, const Block& block, A* buffer) {
  return target(s, block, buffer);
}

template <class A>
inline void write(const Stream& s, const Block& block, const A* values) {
  if (s.dtype == dtype_of<A>() && is_dense(s, block) && values == first<A>(s, block) + block.pixel * s.w) return;
  switch (s.dtype) {
    case DType::f32: scatter<A, float>(s, block, values); break;
    case DType::f64: scatter<A, double>(s, block, values); break;
    case DType::f16: scatter<A, f16>(s, block, values); break;
    case DType::bf16: scatter<A, bf16>(s, block, values); break;
  }
}

// The block's memory in the tensor, which must hold it densely.
template <class T>
inline T* in_place(const Stream& s, const Block& block) {
  return first<T>(s, block) + block.pixel * s.w;
}

inline bool all_dense(DType, const Block&) { return true; }
template <class... Rest>
inline bool all_dense(DType dtype, const Block& block, const Stream& s, const Rest&... rest) {
  return (!s.data || (s.dtype == dtype && is_dense(s, block))) && all_dense(dtype, block, rest...);
}

// Calls visit(T()) and returns true if all given streams hold the block densely in one type T: A, or a 16-bit type. A
// loop that converts on the fly saves a pass over L1 for each stream: a bf16 log-normal step takes 0.29 ms instead of
// 0.54.
template <class A, class Visit, class... Streams>
inline bool fused(Visit visit, const Block& block, const Stream& s, const Streams&... streams) {
  if (!all_dense(s.dtype, block, s, streams...)) return false;
  if (s.dtype == dtype_of<A>()) return visit(A()), true;
  if constexpr (sizeof(A) == sizeof(float)) {
    if (s.dtype == DType::bf16) return visit(bf16()), true;
    if (s.dtype == DType::f16) return visit(f16()), true;
  }
  return false;
}

// Calls visit(values): the block in place in its own type, otherwise as returned by `read`.
template <class A, class Visit>
inline void with_block(const Stream& s, const Block& block, A* buffer, Visit visit) {
  if (fused<A>([&](auto type) { visit(in_place<const decltype(type)>(s, block)); }, block, s)) return;
  visit(read(s, block, buffer));
}

// lanes[i % 16] += values[i], i from a multiple of 16, so that the order of a sum does not depend on the register
// width. Over pixels the lanes are double: 256 successive float additions lose twice as much as a pairwise sum.
template <class A, class L>
inline void add_to_lanes(const A* values, int64_t n, L* lanes) {
  int64_t i = 0;
  for (; i + kLaneCount <= n; i += kLaneCount)
#pragma omp simd
    for (int l = 0; l < kLaneCount; ++l) lanes[l] += static_cast<L>(values[i + l]);
  for (int l = 0; i < n; ++i, ++l) lanes[l] += static_cast<L>(values[i]);
}

template <class A>
inline A sum_lanes(const A* lanes, int64_t stride = 1) {
  static_assert(kLaneCount == 16);
  A part[8];  // the loops have constant lengths, since GCC 12 leaves others in memory: 8 ns instead of 3
#pragma omp simd
  for (int l = 0; l < 8; ++l) part[l] = lanes[l * stride] + lanes[(l + 8) * stride];
#pragma omp simd
  for (int l = 0; l < 4; ++l) part[l] += part[l + 4];
#pragma omp simd
  for (int l = 0; l < 2; ++l) part[l] += part[l + 2];
  return part[0] + part[1];
}

}  // namespace
}  // namespace f2d
