// What one thread does in the transport step's CUDA kernels, for host and device.
#pragma once

#include "../transport_step.h"
#include "expert_assembly_body.h"
#include "noise.h"

namespace f2d {

constexpr int kFused = 4;           // experts whose gradients one pass makes: more leave no registers
constexpr int kTransportSteps = 4;  // vectors or quads per lane of a warp's tile in the other backward passes, at most

struct TransportArgs : Experts, ExpertGradients<kFused> {
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
  int64_t warps, steps;     // in the backward passes that make no experts' gradients: per sample; per lane
  void *log_mean_parts, *log_std_parts;  // [b][warp]
};

F2D_FN void as_stored_vector(float value[kVector], DType dtype) {
  if (dtype == DType::f32) return;
  F2D_UNROLL
  for (int i = 0; i < kVector; ++i) value[i] = as_stored(value[i], dtype);
}

// What lies under the clamp, from what the experts add up to.
F2D_FN void total_vector(const TransportArgs& a, const float anchor[kVector], float sum[kVector]) {
  as_stored_vector(sum, a.assembled);
  F2D_UNROLL
  for (int i = 0; i < kVector; ++i) sum[i] = anchor[i] + sum[i];
  as_stored_vector(sum, a.target);
}

F2D_FN int64_t plane_offset(const View& v, int64_t b, int64_t c, int64_t pixel) { return b * v.b + c * v.c + pixel; }

F2D_FN void plane_noise(const TransportArgs& a, int64_t b, int64_t c, int64_t pixel, float eps[kVector]) {
  const View& given = a.noise.given;
  if (given.data) return unpack(load_raw(given, plane_offset(given, b, c, pixel)), given.dtype, eps);
  draw_vector(a.noise, a.shape, b, c, pixel, eps);
}

// Forward, planes dense and aligned: four pixels of a run of planes.
F2D_FN void transport_forward_vector(const TransportArgs& a, int64_t index) {
  const PlaneVector at(a, index);
  const float log_mean = load_one<float>(a.log_mean, at.b * a.log_mean.b);
  const float log_std = load_one<float>(a.log_std, at.b * a.log_std.b);
  const float low = static_cast<float>(a.low), high = static_cast<float>(a.high);
  Raw maps[kGroup];
  load_maps<kGroup>(a, at.b, at.pixel, 0, maps);
  for (int64_t c = at.c; c < at.end; ++c) {
    const auto offset = [&](const View& v) { return plane_offset(v, at.b, c, at.pixel); };
    const Raw raw_x = load_raw(a.x, offset(a.x));
    const Raw raw_anchor = a.anchor.data ? load_raw(a.anchor, offset(a.anchor)) : raw_x;
    float mu[kVector], x[kVector], eps[kVector];
    assemble_vector(a, at.b, c, at.pixel, maps, mu);
    unpack(raw_anchor, a.anchor.data ? a.anchor.dtype : a.x.dtype, x);
    total_vector(a, x, mu);
    F2D_UNROLL
    for (int i = 0; i < kVector; ++i) mu[i] = transport_clamp(mu[i], low, high);
    store_vector(a.mu, offset(a.mu), mu);
    unpack(raw_x, a.x.dtype, x);
    plane_noise(a, at.b, c, at.pixel, eps);
    F2D_UNROLL
    for (int i = 0; i < kVector; ++i) x[i] = lognormal_step(x[i], mu[i], log_mean, log_std, eps[i]);
    store_vector(a.x_next, offset(a.x_next), x);
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

// All gradients of four pixels but those of the experts. In: what the experts add up to; out: v.
F2D_FN void transport_gradient_vector(const TransportArgs& a, int64_t b, int64_t c, int64_t pixel, float v[kVector],
                                      ExponentSums<float>& sums) {
  const auto fetch = [&](const View& view) {
    return view.data ? load_raw(view, plane_offset(view, b, c, pixel)) : Raw{};
  };
  const Raw raw_x = fetch(a.x), raw_anchor = a.anchor.data ? fetch(a.anchor) : raw_x;
  const Raw raw_grad_x = fetch(a.grad_x), raw_grad_mu = fetch(a.grad_mu);
  const float log_mean = load_one<float>(a.log_mean, b * a.log_mean.b);
  const float log_std = load_one<float>(a.log_std, b * a.log_std.b);
  const float low = static_cast<float>(a.low), high = static_cast<float>(a.high);
  float x[kVector], eps[kVector] = {}, grad_x[kVector], grad_mu[kVector];
  unpack(raw_anchor, a.anchor.data ? a.anchor.dtype : a.x.dtype, x);
  total_vector(a, x, v);
  unpack(raw_x, a.x.dtype, x);
  unpack(raw_grad_x, a.grad_x.dtype, grad_x);
  unpack(raw_grad_mu, a.grad_mu.dtype, grad_mu);
  if (a.grad_x.data) plane_noise(a, b, c, pixel, eps);
  F2D_UNROLL
  for (int i = 0; i < kVector; ++i) {
    const LognormalGradient<float> d =
        transport_gradient(grad_x[i], grad_mu[i], x[i], v[i], low, high, log_mean, log_std, eps[i]);
    v[i] = d.mu;
    x[i] = a.anchored ? d.x : d.x + d.mu;
    eps[i] = d.noise;
    sums.mean += d.log_mean;
    sums.std += d.log_std;
  }
  if (a.d_x.data) store_vector(a.d_x, plane_offset(a.d_x, b, c, pixel), x);
  if (a.d_mu.data) store_vector(a.d_mu, plane_offset(a.d_mu, b, c, pixel), v);
  if (a.v.data) store_vector(a.v, plane_offset(a.v, b, c, pixel), v);
  if (a.d_noise.data) store_vector(a.d_noise, plane_offset(a.d_noise, b, c, pixel), eps);
}

// `reduce(value, parts, slot)` sums value over the warp and stores it.
template <class A, class Reduce>
F2D_FN void reduce_exponent(const TransportArgs& a, const ExponentSums<A>& sums, int64_t slot, Reduce reduce) {
  if (!a.log_mean_parts) return;
  reduce(sums.mean, a.log_mean_parts, slot);
  reduce(sums.std, a.log_std_parts, slot);
}

// Backward without the experts' gradients, planes dense and aligned.
template <class Reduce>
F2D_FN void transport_backward_vector(const TransportArgs& a, int64_t warp, int lane, Reduce reduce) {
  const int64_t b = quotient(warp, a.warps), tile = warp - b * a.warps, plane = a.shape.pixels() / kVector;
  ExponentSums<float> sums{};
  for (int64_t step = 0; step < a.steps; ++step) {
    const int64_t index = (tile * a.steps + step) * kWarp + lane;
    if (index >= a.shape.channels * plane) break;
    const int64_t c = quotient(index, plane), pixel = (index - c * plane) * kVector;
    float v[kVector] = {};
    if (a.needs_total) {
      Raw maps[kGroup];
      load_maps<kGroup>(a, b, pixel, 0, maps);
      assemble_vector(a, b, c, pixel, maps, v);
    }
    transport_gradient_vector(a, b, c, pixel, v, sums);
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
struct ThroughTransport {
  static constexpr bool kReadsDeltas = true;
  const TransportArgs& a;
  int64_t b;
  ExponentSums<float> sums;

  template <int kExperts>
  F2D_MEMBER void operator()(const VectorPixels& pixels, int64_t c, const Raw (&deltas)[kExperts],
                             const float (&maps)[kExperts][kVector], float v[kVector]) {
    F2D_UNROLL
    for (int i = 0; i < kVector; ++i) v[i] = 0.0f;
    if (pixels.first >= pixels.count) return;
    if (a.base.data) unpack(load_raw(a.base, plane_offset(a.base, b, c, pixels.first)), a.base.dtype, v);
    F2D_UNROLL
    for (int k = 0; k < kExperts; ++k) {
      const float gate = gate_at<float>(a, b, k, c);
      float delta[kVector];
      unpack(deltas[k], a.delta(k).dtype, delta);
      F2D_UNROLL
      for (int i = 0; i < kVector; ++i) v[i] = assembly_add(v[i], assembly_weight(gate, maps[k][i]), delta[i]);
    }
    transport_gradient_vector(a, b, c, pixels.first, v, sums);
  }
};

// Backward with the gradients of kExperts experts, planes dense and aligned: one pass over everything. `reduce` as above.
template <int kExperts, class Reduce>
F2D_FN void transport_backward_experts(const TransportArgs& a, int64_t warp, int lane, Reduce reduce) {
  const int64_t b = quotient(warp, a.tiles), tile = warp - b * a.tiles;
  const VectorPixels pixels(a.shape, tile, lane);
  ThroughTransport v{a, b, {}};
  assembly_backward_experts<kExperts>(a, b, tile, pixels, 0, v,
                                      [&](float value, int64_t slot) { reduce(value, a.gate_parts, slot); });
  reduce_exponent(a, v.sums, warp, reduce);
}

}  // namespace f2d
