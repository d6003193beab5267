// The gradients of the expert assembly for one instruction set: compiled once per level with F2D_LEVEL naming it.
#include "expert_assembly_vectors.h"

namespace f2d {
namespace {

// The gradient of one expert over a block: d = (or +=) weight * grad.
template <bool kAdd, class A>
inline void delta_gradient(const Weight<A>& weight, const A* grad, A* d, int64_t n) {
  const A* map = weight.map;
  const A* gates = weight.gates;
  const A gate = weight.gate;
  const auto put = [&](int64_t i, A w) { d[i] = kAdd ? fma(w, grad[i], d[i]) : assembly_delta_gradient(w, grad[i]); };
  if (map && gates) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) put(i, assembly_weight(gates[i], map[i]));
  } else if (map) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) put(i, assembly_weight(gate, map[i]));
  } else if (gates) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) put(i, gates[i]);
  } else {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) put(i, gate);
  }
}

// lanes[(p % 16) * channels + c] += map * product: 16 lanes per channel, flat over a block that starts at a lane.
template <class A>
inline void add_products_to_lanes(const A* map, const A* products, int64_t n, int64_t row, double* lanes) {
  for (int64_t start = 0; start < n; start += row) {
    const int64_t length = n - start < row ? n - start : row;
    if (map) {
#pragma omp simd
      for (int64_t i = 0; i < length; ++i)
        lanes[i] += static_cast<double>(map[start + i]) * static_cast<double>(products[start + i]);
    } else {
#pragma omp simd
      for (int64_t i = 0; i < length; ++i) lanes[i] += static_cast<double>(products[start + i]);
    }
  }
}

template <class A>
struct BackwardScratch {
  double* lanes;                // per sample of the group and expert
  A *gates, *maps, *grads, *s;  // likewise
  A *delta, *d_delta, *products;
  A* vectors;                   // for the fast walks
  int64_t lane_count;

  F2D_MEMBER BackwardScratch(const AssemblyArgs& a, int64_t group, A* p) {
    const int64_t size = a.walk.block_elements(), pairs = group * a.experts;
    lane_count = kLaneCount * (a.channel_gates ? a.walk.channels : 1);
    lanes = reinterpret_cast<double*>(p), p += pairs * lane_count * sizeof(double) / sizeof(A);
    gates = p, p += (a.channel_gates && a.walk.pixel_major ? pairs * size : 0);
    maps = p, p += (a.maps ? pairs * size : 0);
    grads = p, p += group * size;
    s = p, p += pairs * a.walk.block_pixels();
    delta = p, p += size;
    d_delta = p, p += size;
    products = p, p += size;
    vectors = p;
  }
};

// Computes the gradients of the maps from s of one block, and those of the gates if there is one per expert.
template <class A>
inline void finish_block(const AssemblyArgs& a, const BackwardScratch<A>& w, int64_t b, int64_t pair, int64_t k,
                         int64_t pixel, int64_t pixels) {
  const Block block{b, 0, 1, pixel, pixels};
  const A* s = w.s + pair * a.walk.block_pixels();
  if (a.gate_parts && !a.channel_gates) {
    const A* map = a.maps ? read(a.maps[k], block, w.products) : nullptr;
    add_products_to_lanes(map, s, pixels, kLaneCount, w.lanes + pair * w.lane_count);
  }
  if (!a.d_maps) return;
  const A gate = a.channel_gates ? A(1) : static_cast<A>(a.gates.at(b, k, 0));
  A* d_map = target(a.d_maps[k], block, w.d_delta);
#pragma omp simd
  for (int64_t i = 0; i < pixels; ++i) d_map[i] = gate * s[i];
  write(a.d_maps[k], block, d_map);
}

template <class A>
inline void finish_tile(const AssemblyArgs& a, const BackwardScratch<A>& w, int64_t b, int64_t pair, int64_t k,
                        int64_t tile) {
  const int64_t sums = a.channel_gates ? a.walk.channels : 1;
  double* parts = a.gate_parts + ((tile * a.walk.batch + b) * a.experts + k) * sums;
  const double* lanes = w.lanes + pair * w.lane_count;
  const bool lane_major = a.walk.pixel_major;
  for (int64_t c = 0; c < sums; ++c)
    parts[c] = lane_major ? sum_lanes(lanes + c, sums) : sum_lanes(lanes + c * kLaneCount);
}

// Processes the whole vectors in the pixels [pixel, end) by a fast walk if possible; returns the first remaining pixel.
// Scratch: an index, two groups of values and K gates for sixteen pixels of interleaved channels, K sums per pixel.
inline int64_t backward_vectors(const AssemblyArgs& a, Layout layout, int64_t b, int64_t pixel, int64_t end,
                                double* lanes, float* scratch) {
  if (layout == Layout::other) return pixel;
  const bool planar = layout == Layout::planar;
  const int64_t planes = planes_in_step(a.walk.channels);
  const int64_t done = end - (end - pixel) % (planar ? kLineBytes / size_of(a.deltas[0].dtype) : kWide);
  const int64_t size = kWide * a.walk.channels;
  auto* index = reinterpret_cast<int32_t*>(scratch);
  float *values = scratch + size, *gates = values + 2 * size, *sums = gates + a.experts * size;
  if (!planar) lay_out_pixels(a.walk.channels, index);
  if (planar || a.channel_gates) lay_out_gates(a, b, planar ? 1 : kWide, gates);
  const int64_t bytes = a.walk.elements() * a.experts * size_of(a.deltas[0].dtype);
  const bool past = (!a.d_deltas || past_cache(a.d_deltas, a.experts, bytes)) &&
                    (!a.d_maps || past_cache(a.d_maps, a.experts, bytes));
  with_kind(a, past, [&](auto kind) {
    using K = decltype(kind);
    if (!planar) return interleaved_backward<K>(a, b, pixel, done, index, gates, values, lanes);
    for (int64_t c = 0; c < a.walk.channels; c += planes)
      planar_backward<K>(a, b, pixel, done, c, smaller(c + planes, a.walk.channels), gates, lanes, sums);
  });
  return done;
}

