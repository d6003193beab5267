// What one thread does in the lognormal transition's CUDA kernels, for host and device.
#pragma once

#include "../lognormal_transition.h"
#include "../normal.h"
#include "views.h"

namespace f2d {

constexpr int kSteps = 4;        // vectors per lane of a warp's tile in the backward pass
constexpr int kQuadSteps = 8;    // quads per lane, likewise

struct LognormalArgs {
  Shape shape;
  int64_t tiles;          // warps per sample in the backward pass
  int64_t quads_per_row;  // counters that a row touches
  bool channels_inside, seed_per_sample;
  View x, mu, noise, image;       // image: out or grad
  View log_mean, log_std;         // only b
  View d_x, d_mu, d_noise;
  const int64_t* seeds;
  int64_t seed_stride;
  uint32_t stream, top, left;
  void *log_mean_parts, *log_std_parts;  // [b][tile]

  F2D_MEMBER NoiseKey key(int64_t b) const {
    const uint64_t seed = static_cast<uint64_t>(seeds[seed_per_sample ? b * seed_stride : 0]);
    return {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32),
            seed_per_sample ? 0u : static_cast<uint32_t>(b), stream};
  }
};

// Eight elements of sample b that lie together in every tensor, from `first` on (counted in the sample's memory order).
// With a seed they lie in one row and start a counter (rows and window are multiples of 8 and 4).
F2D_FN void vector_noise(const LognormalArgs& a, int64_t b, int64_t first, float eps[kVector]) {
  if (a.noise.data) return unpack(load_raw(a.noise, b * a.noise.b + first), a.noise.dtype, eps);
  const int64_t c = quotient(first, a.shape.pixels()), pixel = first - c * a.shape.pixels();
  const int64_t y = quotient(pixel, a.shape.width), x = pixel - y * a.shape.width;
  const uint32_t quad = static_cast<uint32_t>((x + a.left) >> 2), row = static_cast<uint32_t>(y) + a.top;
  const NoiseKey key = a.key(b);
  normal_quad(key, quad, row, static_cast<uint32_t>(c), eps);
  normal_quad(key, quad + 1, row, static_cast<uint32_t>(c), eps + 4);
}

F2D_FN void lognormal_forward_vector(const LognormalArgs& a, int64_t index) {
  const int64_t vectors = a.shape.channels * a.shape.pixels() / kVector;
  const int64_t b = quotient(index, vectors), first = (index - b * vectors) * kVector;
  const Raw raw_x = load_raw(a.x, b * a.x.b + first), raw_mu = load_raw(a.mu, b * a.mu.b + first);
  const float log_mean = load_one<float>(a.log_mean, b * a.log_mean.b);
  const float log_std = load_one<float>(a.log_std, b * a.log_std.b);
  float eps[kVector], x[kVector], mu[kVector];
  vector_noise(a, b, first, eps);
  unpack(raw_x, a.x.dtype, x);
  unpack(raw_mu, a.mu.dtype, mu);
  F2D_UNROLL
  for (int i = 0; i < kVector; ++i) x[i] = lognormal_step(x[i], mu[i], log_mean, log_std, eps[i]);
  store_vector(a.image, b * a.image.b + first, x);
}

// `reduce(value, parts, slot)` sums value over the warp and stores it.
template <class Reduce>
F2D_FN void lognormal_backward_vector(const LognormalArgs& a, int64_t warp, int lane, Reduce reduce) {
  const int64_t b = quotient(warp, a.tiles), tile = warp - b * a.tiles, size = a.shape.channels * a.shape.pixels();
  const float log_mean = load_one<float>(a.log_mean, b * a.log_mean.b);
  const float log_std = load_one<float>(a.log_std, b * a.log_std.b);
  float mean_sum = 0.0f, std_sum = 0.0f;
  for (int step = 0; step < kSteps; ++step) {
    const int64_t first = ((tile * kSteps + step) * 32 + lane) * kVector;
    if (first >= size) break;
    const Raw raw_x = load_raw(a.x, b * a.x.b + first), raw_mu = load_raw(a.mu, b * a.mu.b + first);
    const Raw raw_grad = load_raw(a.image, b * a.image.b + first);
    float eps[kVector], x[kVector], mu[kVector], grad[kVector];
    vector_noise(a, b, first, eps);
    unpack(raw_x, a.x.dtype, x);
    unpack(raw_mu, a.mu.dtype, mu);
    unpack(raw_grad, a.image.dtype, grad);
    F2D_UNROLL
    for (int i = 0; i < kVector; ++i) {
      const LognormalGradient<float> d = lognormal_gradient(grad[i], x[i], mu[i], log_mean, log_std, eps[i]);
      x[i] = d.x;
      mu[i] = d.mu;
      eps[i] = d.noise;
      mean_sum += d.log_mean;
      std_sum += d.log_std;
    }
    if (a.d_x.data) store_vector(a.d_x, b * a.d_x.b + first, x);
    if (a.d_mu.data) store_vector(a.d_mu, b * a.d_mu.b + first, mu);
    if (a.d_noise.data) store_vector(a.d_noise, b * a.d_noise.b + first, eps);
  }
  if (!a.log_mean_parts) return;
  reduce(mean_sum, a.log_mean_parts, warp);
  reduce(std_sum, a.log_std_parts, warp);
}

