// The work of one thread in the transport step's CUDA kernels, for host and device.
#pragma once

#include "../transport_step.h"
#include "expert_assembly_body.h"
#include "noise.h"

namespace f2d {

constexpr int kTransportSteps = 4;  // tiles or quads that a warp takes in the other backward passes, at most

struct TransportArgs : Experts, ExpertGradients<kGroup> {
  bool channels_inside;     // of x_next; backward: of x
  bool needs_total;         // backward: whether anything looks at the sum under the clamp; if not, its parts are absent
  bool anchored;            // whether the step starts at an anchor, so that d_x does not hold d_mu
  DType assembled, target;  // dtypes of the assembly and of mu
  double low, high;         // rounded to `target`
  NoiseSource noise;
  View x, anchor;           // anchor.data null: x
  View log_mean, log_std;   // only b
  View x_next, mu;          // forward
  View grad_x, grad_mu;     // backward, data null where no gradient arrives
  View d_x, d_mu, d_noise;  // backward, data null where not wanted; d_mu: the gradient under the clamp
  View v;                   // the same, not rounded, where another kernel makes the experts' gradients from it
  int64_t warps, steps;     // in the backward passes that make no experts' gradients: per sample; tiles or quads that one takes
  void *log_mean_parts, *log_std_parts;  // [b][warp]
};

// The sum before the clamp, from the sum of the experts.
template <class Pixels>
F2D_FN void total_of(const TransportArgs& a, const float (&anchor)[Pixels::kChannels][Pixels::kCount],
                     float (&sum)[Pixels::kChannels][Pixels::kCount]) {
  const DType assembled = Pixels::Access::known(a.assembled), target = Pixels::Access::known(a.target);
  F2D_UNROLL
  for (int i = 0; i < Pixels::kChannels; ++i) {
    F2D_UNROLL
    for (int p = 0; p < Pixels::kCount; ++p) sum[i][p] = as_stored(anchor[i][p] + as_stored(sum[i][p], assembled), target);
  }
}

// Forward, pixels that lie together.
template <class Pixels>
F2D_FN void transport_forward_pixels(const TransportArgs& a, typename Pixels::Index warp, int lane) {
  using Index = typename Pixels::Index;
  const Index units = Part<Index>::units(a), b = quotient(warp, units);
  const Part<Index> part(a, b, warp - b * units);
  const Pixels pixels(a.shape, part.tile, lane);
  const float log_mean = load_one<float>(a.log_mean, b * a.log_mean.b);
  const float log_std = load_one<float>(a.log_std, b * a.log_std.b);
  const float low = static_cast<float>(a.low), high = static_cast<float>(a.high);
  const Weights<Pixels> weights(a, pixels, b, 0, static_cast<Index>(a.experts));
  for (Index c = part.c; c < part.end; c += Pixels::kChannels) {
    const auto at = [&](const View& v) { return place<Index>(v, b, 0, c); };
    const auto raw_x = pixels.fetch(a.x, at(a.x));
    const auto raw_anchor = a.anchor.data ? pixels.fetch(a.anchor, at(a.anchor)) : raw_x;
    float mu[Pixels::kChannels][Pixels::kCount], x[Pixels::kChannels][Pixels::kCount];
    float eps[Pixels::kChannels][Pixels::kCount];
    assemble(a, pixels, b, c, weights, mu);
    pixels.decode(raw_anchor, a.anchor.data ? a.anchor : a.x, x);
    total_of<Pixels>(a, x, mu);
    pixels.decode(raw_x, a.x, x);
    pixel_noise(a, pixels, b, c, eps);
    F2D_UNROLL
    for (int i = 0; i < Pixels::kChannels; ++i) {
      F2D_UNROLL
      for (int p = 0; p < Pixels::kCount; ++p) {
        mu[i][p] = transport_clamp(mu[i][p], low, high);
        x[i][p] = lognormal_step(x[i][p], mu[i][p], log_mean, log_std, eps[i][p]);
      }
    }
    pixels.write(a.mu, at(a.mu), mu);
    pixels.write(a.x_next, at(a.x_next), x);
  }
}

// Forward, any strides and dtypes: one counter's four elements per thread.
template <class A, class Spots>
F2D_FN void transport_forward_quad(const TransportArgs& a, int64_t index, const Spots& spots) {
  const int64_t quads = Quad::per_sample(a.noise, a.shape), lanes = Quad::lanes(a.noise, a.shape);
  const int64_t b = quotient(index, lanes), place = index - b * lanes;
  const bool there = place < quads;
  const Quad quad = Quad::at(a.noise, a.shape, a.channels_inside, there ? place : 0);
  const A log_mean = load_one<A>(a.log_mean, b * a.log_mean.b), log_std = load_one<A>(a.log_std, b * a.log_std.b);
  const View& start = a.anchor.data ? a.anchor : a.x;
  float eps[4] = {};
  if (!a.noise.given.data) quad.draw(a.noise, b, eps);
  F2D_UNROLL
  for (int i = 0; i < 4; ++i) {
    const Spot at = spots.spot(quad, there, eps, i);
    if (!at.inside(a.shape)) continue;
    const A sum = as_stored(assemble_element<A>(a, b, at.c, at.y, at.x), a.assembled);
    const A total = as_stored(load_one<A>(start, at.offset(start, b)) + sum, a.target);
    const A mu = transport_clamp(total, static_cast<A>(a.low), static_cast<A>(a.high));
    store_one(a.mu, at.offset(a.mu, b), mu);
    const A x = load_one<A>(a.x, at.offset(a.x, b));
    store_one(a.x_next, at.offset(a.x_next, b), lognormal_step(x, mu, log_mean, log_std, at.noise<A>(a.noise, b)));
  }
}

// The sums of log_mean and log_std of what one lane does.
template <class A>
struct ExponentSums {
  A mean, std;
};

// All gradients but those of the experts. In: what the experts add up to; out: v.
template <class Pixels>
F2D_FN void transport_gradients(const TransportArgs& a, const Pixels& pixels, typename Pixels::Index b,
                                typename Pixels::Index c, float (&v)[Pixels::kChannels][Pixels::kCount],
                                ExponentSums<float>& sums) {
  using Index = typename Pixels::Index;
  const auto at = [&](const View& view) { return place<Index>(view, b, 0, c); };
  const auto fetch = [&](const View& view) {
    return view.data ? pixels.fetch(view, at(view)) : typename Pixels::Fetched{};
  };
  const auto raw_x = fetch(a.x), raw_anchor = a.anchor.data ? fetch(a.anchor) : raw_x;
  const auto raw_grad_x = fetch(a.grad_x), raw_grad_mu = fetch(a.grad_mu);
  const float log_mean = load_one<float>(a.log_mean, b * a.log_mean.b);
  const float log_std = load_one<float>(a.log_std, b * a.log_std.b);
  const float low = static_cast<float>(a.low), high = static_cast<float>(a.high);
  float x[Pixels::kChannels][Pixels::kCount], eps[Pixels::kChannels][Pixels::kCount] = {};
  float grad_x[Pixels::kChannels][Pixels::kCount], grad_mu[Pixels::kChannels][Pixels::kCount];
  pixels.decode(raw_anchor, a.anchor.data ? a.anchor : a.x, x);
  total_of<Pixels>(a, x, v);
  pixels.decode(raw_x, a.x, x);
  pixels.decode(raw_grad_x, a.grad_x, grad_x);
  pixels.decode(raw_grad_mu, a.grad_mu, grad_mu);
  if (a.grad_x.data) pixel_noise(a, pixels, b, c, eps);
  F2D_UNROLL
  for (int i = 0; i < Pixels::kChannels; ++i) {
    F2D_UNROLL
    for (int p = 0; p < Pixels::kCount; ++p) {
      const LognormalGradient<float> d = transport_gradient(grad_x[i][p], grad_mu[i][p], x[i][p], v[i][p], low, high,
                                                            log_mean, log_std, eps[i][p]);
      v[i][p] = d.mu;
      x[i][p] = a.anchored ? d.x : d.x + d.mu;
      eps[i][p] = d.noise;
      sums.mean += d.log_mean;
      sums.std += d.log_std;
    }
  }
  if (a.d_x.data) pixels.write(a.d_x, at(a.d_x), x);
  if (a.d_mu.data) pixels.write(a.d_mu, at(a.d_mu), v);
  if (a.d_noise.data) pixels.write(a.d_noise, at(a.d_noise), eps);
  if (a.v.data) pixels.write(a.v, at(a.v), v);
}

// `reduce(value, parts, slot)` sums value over the warp and stores it.
template <class A, class Reduce>
F2D_FN void reduce_exponent(const TransportArgs& a, const ExponentSums<A>& sums, int64_t slot, Reduce reduce) {
  if (!a.log_mean_parts) return;
  reduce(sums.mean, a.log_mean_parts, slot);
  reduce(sums.std, a.log_std_parts, slot);
}

// Backward without the experts' gradients, pixels that lie together.
template <class Pixels, class Reduce>
F2D_FN void transport_backward_pixels(const TransportArgs& a, typename Pixels::Index warp, int lane, Reduce reduce) {
  using Index = typename Pixels::Index;
  const Index b = quotient(warp, static_cast<Index>(a.warps)), first = warp - b * static_cast<Index>(a.warps);
  const Index steps = static_cast<Index>(a.steps), units = Part<Index>::units(a);
  ExponentSums<float> sums{};
  for (Index unit = first * steps; unit < (first + 1) * steps && unit < units; ++unit) {
    const Part<Index> part(a, b, unit);
    const Pixels pixels(a.shape, part.tile, lane);
    for (Index c = part.c; c < part.end; c += Pixels::kChannels) {
      float v[Pixels::kChannels][Pixels::kCount] = {};
      if (a.needs_total) assemble(a, pixels, b, c, Weights<Pixels>(a, pixels, b, 0, static_cast<Index>(a.experts)), v);
      transport_gradients(a, pixels, b, c, v, sums);
    }
  }
  reduce_exponent(a, sums, warp, reduce);
}

// Backward without the experts' gradients, any strides and dtypes.
template <class A, class Spots, class Reduce>
F2D_FN void transport_backward_quad(const TransportArgs& a, int64_t warp, int lane, const Spots& spots, Reduce reduce) {
  const int64_t quads = Quad::per_sample(a.noise, a.shape), b = quotient(warp, a.warps), tile = warp - b * a.warps;
  const A log_mean = load_one<A>(a.log_mean, b * a.log_mean.b), log_std = load_one<A>(a.log_std, b * a.log_std.b);
  const View& start = a.anchor.data ? a.anchor : a.x;
  ExponentSums<A> sums{};
  for (int64_t step = 0; step < a.steps; ++step) {
    const int64_t first = (tile * a.steps + step) * kWarp;
    if (first >= quads) break;
    const bool there = first + lane < quads;
    const Quad quad = Quad::at(a.noise, a.shape, a.channels_inside, there ? first + lane : 0);
    float eps[4] = {};
    if (a.grad_x.data && !a.noise.given.data) quad.draw(a.noise, b, eps);
    F2D_UNROLL
    for (int i = 0; i < 4; ++i) {
      const Spot at = spots.spot(quad, there, eps, i);
      if (!at.inside(a.shape)) continue;
      const auto fetch = [&](const View& v) { return v.data ? load_one<A>(v, at.offset(v, b)) : A(0); };
      A total = A(0);
      if (a.needs_total) {
        const A sum = as_stored(assemble_element<A>(a, b, at.c, at.y, at.x), a.assembled);
        total = as_stored(fetch(start) + sum, a.target);
      }
      const A noise = a.grad_x.data ? at.noise<A>(a.noise, b) : A(0);
      const LognormalGradient<A> d =
          transport_gradient(fetch(a.grad_x), fetch(a.grad_mu), fetch(a.x), total, static_cast<A>(a.low),
                             static_cast<A>(a.high), log_mean, log_std, noise);
      if (a.d_x.data) store_one(a.d_x, at.offset(a.d_x, b), a.anchored ? d.x : d.x + d.mu);
      if (a.d_mu.data) store_one(a.d_mu, at.offset(a.d_mu, b), d.mu);
      if (a.v.data) store_one(a.v, at.offset(a.v, b), d.mu);
      if (a.d_noise.data) store_one(a.d_noise, at.offset(a.d_noise, b), d.noise);
      sums.mean += d.log_mean;
      sums.std += d.log_std;
    }
  }
  reduce_exponent(a, sums, warp, reduce);
}

// v as the gradient that the assembly's backward pass asks for, from the deltas and maps it has loaded.
template <class Pixels>
struct ThroughTransport {
  static constexpr bool kReadsDeltas = true;
  static constexpr int kCount = Pixels::kCount, kChannels = Pixels::kChannels;
  using Index = typename Pixels::Index;
  const TransportArgs& a;
  Index b;
  ExponentSums<float> sums;

