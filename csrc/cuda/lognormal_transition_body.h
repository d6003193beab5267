// What one thread does in the lognormal transition's CUDA kernels, for host and device.
#pragma once

#include "../lognormal_transition.h"
#include "noise.h"

namespace f2d {

constexpr int kSteps = 8;  // vectors or quads per lane of a warp's tile in the backward pass, at most

struct LognormalArgs {
  Shape shape;
  int64_t tiles, steps;  // in the backward pass: warps per sample; vectors or quads per lane
  bool channels_inside;
  NoiseSource noise;
  View x, mu, image;       // image: out or grad; backward: x and mu absent where no gradient looks at them
  View log_mean, log_std;  // only b
  View d_x, d_mu, d_noise;
  void *log_mean_parts, *log_std_parts;  // [b][tile]
};

// Four elements of sample b that lie together in every tensor, from `first` on (counted in the sample's memory order).
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
  for (int64_t step = 0; step < a.steps; ++step) {
    const int64_t first = ((tile * a.steps + step) * 32 + lane) * kVector;
    if (first >= size) break;
    const Raw raw_x = a.x.data ? load_raw(a.x, b * a.x.b + first) : Raw{};
    const Raw raw_mu = a.mu.data ? load_raw(a.mu, b * a.mu.b + first) : Raw{};
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

template <class A, class Spots>
F2D_FN void lognormal_forward_quad(const LognormalArgs& a, int64_t index, const Spots& spots) {
  const int64_t quads = Quad::per_sample(a.noise, a.shape), lanes = Quad::lanes(a.noise, a.shape);
  const int64_t b = quotient(index, lanes), place = index - b * lanes;
  const bool there = place < quads;
  const Quad quad = Quad::at(a.noise, a.shape, a.channels_inside, there ? place : 0);
  const A log_mean = load_one<A>(a.log_mean, b * a.log_mean.b), log_std = load_one<A>(a.log_std, b * a.log_std.b);
  float eps[4] = {};
  if (!a.noise.given.data) quad.draw(a.noise, b, eps);
  F2D_UNROLL
  for (int i = 0; i < 4; ++i) {
    const Spot at = spots.spot(quad, there, eps, i);
    if (!at.inside(a.shape)) continue;
    const A x = load_one<A>(a.x, at.offset(a.x, b)), mu = load_one<A>(a.mu, at.offset(a.mu, b));
    store_one(a.image, at.offset(a.image, b), lognormal_step(x, mu, log_mean, log_std, at.noise<A>(a.noise, b)));
  }
}

template <class A, class Spots, class Reduce>
F2D_FN void lognormal_backward_quad(const LognormalArgs& a, int64_t warp, int lane, const Spots& spots, Reduce reduce) {
  const int64_t quads = Quad::per_sample(a.noise, a.shape), b = quotient(warp, a.tiles), tile = warp - b * a.tiles;
  const A log_mean = load_one<A>(a.log_mean, b * a.log_mean.b), log_std = load_one<A>(a.log_std, b * a.log_std.b);
  A mean_sum = A(0), std_sum = A(0);
  for (int64_t step = 0; step < a.steps; ++step) {
    const int64_t first = (tile * a.steps + step) * 32;
    if (first >= quads) break;
    const bool there = first + lane < quads;
    const Quad quad = Quad::at(a.noise, a.shape, a.channels_inside, there ? first + lane : 0);
    float eps[4] = {};
    if (!a.noise.given.data) quad.draw(a.noise, b, eps);
    F2D_UNROLL
    for (int i = 0; i < 4; ++i) {
      const Spot at = spots.spot(quad, there, eps, i);
      if (!at.inside(a.shape)) continue;
      const auto fetch = [&](const View& v) { return v.data ? load_one<A>(v, at.offset(v, b)) : A(0); };
      const LognormalGradient<A> d = lognormal_gradient(fetch(a.image), fetch(a.x), fetch(a.mu), log_mean, log_std,
                                                        at.noise<A>(a.noise, b));
      if (a.d_x.data) store_one(a.d_x, at.offset(a.d_x, b), d.x);
      if (a.d_mu.data) store_one(a.d_mu, at.offset(a.d_mu, b), d.mu);
      if (a.d_noise.data) store_one(a.d_noise, at.offset(a.d_noise, b), d.noise);
      mean_sum += d.log_mean;
      std_sum += d.log_std;
    }
  }
  if (!a.log_mean_parts) return;
  reduce(mean_sum, a.log_mean_parts, warp);
  reduce(std_sum, a.log_std_parts, warp);
}

}  // namespace f2d
