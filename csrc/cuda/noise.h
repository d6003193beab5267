// Where the noise of the CUDA kernels comes from, and the walk that drawing it asks for: four neighbours share a counter.
#pragma once

#include "../normal.h"
#include "views.h"

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

// The noise of eight pixels from `pixel` on, which lie in one row and start a counter (rows are multiples of 8 and the
// window of 4).
F2D_FN void draw_vector(const NoiseSource& s, const Shape& shape, int64_t b, int64_t c, int64_t pixel,
                        float eps[kVector]) {
  const int64_t y = quotient(pixel, shape.width), x = pixel - y * shape.width;
  const uint32_t quad = static_cast<uint32_t>((x + s.left) >> 2), row = static_cast<uint32_t>(y) + s.top;
  const NoiseKey key = s.key(b);
  normal_quad(key, quad, row, static_cast<uint32_t>(c), eps);
  normal_quad(key, quad + 1, row, static_cast<uint32_t>(c), eps + 4);
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
  F2D_MEMBER bool inside(const Shape& shape, int lane) const { return x + lane >= 0 && x + lane < shape.width; }
  F2D_MEMBER int64_t offset(const View& v, int64_t b, int lane) const {
    return b * v.b + c * v.c + y * v.h + (x + lane) * v.w;
  }
  // Of all four lanes where it is drawn, of those inside the tile where it is given.
  template <class A>
  F2D_MEMBER void noise(const NoiseSource& s, const Shape& shape, int64_t b, A eps[4]) const {
    float drawn[4] = {};
    if (!s.given.data)
      normal_quad(s.key(b), static_cast<uint32_t>((x + s.left) >> 2), static_cast<uint32_t>(y) + s.top,
                  static_cast<uint32_t>(c), drawn);
    F2D_UNROLL
    for (int lane = 0; lane < 4; ++lane)
      eps[lane] = s.given.data && inside(shape, lane) ? load_one<A>(s.given, offset(s.given, b, lane))
                                                      : static_cast<A>(drawn[lane]);
  }
};

}  // namespace f2d
