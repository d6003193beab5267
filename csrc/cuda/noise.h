// The source of the noise of the CUDA kernels, and the walk for drawing it: four neighbours share a counter.
#pragma once

#include "../normal.h"
#include "pixels.h"

namespace f2d {

// A tensor, or the seeds from which noise is drawn (given.data null).
struct NoiseSource {
  View given;
  const int64_t* seeds;
  int64_t seed_stride;
  int64_t quads_per_row;  // counters that a row touches
  bool seed_per_sample;
  uint32_t stream, top, left;

  F2D_MEMBER NoiseKey key(int64_t b) const {
    const uint64_t seed = static_cast<uint64_t>(seeds[seed_per_sample ? b * seed_stride : 0]);
    return {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32),
            seed_per_sample ? 0u : static_cast<uint32_t>(b), stream};
  }
};

// The noise of kCount neighbours in the order of rows, from `pixel` on. A counter gives that of four columns; where rows or
// the window are no multiples of 4, the neighbours begin within one, and end in a row after the first.
template <int kCount, class Index>
F2D_FN void draw_pixels(const NoiseSource& s, const Shape& shape, Index b, Index c, Index pixel, float (&eps)[kCount]) {
  const NoiseKey key = s.key(b);
  const int width = static_cast<int>(shape.width);
  const Index row = quotient(pixel, static_cast<Index>(shape.width));
  uint32_t y = static_cast<uint32_t>(row) + s.top;
  int x = static_cast<int>(pixel - row * static_cast<Index>(shape.width));
  F2D_ROLLED
  for (int done = 0; done < kCount;) {
    float four[4];
    const uint32_t column = static_cast<uint32_t>(x) + s.left;
    normal_quad(key, column >> 2, y, static_cast<uint32_t>(c), four);
    const int turn = static_cast<int>(column) - done;  // eps[i] = four[(i + turn) % 4] from i = done on
    const float half[4] = {turn & 1 ? four[1] : four[0], turn & 1 ? four[2] : four[1], turn & 1 ? four[3] : four[2],
                           turn & 1 ? four[0] : four[3]};
    const float turned[4] = {turn & 2 ? half[2] : half[0], turn & 2 ? half[3] : half[1], turn & 2 ? half[0] : half[2],
                             turn & 2 ? half[1] : half[3]};
    F2D_UNROLL
    for (int i = 0; i < kCount; ++i) eps[i] = i < done ? eps[i] : turned[i % 4];
    const int of_counter = 4 - static_cast<int>(column & 3), of_row = width - x;
    const int taken = of_counter < of_row ? of_counter : of_row;
    done += taken;
    x += taken;
    if (x == width) x = 0, ++y;
  }
}

// The noise from channel c on, given or drawn.
template <class Args, class Pixels, class Index>
F2D_FN void pixel_noise(const Args& a, const Pixels& pixels, Index b, Index c,
                        float (&eps)[Pixels::kChannels][Pixels::kCount]) {
  const View& given = a.noise.given;
  if (given.data) return pixels.decode(pixels.fetch(given, place<Index>(given, b, 0, c)), given, eps);
  F2D_UNROLL
  for (int i = 0; i < Pixels::kChannels; ++i) draw_pixels(a.noise, a.shape, b, c + i, pixels.first, eps[i]);
}

// One counter's four elements, in any tensors: a quad starts at a multiple of 4 of the whole image, so the first and
// last of a row may lie partly outside the tile.
struct Quad {
  int64_t c, y, x;  // x of lane 0, counted in the tile: -3 at least

  F2D_MEMBER static int64_t per_row(const NoiseSource& s, const Shape& shape) {
    return (s.left % 4 + shape.width + 3) / 4;
  }
  F2D_MEMBER static int64_t per_sample(const NoiseSource& s, const Shape& shape) {
    return s.quads_per_row * shape.height * shape.channels;
  }
  // Quads that warps walk, which never straddle two samples.
  F2D_MEMBER static int64_t lanes(const NoiseSource& s, const Shape& shape) {
    return (per_sample(s, shape) + 31) / 32 * 32;
  }
  // Neighbouring threads take neighbouring memory: channels inside where they are.
  F2D_MEMBER static Quad at(const NoiseSource& s, const Shape& shape, bool channels_inside, int64_t index) {
    const int64_t columns = s.quads_per_row, C = shape.channels;
    int64_t c, column, y;
    if (channels_inside) {
      const int64_t group = quotient(index, C);
      c = index - group * C;
      y = quotient(group, columns);
      column = group - y * columns;
    } else {
      const int64_t row = quotient(index, columns);
      column = index - row * columns;
      c = quotient(row, shape.height);
      y = row - c * shape.height;
    }
    return {c, y, 4 * column - s.left % 4};
  }
  F2D_MEMBER void draw(const NoiseSource& s, int64_t b, float eps[4]) const {
    normal_quad(s.key(b), static_cast<uint32_t>((x + s.left) >> 2), static_cast<uint32_t>(y) + s.top,
                static_cast<uint32_t>(c), eps);
  }
};

// One element that a lane computes, and the noise drawn for it.
struct Spot {
  int64_t c, y, x;
  float drawn;

  F2D_MEMBER bool inside(const Shape& shape) const { return x >= 0 && x < shape.width; }
  F2D_MEMBER int64_t offset(const View& v, int64_t b) const { return b * v.b + c * v.c + y * v.h + x * v.w; }
  template <class A>
  F2D_MEMBER A noise(const NoiseSource& s, int64_t b) const {
    return s.given.data ? load_one<A>(s.given, offset(s.given, b)) : static_cast<A>(drawn);
  }
};

// Lanes keep the quads whose noise they drew; lane i of one of them.
struct OwnQuads {
  F2D_MEMBER Spot spot(const Quad& quad, bool there, const float eps[4], int i) const {
    return {quad.c, quad.y, there ? quad.x + i : -1, eps[i]};
  }
};

#if defined(__CUDACC__)
// The 32 lanes of a warp share out the 128 elements of their quads so that neighbours in a row, or pixels of few
// channels, go to neighbouring lanes: each access then touches every sector once. With its own quad in every lane, lanes
// are four elements apart, and an access touches four times as many sectors.
struct SharedQuads {
  bool sharing;

  __device__ __forceinline__ Spot spot(const Quad& quad, bool there, const float eps[4], int i) const {
    if (!sharing) return OwnQuads().spot(quad, there, eps, i);
    const int lane = threadIdx.x % 32, from = 8 * i + lane / 4, part = lane % 4;
    float drawn = 0.0f;
    F2D_UNROLL
    for (int j = 0; j < 4; ++j) {
      const float of_lane = __shfl_sync(0xffffffffu, eps[j], from);
      drawn = part == j ? of_lane : drawn;
    }
    const int c = __shfl_sync(0xffffffffu, static_cast<int>(quad.c), from);
    const int y = __shfl_sync(0xffffffffu, static_cast<int>(quad.y), from);
    const int x = __shfl_sync(0xffffffffu, there ? static_cast<int>(quad.x) : -4, from);
    return {c, y, x + part, drawn};
  }
};
#endif

}  // namespace f2d