inline int64_t backward_vectors(const AssemblyArgs&, Layout, int64_t, int64_t pixel, int64_t, double*, double*) {
  return pixel;
}

// Task: one tile of one sample, or of all samples if they share the deltas. One pass over grad and deltas.
template <class A>
void backward(const AssemblyArgs& a, A* scratch, int64_t begin, int64_t end) {
  const Walk& walk = a.walk;
  const int64_t group = a.shared_deltas ? walk.batch : 1, K = a.experts, tiles = walk.tiles();
  const int64_t size = walk.block_elements(), block_pixels = walk.block_pixels();
  const bool gated_inside = a.channel_gates && walk.pixel_major, correlate = a.d_maps || a.gate_parts;
  const BackwardScratch<A> w(a, group, scratch);
  const Layout layout = layout_of(a);
  int64_t tiled = -1;

  for (int64_t task = begin; task < end; ++task) {
    const int64_t b0 = task / tiles * group, tile = task % tiles;
    if (gated_inside && tiled != b0)
      for (int64_t g = 0; g < group; ++g) tile_gates(a, b0 + g, w.gates + g * K * size);
    tiled = b0;
    for (int64_t i = 0; i < group * K * w.lane_count; ++i) w.lanes[i] = 0.0;
    const int64_t tile_end = smaller((tile + 1) * walk.tile_pixels(), walk.pixels());

    const int64_t first = backward_vectors(a, layout, b0, tile * walk.tile_pixels(), tile_end, w.lanes, w.vectors);
    for (int64_t pixel = first; pixel < tile_end; pixel += block_pixels) {
      const int64_t pixels = smaller(tile_end - pixel, block_pixels);
      const int64_t n = pixels * walk.block_channels();
      for (int64_t i = 0; correlate && i < group * K * block_pixels; ++i) w.s[i] = A(0);
      const auto block_of = [&](int64_t b, int64_t plane) { return Block{b, plane, walk.block_channels(), pixel, pixels}; };
      for (int64_t g = 0; a.maps && g < group; ++g)
        for (int64_t k = 0; k < K; ++k) read(a.maps[k], block_of(b0 + g, 0), w.maps + (g * K + k) * size);

      for (int64_t plane = 0; plane < walk.planes(); ++plane) {
        for (int64_t g = 0; g < group; ++g) read(a.image, block_of(b0 + g, plane), w.grads + g * size);
        for (int64_t k = 0; k < K; ++k) {
          const Block block = block_of(b0, plane);
          const A* delta = correlate ? read(a.deltas[k], block, w.delta) : nullptr;
          A* d_delta = a.d_deltas ? target(a.d_deltas[k], block, w.d_delta) : nullptr;
          for (int64_t g = 0; g < group; ++g) {
            const int64_t pair = g * K + k;
            const A* grad = loaded(a.image, block_of(b0 + g, plane), w.grads + g * size);
            const A* map = a.maps ? loaded(a.maps[k], block_of(b0 + g, 0), w.maps + pair * size) : nullptr;
            const Weight<A> weight = weight_of(a, b0 + g, k, plane, map, w.gates + g * K * size);
            if (d_delta && g == 0) delta_gradient<false>(weight, grad, d_delta, n);
            if (d_delta && g > 0) delta_gradient<true>(weight, grad, d_delta, n);
            if (!correlate) continue;
            A* s = w.s + pair * block_pixels;
            if (!a.channel_gates && !walk.pixel_major) {
#pragma omp simd
              for (int64_t i = 0; i < n; ++i) s[i] = assembly_correlate(s[i], delta[i], grad[i]);
              continue;
            }
#pragma omp simd
            for (int64_t i = 0; i < n; ++i) w.products[i] = delta[i] * grad[i];
            if (a.channel_gates && a.gate_parts) {
              const int64_t row = kLaneCount * walk.block_channels();
              add_products_to_lanes(weight.map, w.products, n, row, w.lanes + pair * w.lane_count + plane * kLaneCount);
            }
            if (!a.d_maps && a.channel_gates) continue;
            if (gated_inside) {
#pragma omp simd
              for (int64_t i = 0; i < n; ++i) w.products[i] *= weight.gates[i];
            }
            if (walk.pixel_major) {
              add_channels(w.products, s, pixels, walk.channels);
            } else {
#pragma omp simd
              for (int64_t i = 0; i < n; ++i) s[i] = assembly_correlate_gated(s[i], w.products[i], weight.gate);
            }
          }
          if (d_delta) write(a.d_deltas[k], block, d_delta);
        }
      }
      for (int64_t pair = 0; correlate && pair < group * K; ++pair)
        finish_block(a, w, b0 + pair / K, pair, pair % K, pixel, pixels);
    }
    for (int64_t pair = 0; a.gate_parts && pair < group * K; ++pair)
      finish_tile(a, w, b0 + pair / K, pair, pair % K, tile);
  }
  fence();
}

}  // namespace

F2D_DEFINE_KERNEL(expert_assembly_backward, AssemblyArgs, backward)

}  // namespace f2d
