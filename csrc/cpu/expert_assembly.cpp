// The expert assembly for one instruction set: compiled once per level with F2D_LEVEL naming it.
#include "../expert_assembly.h"

#include "expert_assembly.h"
#include "stream.h"

namespace f2d {
namespace {

constexpr int kUnroll = 4;  // experts per pass over a block: each pass loads and stores the sum once

// What multiplies an expert's deltas over a block: gate (* map[i]), the gate itself varying within the block where
// gates are per channel and channels lie inside (gates[i]).
template <class A>
struct Weight {
  A gate;
  const A* map;    // null without maps
  const A* gates;  // null unless gates vary within the block
};

template <int kExperts, bool kMaps, bool kGates, class A>
inline void add_experts(const A* from, A* sum, const A* const* deltas, const Weight<A>* weights, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    A value = from[i];
    for (int k = 0; k < kExperts; ++k) {
      const A gate = kGates ? weights[k].gates[i] : weights[k].gate;
      value = assembly_add(value, kMaps ? assembly_weight(gate, weights[k].map[i]) : gate, deltas[k][i]);
    }
    sum[i] = value;
  }
}

template <int kExperts, class A>
inline void add_experts(const A* from, A* sum, const A* const* deltas, const Weight<A>* weights, int64_t n) {
  if (weights[0].map && weights[0].gates) return add_experts<kExperts, true, true>(from, sum, deltas, weights, n);
  if (weights[0].map) return add_experts<kExperts, true, false>(from, sum, deltas, weights, n);
  if (weights[0].gates) return add_experts<kExperts, false, true>(from, sum, deltas, weights, n);
  add_experts<kExperts, false, false>(from, sum, deltas, weights, n);
}

template <class A>
inline void add_experts(int count, const A* from, A* sum, const A* const* deltas, const Weight<A>* weights, int64_t n) {
  switch (count) {
    case 1: return add_experts<1>(from, sum, deltas, weights, n);
    case 2: return add_experts<2>(from, sum, deltas, weights, n);
    case 3: return add_experts<3>(from, sum, deltas, weights, n);
    default: return add_experts<4>(from, sum, deltas, weights, n);
  }
}

// Gates of sample b for every expert, repeated over a block's pixels: made once per sample, not per block.
template <class A>
inline void tile_gates(const AssemblyArgs& a, int64_t b, A* out) {
  const int64_t channels = a.walk.channels, pixels = a.walk.block_pixels();
  for (int64_t k = 0; k < a.experts; ++k, out += channels * pixels)
    for (int64_t c = 0; c < channels; ++c) {
      const A gate = static_cast<A>(a.gates.at(b, k, c));
      for (int64_t p = 0; p < pixels; ++p) out[p * channels + c] = gate;
    }
}

template <class A>
inline Weight<A> weight_of(const AssemblyArgs& a, int64_t b, int64_t k, int64_t c, const A* map, const A* tiled) {
  const bool inside = a.channel_gates && a.walk.pixel_major;
  return {inside ? A(0) : static_cast<A>(a.gates.at(b, k, c)), map,
          inside ? tiled + k * a.walk.block_elements() : nullptr};
}

// Task: one tile of one sample, plane by plane, so that each tensor is read in runs long enough for the prefetcher, and
// converted maps serve every plane. Scratch: 5 blocks, K blocks of gates, K tiles of maps.
template <class A>
void forward(const AssemblyArgs& a, A* scratch, int64_t begin, int64_t end) {
  const Walk& walk = a.walk;
  const int64_t size = walk.block_elements(), tiles = walk.tiles(), step = walk.block_pixels();
  A* const sum_buffer = scratch;
  A* const delta_buffer = sum_buffer + size;
  A* const gate_buffer = delta_buffer + kUnroll * size;
  A* const map_buffer = gate_buffer + a.experts * size;
  int64_t tiled = -1;
  for (int64_t task = begin; task < end; ++task) {
    const int64_t b = task / tiles, tile_begin = task % tiles * walk.tile_pixels();
    const int64_t tile_end = smaller(tile_begin + walk.tile_pixels(), walk.pixels());
    if (a.channel_gates && walk.pixel_major && tiled != b) tile_gates(a, tiled = b, gate_buffer);
    for (int64_t plane = 0; plane < walk.planes(); ++plane) {
      A* tile_maps = map_buffer;
      for (int64_t pixel = tile_begin; pixel < tile_end; pixel += step, tile_maps += a.experts * size) {
        const Block block{b, plane, walk.block_channels(), pixel, smaller(step, tile_end - pixel)};
        A* const sum = target(a.image, block, sum_buffer);
        const A* from = sum;
        if (a.base.data) {
          from = read(a.base, block, sum);
        } else {
          for (int64_t i = 0; i < block.size(); ++i) sum[i] = A(0);
        }
        for (int64_t k = 0; k < a.experts; k += kUnroll) {
          const int count = static_cast<int>(smaller(a.experts - k, kUnroll));
          const A* deltas[kUnroll];
          Weight<A> weights[kUnroll];
          for (int j = 0; j < count; ++j) {
            deltas[j] = read(a.deltas[k + j], block, delta_buffer + j * size);
            const A* map = nullptr;
            if (a.maps) {
              A* buffer = tile_maps + (k + j) * size;
              map = plane == 0 ? read(a.maps[k + j], block, buffer) : loaded(a.maps[k + j], block, buffer);
            }
            weights[j] = weight_of(a, b, k + j, plane, map, gate_buffer);
          }
          add_experts(count, from, sum, deltas, weights, block.size());
          from = sum;
        }
        write(a.image, block, sum);
      }
    }
  }
}

// One expert's gradient over a block: d = (or +=) weight * grad.
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

// s[p] += sum_c products[p * channels + c], compile-time channels where they are few, 16 lanes where they are many.
template <int kChannels, class A>
inline void add_channels(const A* products, A* s, int64_t pixels) {
#pragma omp simd
  for (int64_t p = 0; p < pixels; ++p) {
    A sum = s[p];
    for (int c = 0; c < kChannels; ++c) sum += products[p * kChannels + c];
    s[p] = sum;
  }
}

template <class A>
inline void add_channels(const A* products, A* s, int64_t pixels, int64_t channels) {
  switch (channels) {
    case 1: return add_channels<1>(products, s, pixels);
    case 2: return add_channels<2>(products, s, pixels);
    case 3: return add_channels<3>(products, s, pixels);
    case 4: return add_channels<4>(products, s, pixels);
    default:
      for (int64_t p = 0; p < pixels; ++p) {
        A lanes[kLaneCount] = {};
        add_to_lanes(products + p * channels, channels, lanes);
        s[p] += sum_lanes(lanes);
      }
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
    products = p;
  }
};

// s of one block -> the maps' gradients, and the gates' where there is one per expert.
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

// Task: one tile of one sample, or of all samples where they share the deltas. One pass over grad and deltas.
template <class A>
void backward(const AssemblyArgs& a, A* scratch, int64_t begin, int64_t end) {
  const Walk& walk = a.walk;
  const int64_t group = a.shared_deltas ? walk.batch : 1, K = a.experts, tiles = walk.tiles();
  const int64_t size = walk.block_elements(), block_pixels = walk.block_pixels();
  const bool gated_inside = a.channel_gates && walk.pixel_major, correlate = a.d_maps || a.gate_parts;
  const BackwardScratch<A> w(a, group, scratch);
  int64_t tiled = -1;

  for (int64_t task = begin; task < end; ++task) {
    const int64_t b0 = task / tiles * group, tile = task % tiles;
    if (gated_inside && tiled != b0)
      for (int64_t g = 0; g < group; ++g) tile_gates(a, b0 + g, w.gates + g * K * size);
    tiled = b0;
    for (int64_t i = 0; i < group * K * w.lane_count; ++i) w.lanes[i] = 0.0;
    const int64_t tile_end = smaller((tile + 1) * walk.tile_pixels(), walk.pixels());

    for (int64_t pixel = tile * walk.tile_pixels(); pixel < tile_end; pixel += block_pixels) {
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
}

}  // namespace

namespace F2D_LEVEL {

void expert_assembly(const AssemblyArgs& a, char* scratch, int64_t begin, int64_t end) {
  if (a.is_double) return forward(a, reinterpret_cast<double*>(scratch), begin, end);
  forward(a, reinterpret_cast<float*>(scratch), begin, end);
}

void expert_assembly_backward(const AssemblyArgs& a, char* scratch, int64_t begin, int64_t end) {
  if (a.is_double) return backward(a, reinterpret_cast<double*>(scratch), begin, end);
  backward(a, reinterpret_cast<float*>(scratch), begin, end);
}

}  // namespace F2D_LEVEL

}  // namespace f2d
