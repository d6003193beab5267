// The mixture of the experts as a thread or a warp sees it: what the kernels of the expert assembly and of the transport step
// share, for host and device.
#pragma once

#include "../expert_assembly.h"
#include "pixels.h"

namespace f2d {

constexpr int kMaxListed = 32;  // tensors in a list of deltas: what fits the kernel's 4 KiB of parameters
constexpr int kGroup = 4;       // experts whose loads are under way together; the last group may have fewer

// The arguments of an assembly.
struct Experts {
  Shape shape;
  int64_t experts;
  int64_t tiles;  // of a sample, a warp's pixels each
  int64_t run;    // channels that a warp does one after another, with the same maps
  bool listed;  // deltas[k] are tensors of their own; else deltas[0] holds all, k its stride
  bool channel_gates;
  View gates, maps, base;
  View deltas[kMaxListed];

  F2D_MEMBER const View& delta(int64_t k) const { return deltas[listed ? k : 0]; }
};

template <class A>
F2D_FN A gate_at(const Experts& a, int64_t b, int64_t k, int64_t c) {
  return load_one<A>(a.gates, place(a.gates, b, k, c));
}

// The part of a warp: channels c to end - 1 of one tile of sample b; unit: counts runs of channels, then tiles.
template <class Index>
struct Part {
  Index b, c, end, tile;

  F2D_MEMBER static Index units(const Experts& a) {
    const Index channels = static_cast<Index>(a.shape.channels), run = static_cast<Index>(a.run);
    return quotient(channels + run - 1, run) * static_cast<Index>(a.tiles);
  }
  F2D_MEMBER Part(const Experts& a, Index b, Index unit) : b(b) {
    const Index channels = static_cast<Index>(a.shape.channels), run = static_cast<Index>(a.run);
    const Index part = quotient(unit, static_cast<Index>(a.tiles));
    tile = unit - part * static_cast<Index>(a.tiles);
    c = part * run;
    end = c + run < channels ? c + run : channels;
  }
};

// Gates and maps of the experts from k to end - 1, a group at most, which serve several channels; gates per channel are read
// with each.
template <class Pixels>
struct Weights {
  using A = typename Pixels::Value;
  A gate[kGroup];
  typename Pixels::FetchedPlane map[kGroup];

  F2D_MEMBER Weights(const Experts& a, const Pixels& pixels, typename Pixels::Index b, typename Pixels::Index k,
                     typename Pixels::Index end) {
    F2D_UNROLL
    for (int j = 0; j < kGroup; ++j) {
      map[j] = {};
      gate[j] = A(1);
      if (k + j >= end) continue;
      if (a.maps.data) map[j] = pixels.fetch_plane(a.maps, place<typename Pixels::Index>(a.maps, b, k + j, 0));
      if (!a.channel_gates) gate[j] = gate_at<A>(a, b, k + j, 0);
    }
  }
};

// Adds a group of experts from k on to `sum`.
template <class Pixels>
F2D_FN void add_experts(const Experts& a, const Pixels& pixels, typename Pixels::Index b, typename Pixels::Index c,
                        typename Pixels::Index k, const Weights<Pixels>& weights,
                        typename Pixels::Value (&sum)[Pixels::kChannels][Pixels::kCount]) {
  using A = typename Pixels::Value;
  using Index = typename Pixels::Index;
  typename Pixels::Fetched deltas[kGroup] = {};
  F2D_UNROLL
  for (int j = 0; j < kGroup; ++j) {
    if (k + j >= a.experts) continue;
    const View& view = a.delta(k + j);
    deltas[j] = pixels.fetch(view, place<Index>(view, b, k + j, c));
  }
  F2D_UNROLL
  for (int j = 0; j < kGroup; ++j) {
    if (k + j >= a.experts) continue;
    A delta[Pixels::kChannels][Pixels::kCount], map[Pixels::kCount];
    pixels.decode(deltas[j], a.delta(k + j), delta);
    if (a.maps.data) pixels.decode_plane(weights.map[j], a.maps, map);
    F2D_UNROLL
    for (int i = 0; i < Pixels::kChannels; ++i) {
      const A gate = a.channel_gates ? gate_at<A>(a, b, k + j, c + i) : weights.gate[j];
      F2D_UNROLL
      for (int p = 0; p < Pixels::kCount; ++p)
        sum[i][p] = assembly_add(sum[i][p], a.maps.data ? assembly_weight(gate, map[p]) : gate, delta[i][p]);
    }
  }
}

// base + sum_k gates * maps * deltas from channel c on; `weights`: of the first group of experts.
template <class Pixels>
F2D_FN void assemble(const Experts& a, const Pixels& pixels, typename Pixels::Index b, typename Pixels::Index c,
                     const Weights<Pixels>& weights, typename Pixels::Value (&sum)[Pixels::kChannels][Pixels::kCount]) {
  using Index = typename Pixels::Index;
  F2D_UNROLL
  for (int i = 0; i < Pixels::kChannels; ++i) {
    F2D_UNROLL
    for (int p = 0; p < Pixels::kCount; ++p) sum[i][p] = 0;
  }
  if (a.base.data) pixels.decode(pixels.fetch(a.base, place<Index>(a.base, b, 0, c)), a.base, sum);
  const Index experts = static_cast<Index>(a.experts);
  if (experts <= kGroup) return add_experts(a, pixels, b, c, Index(0), weights, sum);
  F2D_ROLLED
  for (Index k = 0; k < experts; k += kGroup)
    add_experts(a, pixels, b, c, k, Weights<Pixels>(a, pixels, b, k, experts), sum);
}

// base + sum_k gates * maps * deltas of one element.
template <class A>
F2D_FN A assemble_element(const Experts& a, int64_t b, int64_t c, int64_t y, int64_t x) {
  const auto offset = [&](const View& v, int64_t k) { return b * v.b + k * v.k + c * v.c + y * v.h + x * v.w; };
  A sum = a.base.data ? load_one<A>(a.base, offset(a.base, 0)) : A(0);
  for (int64_t k = 0; k < a.experts; ++k) {
    const A gate = gate_at<A>(a, b, k, c);
    const A weight = a.maps.data ? assembly_weight(gate, load_one<A>(a.maps, offset(a.maps, k))) : gate;
    sum = assembly_add(sum, weight, load_one<A>(a.delta(k), offset(a.delta(k), k)));
  }
  return sum;
}

}  // namespace f2d
