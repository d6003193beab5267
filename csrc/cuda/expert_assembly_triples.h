// The assembly's backward pass on images of three channels that lie inside (channels_last): what one lane does. A warp
// reads and writes its 32 pixels as 96 neighbours, and its lanes exchange them so that each has its own pixel's three.
#pragma once

#include "expert_assembly_body.h"

namespace f2d {

// Three neighbours per lane, of `count` elements from `first` on.
struct Triples {
  int64_t first, count;
  int lane;

  // Element e of the 96 is in round e / 32 with lane e % 32; this lane's are 3 lane to 3 lane + 2.
  __device__ __forceinline__ void fetch(const View& v, int64_t start, float value[3]) const {
    float round[3];
    F2D_UNROLL
    for (int r = 0; r < 3; ++r) {
      const int64_t at = first + 32 * r + lane;
      round[r] = at < count ? load_one<float>(v, start + at) : 0.0f;
    }
    F2D_UNROLL
    for (int c = 0; c < 3; ++c) {
      const int e = 3 * lane + c;
      F2D_UNROLL
      for (int r = 0; r < 3; ++r) {
        const float other = __shfl_sync(0xffffffffu, round[r], e % 32);
        value[c] = r == e / 32 ? other : r ? value[c] : 0.0f;
      }
    }
  }
  __device__ __forceinline__ void write(const View& v, int64_t start, const float value[3]) const {
    F2D_UNROLL
    for (int r = 0; r < 3; ++r) {
      const int e = 32 * r + lane;
      float mine = 0.0f;
      F2D_UNROLL
      for (int c = 0; c < 3; ++c) {
        const float other = __shfl_sync(0xffffffffu, value[c], e / 3);
        mine = c == e % 3 ? other : mine;
      }
      if (first + e < count) store_one(v, start + first + e, mine);
    }
  }
};

// `reduce(value, slot)` sums value over the warp and stores it; every lane of the warp calls it.
template <class Reduce>
__device__ __forceinline__ void assembly_backward_triples(const AssemblyArgs& a, int64_t warp, int lane, Reduce reduce) {
  const int64_t unit = quotient(warp, a.splits), split = warp - unit * a.splits;
  const int64_t b = quotient(unit, a.tiles), tile = unit - b * a.tiles, pixel = tile * kWarp + lane;
  const Triples at{tile * kWarp * 3, a.shape.pixels() * 3, lane};
  const bool inside = pixel < a.shape.pixels(), correlate = a.d_maps.data || a.gate_parts;
  float grad[3];
  at.fetch(a.image, b * a.image.b, grad);
  const int64_t end = (split + 1) * a.experts / a.splits;
  for (int64_t k = split * a.experts / a.splits; k < end; ++k) {
    float map = 1.0f;
    if (a.maps.data) map = inside ? load_one<float>(a.maps, b * a.maps.b + k * a.maps.k + pixel * a.maps.w) : 0.0f;
    const View &d = a.d_deltas[a.listed ? k : 0], &v = a.delta(k);
    float gate[3], delta[3];
    F2D_UNROLL
    for (int c = 0; c < 3; ++c) {
      gate[c] = gate_at<float>(a, b, k, c);
      delta[c] = assembly_delta_gradient(assembly_weight(gate[c], map), grad[c]);
    }
    if (d.data) at.write(d, b * d.b + k * d.k, delta);
    if (!correlate) continue;
    at.fetch(v, b * v.b + k * v.k, delta);
    float s = 0.0f;
    F2D_UNROLL
    for (int c = 0; c < 3; ++c) {
      if (!a.channel_gates) {
        s = assembly_correlate(s, delta[c], grad[c]);
        continue;
      }
      const float product = delta[c] * grad[c];
      s = assembly_correlate_gated(s, product, gate[c]);
      if (a.gate_parts) reduce(map * product, gate_part(a, b, k, c, tile));
    }
    if (!a.channel_gates && a.gate_parts) reduce(map * s, gate_part(a, b, k, 0, tile));
    if (a.d_maps.data && inside) {
      const int64_t place = b * a.d_maps.b + k * a.d_maps.k + pixel * a.d_maps.w;
      store_one(a.d_maps, place, a.channel_gates ? s : gate[0] * s);
    }
  }
}

}  // namespace f2d
