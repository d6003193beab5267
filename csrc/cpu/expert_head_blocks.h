// Shared by the forward and backward kernels of the expert head: the weights of a sample, the weights of a block's
// pixels, and features as rows of 16 lanes, in place if they are dense in float or bfloat16.
#pragma once

#include "../expert_head.h"
#include "expert_head.h"
#include "lanes.h"
#include "stream.h"

namespace f2d {
namespace {

// Prefetches rows of features, which are read several at a time, an order that hardware prefetchers miss (128 bfloat16
// features: 171 -> 67 ns per pixel; into L1 126).
inline void prefetch_to_l2(const void* at) { __builtin_prefetch(at, 0, 2); }

inline int64_t round_up(int64_t n) { return (n + kLaneCount - 1) / kLaneCount * kLaneCount; }

// [k][c][row_size]: bias, 15 zeros, then weight * scale of every feature.
template <class A>
inline void sample_weights(const HeadArgs& a, int64_t b, A* rows) {
  const int64_t size = a.row_size();
  for (int64_t i = 0; i < a.experts * a.channels * size; ++i) rows[i] = A(0);
  for (int64_t k = 0; k < a.experts; ++k)
    for (int64_t c = 0; c < a.channels; ++c, rows += size) {
      if (a.bias.data) rows[0] = static_cast<A>(a.bias.at(k, c, 0));
      for (int64_t f = 0; f < a.features; ++f) {
        const A weight = static_cast<A>(a.weight.at(k, c, f));
        rows[kLaneCount + f] = a.scale.data ? head_weight(weight, static_cast<A>(a.scale.at(b, k, f))) : weight;
      }
    }
}

// The pixels of the block that begins at `pixel`: whole registers while any are left, then the rest.
inline int64_t block_length(const HeadArgs& a, int64_t pixel, int64_t end) {
  const int64_t left = smaller(a.block_pixels(), end - pixel);
  return left > kLaneCount && !a.pixel_major ? left / kLaneCount * kLaneCount : left;
}

// `read`, padded with zeros to a multiple of 16, in `buffer` if the block is not a multiple.
template <class A>
inline const A* read_lanes(const Stream& s, const Block& block, A* buffer) {
  const A* from = read(s, block, buffer);
  const int64_t n = block.size(), whole = round_up(n);
  if (n == whole) return from;
  for (int64_t i = 0; i < n; ++i) buffer[i] = from[i];
  for (int64_t i = n; i < whole; ++i) buffer[i] = A(0);
  return buffer;
}

// The map of expert k at the block's pixels; ones if there are no maps.
template <class A>
inline const A* read_map(const HeadArgs& a, int64_t k, const Block& pixels, A* buffer) {
  if (a.maps) return read_lanes(a.maps[k], pixels, buffer);
  for (int64_t i = 0; i < round_up(pixels.pixels); ++i) buffer[i] = i < pixels.pixels ? A(1) : A(0);
  return buffer;
}

template <class A>
inline void gate_map(A gate, const A* map, int64_t n, A* weights) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) weights[i] = gate * map[i];
}

// Whether kernels may work in the tensor's own memory: planes of pixels, or pixels of features.
inline bool in_place(const HeadArgs& a, const Stream& s, DType type, int64_t pixels) {
  if (s.dtype != type || !s.linear) return false;
  return a.pixel_major ? s.c == 1 && a.features % kLaneCount == 0 : s.w == 1 && pixels % kLaneCount == 0;
}

// Features of `pixels` (pixel by pixel) as rows of padded_features(), with zeros after the last one. Uses twice their
// size.
template <class A>
inline const A* read_rows(const HeadArgs& a, const Stream& s, const Block& pixels, A* buffer) {
  const int64_t width = a.features, padded = a.padded_features(), n = pixels.pixels;
  const A* from = read(s, Block{pixels.b, 0, width, pixels.pixel, n}, buffer + n * padded);
  for (int64_t p = 0; p < n; ++p)
    for (int64_t f = 0; f < padded; ++f) buffer[p * padded + f] = f < width ? from[p * width + f] : A(0);
  return buffer;
}

// Calls work<G>(first channel) for each group of at most kChannelGroup channels, with the compile-time group size G.
template <class Work>
inline void each_channel_group(int64_t channels, const Work& work) {
  int64_t c = 0;
  for (; c + kChannelGroup <= channels; c += kChannelGroup) work.template run<kChannelGroup>(c);
  switch (channels - c) {
    case 1: return work.template run<1>(c);
    case 2: return work.template run<2>(c);
    case 3: return work.template run<3>(c);
    default: return;
  }
}

}  // namespace
}  // namespace f2d