  F2D_MEMBER void operator()(const Pixels& pixels, Index c, const typename Pixels::Fetched (&deltas)[kGroup],
                             const float (&maps)[kGroup][kCount], const float (&gates)[kGroup][kChannels],
                             float (&v)[kChannels][kCount]) {
    F2D_UNROLL
    for (int i = 0; i < kChannels; ++i) {
      F2D_UNROLL
      for (int p = 0; p < kCount; ++p) v[i][p] = 0.0f;
    }
    if (a.base.data) pixels.decode(pixels.fetch(a.base, place<Index>(a.base, b, 0, c)), a.base, v);
    F2D_UNROLL
    for (int k = 0; k < kGroup; ++k) {
      if (k >= a.experts) continue;
      float delta[kChannels][kCount];
      pixels.decode(deltas[k], a.delta(k), delta);
      F2D_UNROLL
      for (int i = 0; i < kChannels; ++i) {
        F2D_UNROLL
        for (int p = 0; p < kCount; ++p)
          v[i][p] = assembly_add(v[i][p], assembly_weight(gates[k][i], maps[k][p]), delta[i][p]);
      }
    }
    transport_gradients(a, pixels, b, c, v, sums);
  }
};

// Backward with the gradients of one group of experts, pixels that lie together: one pass over everything. `reduce` as above.
template <class Pixels, class Reduce>
F2D_FN void transport_backward_experts(const TransportArgs& a, typename Pixels::Index warp, int lane, Reduce reduce) {
  using Index = typename Pixels::Index;
  const Index b = quotient(warp, static_cast<Index>(a.tiles)), tile = warp - b * static_cast<Index>(a.tiles);
  const Pixels pixels(a.shape, tile, lane);
  ThroughTransport<Pixels> v{a, b, {}};
  assembly_backward_experts(a, b, tile, pixels, Index(0), static_cast<Index>(a.experts), v,
                            [&](float value, int64_t slot) { reduce(value, a.gate_parts, slot); });
  reduce_exponent(a, v.sums, warp, reduce);
}

}  // namespace f2d
