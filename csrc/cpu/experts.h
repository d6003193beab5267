// The weights of the experts' deltas, and walks over many of their tensors at once.
//
// The fast walks handle dense float32 and bfloat16 tensors of one layout; everything else is processed block by block
// (stream.h). They read all streams of a pixel range in step, line by line: twenty sequential streams reach 0.95 of the
// bandwidth of ten, whereas processing a tile in the cache plane by plane reaches 0.65.
#pragma once

#include "../expert_assembly.h"
#include "expert_assembly.h"
#include "stream.h"
#include "vector.h"

namespace f2d {
namespace {

constexpr int kMaxExperts = 16;  // the fast walks keep their weights on the stack
constexpr int kLineBytes = 64;   // per stream and step
// Results larger than this bypass the caches, so that a store reads no line first: 1.1x as fast for float32 planes even
// if the result is read again at once, equal otherwise.
constexpr int64_t kPastCacheBytes = int64_t(1) << 18;

// Planes of a sample that a walk reads in step; two planes with four experts are fourteen streams. All of 24 planes in
// step (148 streams) are 1.6x slower; three or four in one step avoid reading the maps again.
inline int64_t planes_in_step(int64_t channels) { return channels <= 4 ? channels : 2; }

// The weight of an expert's deltas over a block: gate (* map[i]). The gate varies within the block (gates[i]) if gates
// are per channel and channels lie inside.
template <class A>
struct Weight {
  A gate;
  const A* map;    // null without maps
  const A* gates;  // null unless gates vary within the block
};

// The gates of sample b for every expert, repeated over a block's pixels; computed once per sample, not per block.
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

// s[p] += sum_c products[p * channels + c], with compile-time channels if they are few, in 16 lanes if they are many.
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

enum class Layout { other, planar, interleaved };

inline bool is_planar(const Stream& s) { return s.linear && s.w == 1; }

inline bool fits(const Stream& s, Layout layout, int64_t channels) {
  return layout == Layout::planar ? is_planar(s) : s.linear && s.c == 1 && s.w == channels;
}

// The layout that all streams share, or `other` if no fast walk supports them. Maps may be float32 beside 16-bit
// deltas, and so may the incoming gradient, because that of the transport step is not rounded.
inline Layout layout_of(const AssemblyArgs& a) {
  const Walk& walk = a.walk;
  const DType dtype = a.deltas[0].dtype;
  const bool backward = a.d_deltas || a.d_maps || a.gate_parts;
  if (dtype != DType::f32 && dtype != DType::bf16) return Layout::other;
  if (a.is_double || a.experts > kMaxExperts || (a.shared_deltas && backward)) return Layout::other;
  const Layout layout = walk.pixel_major ? Layout::interleaved : Layout::planar;
  const auto matches = [&](const Stream& s) {
    return !s.data || (s.dtype == dtype && fits(s, layout, walk.channels));
  };
  bool good = matches(a.base) && fits(a.image, layout, walk.channels) &&
              (a.image.dtype == dtype || (backward && a.image.dtype == DType::f32));
  for (int64_t k = 0; k < a.experts; ++k) {
    good = good && matches(a.deltas[k]) && (!a.d_deltas || matches(a.d_deltas[k]));
    if (a.maps)
      good = good && is_planar(a.maps[k]) && (a.maps[k].dtype == DType::f32 || a.maps[k].dtype == dtype) &&
             a.maps[k].dtype == a.maps[0].dtype;
    if (a.d_maps) good = good && is_planar(a.d_maps[k]) && a.d_maps[k].dtype == a.maps[k].dtype;
  }
  return good ? layout : Layout::other;
}

// Compile-time parameters of the walks: dtypes of images and maps, whether results bypass the caches, and the number of
// experts, so that their weights stay in registers (1.3x as fast; 0: any number up to kMaxExperts).
template <class T_, class M_, bool kPastCache_, int kExperts_>
struct Kind {
  using T = T_;
  using M = M_;
  static constexpr bool kPastCache = kPastCache_;
  static constexpr int kExperts = kExperts_, kRoom = kExperts ? kExperts : kMaxExperts;
};

template <class T, class M, bool kPastCache, class Run>
inline void with_experts(int64_t experts, Run run) {
  switch (experts) {
    case 3: return run(Kind<T, M, kPastCache, 3>());
    case 4: return run(Kind<T, M, kPastCache, 4>());
    case 5: return run(Kind<T, M, kPastCache, 5>());
    default: return run(Kind<T, M, kPastCache, 0>());
  }
}

template <class T, class M, class Run>
inline void with_experts(int64_t experts, bool past, Run run) {
#if defined(__AVX2__)
  past ? with_experts<T, M, true>(experts, run) : with_experts<T, M, false>(experts, run);
#else  // too few registers for this to help
  run(Kind<T, M, false, 0>());
#endif
}

template <class Run>
inline void with_kind(const AssemblyArgs& a, bool past, Run run) {
  const bool float_maps = a.maps && a.maps[0].dtype == DType::f32;
  if (a.deltas[0].dtype == DType::f32) return with_experts<float, float>(a.experts, past, run);
  float_maps ? with_experts<bf16, float>(a.experts, past, run) : with_experts<bf16, bf16>(a.experts, past, run);
}

// One sample of a stream, kept in registers; the compiler would reload a Stream after every vector store.
template <class T>
struct Plane {
  T* data = nullptr;
  int64_t c = 0;

  Plane() = default;
  Plane(const Stream& s, int64_t b) : data(reinterpret_cast<T*>(s.data) + b * s.b), c(s.c) {}
};

// Whether results of `bytes` should bypass the caches and are placed so that whole vectors of every plane are aligned.
inline bool past_cache(const Stream* streams, int64_t count, int64_t bytes) {
  bool aligned = bytes >= kPastCacheBytes;
  for (int64_t k = 0; aligned && k < count; ++k) {
    const int64_t e = size_of(streams[k].dtype), steps = (streams[k].b | (streams[k].c > 1 ? streams[k].c : 0)) * e;
    aligned = reinterpret_cast<uintptr_t>(streams[k].data) % 64 == 0 && steps % 64 == 0;
  }
  return aligned;
}

// Hardware prefetchers do not keep up with short 16-bit streams: prefetching 256 bytes is 1.2x faster than none, but
// with float32 it is 1.1x slower.
template <class T>
inline void prefetch_ahead(const T* p) {
  if (sizeof(T) == 2) prefetch(p + 128);
}

// Channels inside pixels: the elements of sixteen pixels are `channels` vectors. index[16 j + l] is the pixel of lane l
// of vector j. Gates have the order in which the walks read them: [k][c], or repeated per pixel in the order of the
// vectors.
inline void lay_out_pixels(int64_t channels, int32_t* index) {
  for (int64_t i = 0; i < kWide * channels; ++i) index[i] = static_cast<int32_t>(i / channels);
}

inline void lay_out_gates(const AssemblyArgs& a, int64_t b, int64_t pixels, float* gates) {
  for (int64_t k = 0; k < a.experts; ++k)
    for (int64_t i = 0; i < pixels * a.walk.channels; ++i)
      *gates++ = static_cast<float>(a.gates.at(b, k, i % a.walk.channels));
}

}  // namespace
}  // namespace f2d
