// What one thread does in the lognormal transition's CUDA kernels, for host and device.
#pragma once

#include "../lognormal_transition.h"
#include "noise.h"

namespace f2d {

constexpr int kSteps = 4;        // vectors per lane of a warp's tile in the backward pass
constexpr int kQuadSteps = 8;    // quads per lane, likewise

struct LognormalArgs {
  Shape shape;
  int64_t tiles;  // warps per sample in the backward pass
  bool channels_inside;
  NoiseSource noise;
  View x, mu, image;       // image: out or grad
  View log_mean, log_std;  // only b
  View d_x, d_mu, d_noise;
  void *log_mean_parts, *log_std_parts;  // [b][tile]
};

// Eight elements of sample b that lie together in every tensor, from `first` on (counted in the sample's memory order).
F2D_FN void vector_noise(const LognormalArgs& a, int64_t b, int64_t first, float eps[kVector]) {
  const View& given = a.noise.given;
  if (given.data) return unpack(load_raw(given, b * given.b + first), given.dtype, eps);
  const int64_t c = quotient(first, a.shape.pixels());
  draw_vector(a.noise, a.shape, b, c, first - c * a.shape.pixels(), eps);
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

template <class A>
F2D_FN void lognormal_forward_quad(const LognormalArgs& a, int64_t index) {
  const int64_t quads = Quad::per_sample(a.noise, a.shape), b = quotient(index, quads);
  const Quad quad = Quad::at(a.noise, a.shape, a.channels_inside, index - b * quads);
  const A log_mean = load_one<A>(a.log_mean, b * a.log_mean.b), log_std = load_one<A>(a.log_std, b * a.log_std.b);
  A eps[4];
  quad.noise(a.noise, a.shape, b, eps);
  F2D_UNROLL
  for (int lane = 0; lane < 4; ++lane) {
    if (!quad.inside(a.shape, lane)) continue;
    const A x = load_one<A>(a.x, quad.offset(a.x, b, lane)), mu = load_one<A>(a.mu, quad.offset(a.mu, b, lane));
    store_one(a.image, quad.offset(a.image, b, lane), lognormal_step(x, mu, log_mean, log_std, eps[lane]));
  }
}

template <class A, class Reduce>
F2D_FN void lognormal_backward_quad(const LognormalArgs& a, int64_t warp, int lane_of_warp, Reduce reduce) {
  const int64_t quads = Quad::per_sample(a.noise, a.shape), b = quotient(warp, a.tiles), tile = warp - b * a.tiles;
  const A log_mean = load_one<A>(a.log_mean, b * a.log_mean.b), log_std = load_one<A>(a.log_std, b * a.log_std.b);
  A mean_sum = A(0), std_sum = A(0);
  for (int step = 0; step < kQuadSteps; ++step) {
    const int64_t index = (tile * kQuadSteps + step) * 32 + lane_of_warp;
    if (index >= quads) break;
    const Quad quad = Quad::at(a.noise, a.shape, a.channels_inside, index);
    A eps[4];
    quad.noise(a.noise, a.shape, b, eps);
    F2D_UNROLL
    for (int lane = 0; lane < 4; ++lane) {
      if (!quad.inside(a.shape, lane)) continue;
      const LognormalGradient<A> d = lognormal_gradient(
          load_one<A>(a.image, quad.offset(a.image, b, lane)), load_one<A>(a.x, quad.offset(a.x, b, lane)),
          load_one<A>(a.mu, quad.offset(a.mu, b, lane)), log_mean, log_std, eps[lane]);
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