// One counter's four elements, in any tensors: a quad starts at a multiple of 4 of the whole image, so the first and
// last of a row may lie partly outside the tile.
struct Quad {
  int64_t c, y, x;  // x of lane 0, counted in the tile: -3 at least

  F2D_MEMBER static int64_t per_row(const LognormalArgs& a) { return (a.left % 4 + a.shape.width + 3) / 4; }
  F2D_MEMBER static int64_t per_sample(const LognormalArgs& a) {
    return a.quads_per_row * a.shape.height * a.shape.channels;
  }
  // Neighbouring threads take neighbouring memory: channels inside where they are.
  F2D_MEMBER static Quad at(const LognormalArgs& a, int64_t index) {
    const int64_t columns = a.quads_per_row, C = a.shape.channels;
    int64_t c, column, y;
    if (a.channels_inside) {
      const int64_t group = quotient(index, C);
      c = index - group * C;
      y = quotient(group, columns);
      column = group - y * columns;
    } else {
      const int64_t row = quotient(index, columns);
      column = index - row * columns;
      c = quotient(row, a.shape.height);
      y = row - c * a.shape.height;
    }
    return {c, y, 4 * column - a.left % 4};
  }
  F2D_MEMBER bool inside(const LognormalArgs& a, int lane) const { return x + lane >= 0 && x + lane < a.shape.width; }
  F2D_MEMBER int64_t offset(const View& v, int64_t b, int lane) const {
    return b * v.b + c * v.c + y * v.h + (x + lane) * v.w;
  }
  F2D_MEMBER void noise(const LognormalArgs& a, int64_t b, float eps[4]) const {
    normal_quad(a.key(b), static_cast<uint32_t>((x + a.left) >> 2), static_cast<uint32_t>(y) + a.top,
                static_cast<uint32_t>(c), eps);
  }
};

template <class A>
F2D_FN void lognormal_forward_quad(const LognormalArgs& a, int64_t index) {
  const int64_t quads = Quad::per_sample(a), b = quotient(index, quads);
  const Quad quad = Quad::at(a, index - b * quads);
  const A log_mean = load_one<A>(a.log_mean, b * a.log_mean.b), log_std = load_one<A>(a.log_std, b * a.log_std.b);
  float eps[4] = {};
  if (!a.noise.data) quad.noise(a, b, eps);
  F2D_UNROLL
  for (int lane = 0; lane < 4; ++lane) {
    if (!quad.inside(a, lane)) continue;
    const A noise = a.noise.data ? load_one<A>(a.noise, quad.offset(a.noise, b, lane)) : static_cast<A>(eps[lane]);
    const A x = load_one<A>(a.x, quad.offset(a.x, b, lane)), mu = load_one<A>(a.mu, quad.offset(a.mu, b, lane));
    store_one(a.image, quad.offset(a.image, b, lane), lognormal_step(x, mu, log_mean, log_std, noise));
  }
}

template <class A, class Reduce>
F2D_FN void lognormal_backward_quad(const LognormalArgs& a, int64_t warp, int lane_of_warp, Reduce reduce) {
  const int64_t quads = Quad::per_sample(a), b = quotient(warp, a.tiles), tile = warp - b * a.tiles;
  const A log_mean = load_one<A>(a.log_mean, b * a.log_mean.b), log_std = load_one<A>(a.log_std, b * a.log_std.b);
  A mean_sum = A(0), std_sum = A(0);
  for (int step = 0; step < kQuadSteps; ++step) {
    const int64_t index = (tile * kQuadSteps + step) * 32 + lane_of_warp;
    if (index >= quads) break;
    const Quad quad = Quad::at(a, index);
    float eps[4] = {};
    if (!a.noise.data) quad.noise(a, b, eps);
    F2D_UNROLL
    for (int lane = 0; lane < 4; ++lane) {
      if (!quad.inside(a, lane)) continue;
      const A noise = a.noise.data ? load_one<A>(a.noise, quad.offset(a.noise, b, lane)) : static_cast<A>(eps[lane]);
      const LognormalGradient<A> d = lognormal_gradient(
          load_one<A>(a.image, quad.offset(a.image, b, lane)), load_one<A>(a.x, quad.offset(a.x, b, lane)),
          load_one<A>(a.mu, quad.offset(a.mu, b, lane)), log_mean, log_std, noise);
      if (a.d_x.data) store_one(a.d_x, quad.offset(a.d_x, b, lane), d.x);
      if (a.d_mu.data) store_one(a.d_mu, quad.offset(a.d_mu, b, lane), d.mu);
      if (a.d_noise.data) store_one(a.d_noise, quad.offset(a.d_noise, b, lane), d.noise);
      mean_sum += d.log_mean;
      std_sum += d.log_std;
    }
  }
  if (!a.log_mean_parts) return;
  reduce(mean_sum, a.log_mean_parts, warp);
  reduce(std_sum, a.log_std_parts, warp);
}

}  // namespace f2d
