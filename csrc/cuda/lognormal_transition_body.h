// The work of one thread in the lognormal transition's CUDA kernels, for host and device.
#pragma once

#include "../lognormal_transition.h"
#include "noise.h"

namespace f2d {

constexpr int kSteps = 8;  // tiles or quads that a warp takes, at most

struct LognormalArgs {
  Shape shape;
  int64_t tiles;         // of a plane or, with channels inside, of a sample: a warp's pixels each
  int64_t warps, steps;  // per sample; tiles or quads that a warp takes (in the forward pass not of quads)
  bool channels_inside;
  NoiseSource noise;
  View x, mu, image;       // image: out or grad; backward: x and mu absent where no gradient looks at them
  View log_mean, log_std;  // only b
  View d_x, d_mu, d_noise;
  void *log_mean_parts, *log_std_parts;  // [b][warp]
};

// Tiles of all channels of a sample.
template <class Pixels>
F2D_FN typename Pixels::Index units_of(const LognormalArgs& a) {
  return static_cast<typename Pixels::Index>(a.tiles * (Pixels::kChannels == 1 ? a.shape.channels : 1));
}

template <class Pixels>
F2D_FN void lognormal_forward_pixels(const LognormalArgs& a, typename Pixels::Index warp, int lane) {
  using Index = typename Pixels::Index;
  const Index b = quotient(warp, static_cast<Index>(a.warps)), first = warp - b * static_cast<Index>(a.warps);
  const float log_mean = load_one<float>(a.log_mean, b * a.log_mean.b);
  const float log_std = load_one<float>(a.log_std, b * a.log_std.b);
  const Index steps = static_cast<Index>(a.steps), tiles = static_cast<Index>(a.tiles), units = units_of<Pixels>(a);
  for (Index unit = first * steps; unit < (first + 1) * steps && unit < units; ++unit) {
    const Index c = quotient(unit, tiles);
    const Pixels pixels(a.shape, unit - c * tiles, lane);
    const auto fetch = [&](const View& v) { return pixels.fetch(v, place<Index>(v, b, 0, c)); };
    const auto raw_x = fetch(a.x), raw_mu = fetch(a.mu);
    float eps[Pixels::kChannels][Pixels::kCount], x[Pixels::kChannels][Pixels::kCount];
    float mu[Pixels::kChannels][Pixels::kCount];
    pixel_noise(a, pixels, b, c, eps);
    pixels.decode(raw_x, a.x, x);
    pixels.decode(raw_mu, a.mu, mu);
    F2D_UNROLL
    for (int i = 0; i < Pixels::kChannels; ++i) {
      F2D_UNROLL
      for (int p = 0; p < Pixels::kCount; ++p) x[i][p] = lognormal_step(x[i][p], mu[i][p], log_mean, log_std, eps[i][p]);
    }
    pixels.write(a.image, place<Index>(a.image, b, 0, c), x);
  }
}

// `reduce(value, parts, slot)` sums value over the warp and stores it.
template <class Pixels, class Reduce>
F2D_FN void lognormal_backward_pixels(const LognormalArgs& a, typename Pixels::Index warp, int lane, Reduce reduce) {
  using Index = typename Pixels::Index;
  const Index b = quotient(warp, static_cast<Index>(a.warps)), first = warp - b * static_cast<Index>(a.warps);
  const float log_mean = load_one<float>(a.log_mean, b * a.log_mean.b);
  const float log_std = load_one<float>(a.log_std, b * a.log_std.b);
  const Index steps = static_cast<Index>(a.steps), tiles = static_cast<Index>(a.tiles), units = units_of<Pixels>(a);
  float mean_sum = 0.0f, std_sum = 0.0f;
  for (Index unit = first * steps; unit < (first + 1) * steps && unit < units; ++unit) {
    const Index c = quotient(unit, tiles);
    const Pixels pixels(a.shape, unit - c * tiles, lane);
    const auto at = [&](const View& v) { return place<Index>(v, b, 0, c); };
    const auto fetch = [&](const View& v) { return v.data ? pixels.fetch(v, at(v)) : typename Pixels::Fetched{}; };
    const auto raw_x = fetch(a.x), raw_mu = fetch(a.mu), raw_grad = fetch(a.image);
    float eps[Pixels::kChannels][Pixels::kCount], x[Pixels::kChannels][Pixels::kCount];
    float mu[Pixels::kChannels][Pixels::kCount], grad[Pixels::kChannels][Pixels::kCount];
    pixel_noise(a, pixels, b, c, eps);
    pixels.decode(raw_x, a.x, x);
    pixels.decode(raw_mu, a.mu, mu);
    pixels.decode(raw_grad, a.image, grad);
    F2D_UNROLL
    for (int i = 0; i < Pixels::kChannels; ++i) {
      F2D_UNROLL
      for (int p = 0; p < Pixels::kCount; ++p) {
        const LognormalGradient<float> d =
            lognormal_gradient(grad[i][p], x[i][p], mu[i][p], log_mean, log_std, eps[i][p]);
        x[i][p] = d.x;
        mu[i][p] = d.mu;
        eps[i][p] = d.noise;
        mean_sum += d.log_mean;
        std_sum += d.log_std;
      }
    }
    if (a.d_x.data) pixels.write(a.d_x, at(a.d_x), x);
    if (a.d_mu.data) pixels.write(a.d_mu, at(a.d_mu), mu);
    if (a.d_noise.data) pixels.write(a.d_noise, at(a.d_noise), eps);
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
  const int64_t quads = Quad::per_sample(a.noise, a.shape), b = quotient(warp, a.warps), tile = warp - b * a.warps;
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
