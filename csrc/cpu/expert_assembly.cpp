// The expert assembly for one instruction set: compiled once per level with F2D_LEVEL naming it.
#include "expert_assembly_vectors.h"

namespace f2d {
namespace {

constexpr int kUnroll = 4;  // experts per pass over a block: each pass loads and stores the sum once

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

// Processes the whole vectors in the pixels [pixel, end) by a fast walk if possible; returns the first remaining pixel.
// Scratch: an index and K gates for sixteen pixels of interleaved channels.
inline int64_t forward_vectors(const AssemblyArgs& a, Layout layout, int64_t b, int64_t pixel, int64_t end, float* scratch) {
  if (layout == Layout::other) return pixel;
  const bool planar = layout == Layout::planar;
  const int64_t planes = planes_in_step(a.walk.channels);
  const int64_t done = end - (end - pixel) % (planar ? kLineBytes / size_of(a.image.dtype) : kWide);
  auto* index = reinterpret_cast<int32_t*>(scratch);
  float* gates = scratch + kWide * a.walk.channels;
  if (!planar) lay_out_pixels(a.walk.channels, index);
  if (a.channel_gates) lay_out_gates(a, b, planar ? 1 : kWide, gates);
  with_kind(a, past_cache(&a.image, 1, a.walk.elements() * size_of(a.image.dtype)), [&](auto kind) {
    using K = decltype(kind);
    if (!planar) return interleaved_forward<K>(a, b, pixel, done, index, gates);
    for (int64_t c = 0; c < a.walk.channels; c += planes)
      planar_forward<K>(a, b, pixel, done, c, smaller(c + planes, a.walk.channels), gates);
  });
  return done;
}

inline int64_t forward_vectors(const AssemblyArgs&, Layout, int64_t, int64_t pixel, int64_t, double*) { return pixel; }

// Task: one tile of one sample. Without a fast walk the planes follow one another, so that every plane uses the
// converted maps. Scratch: 5 blocks, K blocks of gates, K tiles of maps, or K blocks if channels lie inside.
template <class A>
void forward(const AssemblyArgs& a, A* scratch, int64_t begin, int64_t end) {
  const Walk& walk = a.walk;
  const int64_t size = walk.block_elements(), tiles = walk.tiles(), step = walk.block_pixels();
  const int64_t map_step = walk.pixel_major ? 0 : a.experts * size;
  A* const sum_buffer = scratch;
  A* const delta_buffer = sum_buffer + size;
  A* const gate_buffer = delta_buffer + kUnroll * size;
  A* const map_buffer = gate_buffer + a.experts * size;
  const Layout layout = layout_of(a);
  int64_t tiled = -1;
  for (int64_t task = begin; task < end; ++task) {
    const int64_t b = task / tiles, first = task % tiles * walk.tile_pixels();
    // A fast walk processes all tiles of the sample in this range at once, so that its streams are as long as possible.
    if (layout != Layout::other) task = smaller(end, (b + 1) * tiles) - 1;
    const int64_t tile_end = smaller((task % tiles + 1) * walk.tile_pixels(), walk.pixels());
    const int64_t tile_begin = forward_vectors(a, layout, b, first, tile_end, scratch);
    if (tile_begin == tile_end) continue;
    if (a.channel_gates && walk.pixel_major && tiled != b) tile_gates(a, tiled = b, gate_buffer);
    for (int64_t plane = 0; plane < walk.planes(); ++plane) {
      A* tile_maps = map_buffer;
      for (int64_t pixel = tile_begin; pixel < tile_end; pixel += step, tile_maps += map_step) {
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
  fence();
}

}  // namespace

F2D_DEFINE_KERNEL(expert_assembly, AssemblyArgs, forward)

}  // namespace f2d
