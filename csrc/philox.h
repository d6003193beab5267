// Philox 4x32 with ten rounds (Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3, SC 2011).
// Each round multiplies two of the four counter words by a constant and mixes the halves of the products.
#pragma once

#include "portable.h"

namespace f2d {

constexpr uint32_t kPhiloxM0 = 0xD2511F53u, kPhiloxM1 = 0xCD9E8D57u;  // round multipliers
constexpr uint32_t kPhiloxW0 = 0x9E3779B9u, kPhiloxW1 = 0xBB67AE85u;  // key increments: golden ratio, sqrt(3) - 1
constexpr int kPhiloxRounds = 10;

struct Words {
  uint32_t w0, w1, w2, w3;
};

F2D_FN Words philox(Words counter, uint32_t key0, uint32_t key1) {
  F2D_UNROLL
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const uint64_t a = static_cast<uint64_t>(kPhiloxM0) * counter.w0;
    const uint64_t b = static_cast<uint64_t>(kPhiloxM1) * counter.w2;
    counter = {static_cast<uint32_t>(b >> 32) ^ counter.w1 ^ key0, static_cast<uint32_t>(b),
               static_cast<uint32_t>(a >> 32) ^ counter.w3 ^ key1, static_cast<uint32_t>(a)};
    key0 += kPhiloxW0;
    key1 += kPhiloxW1;
  }
  return counter;
}

// The source of an element's noise, which does not depend on tile, batch or memory layout.
struct NoiseKey {
  uint32_t key0, key1;  // seed low, seed high
  uint32_t sample;      // index of the sample if the batch has one seed, 0 if every sample has its own
  uint32_t stream;      // step number, 0..65535
};

// The random words of the four elements x = 4 * quad .. 4 * quad + 3 of row y, channel c.
F2D_FN Words noise_words(NoiseKey key, uint32_t quad, uint32_t y, uint32_t c) {
  return philox({quad, y, c + 65536u * key.stream, key.sample}, key.key0, key.key1);
}

}  // namespace f2d
