// Seeded noise for a block of pixels, many counters at a time. Each word of the counters is an array, so every round of
// Philox and every step of Box-Muller is a vector operation. Only the noise of one block exists at a time (in L1).
#pragma once

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "../normal.h"
#include "stream.h"

namespace f2d {
namespace {

// A register of 32-bit words, each in 64 bits. The vector multiply reads the low halves and returns full products, so
// the bits above a word do not matter. By itself GCC 12 chooses the 64-bit multiply (3 operations, 2x slower).
#if defined(__AVX512F__)
typedef uint64_t Lanes __attribute__((vector_size(64)));
inline Lanes multiply(Lanes a, Lanes b) { return (Lanes)_mm512_mul_epu32((__m512i)a, (__m512i)b); }
#elif defined(__AVX2__)
typedef uint64_t Lanes __attribute__((vector_size(32)));
inline Lanes multiply(Lanes a, Lanes b) { return (Lanes)_mm256_mul_epu32((__m256i)a, (__m256i)b); }
#elif defined(__SSE2__)
typedef uint64_t Lanes __attribute__((vector_size(16)));
inline Lanes multiply(Lanes a, Lanes b) { return (Lanes)_mm_mul_epu32((__m128i)a, (__m128i)b); }
#else
typedef uint64_t Lanes __attribute__((vector_size(16)));
inline Lanes multiply(Lanes a, Lanes b) { return (a & 0xffffffffu) * (b & 0xffffffffu); }
#endif

constexpr int kLanes = sizeof(Lanes) / sizeof(uint64_t);
constexpr int kQuads = 32;  // counters per batch

struct Counters {
  uint32_t quads[kQuads], rows[kQuads], channels[kQuads];
};

// eps[4 * i + lane] for counter i.
inline void normal_batch(NoiseKey key, const Counters& counters, float* eps) {
  uint32_t words[4][kQuads];
  constexpr int kStep = 2 * kLanes;  // two registers per word hide the latency of the multiply
  for (int start = 0; start < kQuads; start += kStep) {
    Lanes w[2][4];
    for (int half = 0; half < 2; ++half) {
      for (int i = 0; i < kLanes; ++i) {
        w[half][0][i] = counters.quads[start + half * kLanes + i];
        w[half][1][i] = counters.rows[start + half * kLanes + i];
        w[half][2][i] = counters.channels[start + half * kLanes + i] + 65536u * key.stream;
      }
      w[half][3] = Lanes{} + key.sample;
    }
    uint32_t key0 = key.key0, key1 = key.key1;
    for (int round = 0; round < kPhiloxRounds; ++round) {
      for (auto& v : w) {
        const Lanes a = multiply(v[0], Lanes{} + kPhiloxM0);
        const Lanes b = multiply(v[2], Lanes{} + kPhiloxM1);
        v[0] = (b >> 32) ^ v[1] ^ key0;
        v[1] = b;
        v[2] = (a >> 32) ^ v[3] ^ key1;
        v[3] = a;
      }
      key0 += kPhiloxW0;
      key1 += kPhiloxW1;
    }
    for (int half = 0; half < 2; ++half)
      for (int word = 0; word < 4; ++word)
        for (int i = 0; i < kLanes; ++i)
          words[word][start + half * kLanes + i] = static_cast<uint32_t>(w[half][word][i]);
  }
#pragma omp simd
  for (int i = 0; i < kQuads; ++i) {
    box_muller(words[0][i], words[1][i], eps[4 * i], eps[4 * i + 1]);
    box_muller(words[2][i], words[3][i], eps[4 * i + 2], eps[4 * i + 3]);
  }
}

// eps of a block, in the block's order. Counters of several rows and channels share a batch, so narrow images and the few
// pixels of a block with many channels waste none. If the width or window is not a multiple of 4, a row uses only some
// lanes of the counters at its ends.
template <class A>
inline void fill_noise(NoiseKey key, int64_t width, uint32_t top, uint32_t left, const Block& block, A* out) {
  struct Run {
    int64_t at;  // first element, counted in the block
    int32_t lane, length, quad;  // its lane in counter number `quad` of the batch
  };
  int64_t c = 0, done = 0;  // the next pixel of the next channel
  while (c < block.channels) {
    Counters counters;
    Run runs[kQuads];
    int used = 0, count = 0;
    while (used < kQuads && c < block.channels) {
      const int64_t y = (block.pixel + done) / width, x = (block.pixel + done) % width;
      const int64_t column = x + left;
      int64_t length = smaller(width - x, block.pixels - done);
      const int32_t lane = static_cast<int32_t>(column & 3);
      length = smaller(length, 4 * (kQuads - used) - lane);
      runs[count++] = {done * block.channels + c, lane, static_cast<int32_t>(length), used};
      for (int64_t q = column >> 2; q <= (column + length - 1) >> 2; ++q, ++used) {
        counters.quads[used] = static_cast<uint32_t>(q);
        counters.rows[used] = static_cast<uint32_t>(y) + top;
        counters.channels[used] = static_cast<uint32_t>(block.channel + c);
      }
      done += length;
      if (done == block.pixels) done = 0, ++c;
    }
    for (; used < kQuads; ++used) counters.quads[used] = counters.rows[used] = counters.channels[used] = 0;
    float eps[4 * kQuads];
    normal_batch(key, counters, eps);
    for (int r = 0; r < count; ++r) {
      const float* from = eps + 4 * runs[r].quad + runs[r].lane;
      A* to = out + runs[r].at;
      if (block.channels == 1) {
        for (int i = 0; i < runs[r].length; ++i) to[i] = static_cast<A>(from[i]);
      } else {
        for (int i = 0; i < runs[r].length; ++i) to[i * block.channels] = static_cast<A>(from[i]);
      }
    }
  }
}

// The noise of a block, given or generated into `buffer`. `width` is the image's (or tile's) row length.
template <class A>
inline const A* noise_of(const NoiseSource& a, int64_t width, const Block& block, A* buffer) {
  if (a.noise.data) return read(a.noise, block, buffer);
  fill_noise(a.key(block.b), width, a.top, a.left, block, buffer);
  return buffer;
}

// Calls visit(eps): in place if the noise is dense and of the type T of a `fused` loop, otherwise as A in `buffer`.
template <class A, class T, class Visit>
inline void with_noise(const NoiseSource& a, int64_t width, const Block& block, A* buffer, Visit visit) {
  if (a.noise.data && all_dense(dtype_of<T>(), block, a.noise)) return visit(in_place<const T>(a.noise, block));
  visit(noise_of(a, width, block, buffer));
}

}  // namespace
}  // namespace f2d
