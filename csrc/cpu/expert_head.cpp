// The expert head's forward kernel for one instruction set: compiled once per level with F2D_LEVEL naming it.
#include "expert_head_blocks.h"

namespace f2d {
namespace {

#if defined(__AVX512F__)
constexpr int kPixelGroup = 4;  // pixels that share each load of the weights if the features of a pixel are contiguous
#else
constexpr int kPixelGroup = 1;
#endif

// deltas[c][i] += sum over kPlanes features of weights[c][f] * planes[f][i]; a register is 16 pixels of one feature.
template <int kPlanes, class A, class T>
struct ProjectPlanes {
  const T* const* planes;
  const A* weights;  // of the first of these features
  int64_t row_size;
  A* deltas;
  int64_t pixels;

  template <int kChannels>
  inline void run(int64_t first) const {
    const A* rows = weights + first * row_size;
    A* to = deltas + first * pixels;
    for (int64_t i = 0; i < pixels; i += kLaneCount) {
      Lanes<A> sums[kChannels];
      for (int c = 0; c < kChannels; ++c) load(to + c * pixels + i, sums[c]);
      for (int f = 0; f < kPlanes; ++f) {
        const Lanes<A> x = loaded_lanes<A>(planes[f] + i);
        for (int c = 0; c < kChannels; ++c) sums[c] = head_project(sums[c], all_lanes(rows[c * row_size + f]), x);
      }
      for (int c = 0; c < kChannels; ++c) store(to + c * pixels + i, sums[c]);
    }
  }
};

// Experts whose features lie pixel by pixel, for one group of pixels.
template <class A, class T>
struct PixelExperts {
  const T* features[kLaneCount];
  int64_t steps[kLaneCount];  // elements from pixel to pixel
  int64_t count;
  const A* weights;  // [k][c][row_size]
  const A* biases;   // [c][lane = expert]
  const A* gated;    // [p][lane = expert]: gate * map
};

// out[(p, c)][lane] (+)= the terms of this lane's features and bias; a register is 16 features of one pixel. All
// experts share the 16 partial sums, so a result needs one sum over lanes instead of K.
template <class A, class T>
struct ProjectPixels {
  const PixelExperts<A, T>& experts;
  int64_t pixels, channels, padded, row_size;
  A* out;
  bool adds;

  template <int kChannels, int kPixels>
  inline void pixel_group(int64_t first, int64_t p) const {
    A* to = out + (p * channels + first) * kLaneCount;
    Lanes<A> sums[kPixels][kChannels];
    for (int i = 0; i < kPixels; ++i) {
      const Lanes<A> gated = loaded_lanes<A>(experts.gated + (p + i) * kLaneCount);
      for (int c = 0; c < kChannels; ++c) {
        const Lanes<A> sum = adds ? loaded_lanes<A>(to + (i * channels + c) * kLaneCount) : all_lanes(A(0));
        sums[i][c] = head_add(sum, gated, loaded_lanes<A>(experts.biases + (first + c) * kLaneCount));
      }
    }
    for (int64_t k = 0; k < experts.count; ++k) {
      const A* rows = experts.weights + (k * channels + first) * row_size + kLaneCount;
      const int64_t step = experts.steps[k];
      const T* from = experts.features[k] + p * step;
      Lanes<A> gated[kPixels];
      for (int i = 0; i < kPixels; ++i) fill(experts.gated[(p + i) * kLaneCount + k], gated[i]);
      for (int64_t f = 0; f < padded; f += kLaneCount) {
        Lanes<A> x[kPixels];
        for (int i = 0; i < kPixels; ++i) {
          x[i] = gated[i] * loaded_lanes<A>(from + i * step + f);
          if (first == 0) prefetch_to_l2(from + (i + 2 * kLaneCount) * step + f);
        }
        for (int c = 0; c < kChannels; ++c) {
          const Lanes<A> w = loaded_lanes<A>(rows + c * row_size + f);
          for (int i = 0; i < kPixels; ++i) sums[i][c] = head_project(sums[i][c], w, x[i]);
        }
      }
    }
    for (int i = 0; i < kPixels; ++i)
      for (int c = 0; c < kChannels; ++c) store(to + (i * channels + c) * kLaneCount, sums[i][c]);
  }

  template <int kChannels>
  inline void run(int64_t first) const {
    int64_t p = 0;
    for (; p + kPixelGroup <= pixels; p += kPixelGroup) pixel_group<kChannels, kPixelGroup>(first, p);
    for (; p < pixels; ++p) pixel_group<kChannels, 1>(first, p);
  }
};

template <class A>
struct ForwardScratch {
  A *weights, *biases, *maps, *out, *base, *deltas, *features;

  F2D_MEMBER ForwardScratch(const HeadArgs& a, A* p) {
    const int64_t n = a.block_pixels();
    weights = p, p += a.experts * a.channels * a.row_size();
    biases = p, p += a.padded_experts() * a.channels;
    maps = p, p += a.experts * n;
    out = p, p += a.channels * n;
    base = p, p += a.channels * n;
    deltas = p, p += a.delta_size();
    features = p;
  }
};

template <class A, class T>
inline void project_planes(const HeadArgs& a, const Stream& s, const Block& block, bool direct, const A* weights,
                           const ForwardScratch<A>& w) {
  const int64_t n = round_up(block.pixels);
  for (int64_t f = 0; f < a.features; f += kPlaneGroup) {
    const int64_t count = smaller(kPlaneGroup, a.features - f);
    const T* planes[kPlaneGroup];
    for (int64_t j = 0; j < count; ++j) {
      const Block plane{block.b, f + j, 1, block.pixel, block.pixels};
      if (direct) {
        planes[j] = first<T>(s, plane) + block.pixel;
      } else {
        A* buffer = w.features + j * n;
        planes[j] = reinterpret_cast<const T*>(read_lanes(s, plane, buffer));
      }
    }
    if (count == kPlaneGroup) {
      each_channel_group(a.channels, ProjectPlanes<kPlaneGroup, A, T>{planes, weights + f, a.row_size(), w.deltas, n});
      continue;
    }
    for (int64_t j = 0; j < count; ++j)
      each_channel_group(a.channels, ProjectPlanes<1, A, T>{planes + j, weights + f + j, a.row_size(), w.deltas, n});
  }
}

// out[c][i] of one block of planes: adds the deltas of one expert after another, each with its weight.
template <class A>
inline void forward_planes(const HeadArgs& a, const ForwardScratch<A>& w, const Block& block) {
  const int64_t n = round_up(block.pixels), row_size = a.row_size();
  for (int64_t c = 0; c < a.channels; ++c) {
    const Block plane{block.b, c, 1, block.pixel, block.pixels};
    A* out = w.out + c * n;
    const A* from = a.base.data ? read(a.base, plane, out) : nullptr;
    for (int64_t i = 0; from != out && i < block.pixels; ++i) out[i] = from ? from[i] : A(0);
  }
  for (int64_t k = 0; k < a.experts; ++k) {
    const A* weights = w.weights + k * a.channels * row_size;
    for (int64_t c = 0; c < a.channels; ++c)
      for (int64_t i = 0; i < n; ++i) w.deltas[c * n + i] = weights[c * row_size];
    const Stream& s = a.feature_streams[k];
    if (in_place(a, s, DType::bf16, block.pixels)) {
      project_planes<A, bf16>(a, s, block, true, weights + kLaneCount, w);
    } else {
      const bool direct = in_place(a, s, dtype_of<A>(), block.pixels);
      project_planes<A, A>(a, s, block, direct, weights + kLaneCount, w);
    }
    const A* pixel_weights = w.maps + k * n;
    for (int64_t c = 0; c < a.channels; ++c) {
      A* out = w.out + c * n;
      const A* delta = w.deltas + c * n;
#pragma omp simd
      for (int64_t i = 0; i < n; ++i) out[i] = head_add(out[i], pixel_weights[i], delta[i]);
    }
  }
  for (int64_t c = 0; c < a.channels; ++c)
    write(a.image, Block{block.b, c, 1, block.pixel, block.pixels}, w.out + c * n);
}

// Adds experts [first_expert, + count) to the partial sums of a group of pixels.
template <class T, class A>
inline void project_pixels(const HeadArgs& a, int64_t first_expert, int64_t count, const Block& pixels, bool direct,
                           const A* gated, const ForwardScratch<A>& w) {
  PixelExperts<A, T> experts{{}, {}, count, w.weights + first_expert * a.channels * a.row_size(),
                             w.biases + first_expert * a.channels, gated};
  const int64_t padded = a.padded_features(), size = kLaneCount * padded;
  for (int64_t k = 0; k < count; ++k) {
    const Stream& s = a.feature_streams[first_expert + k];
    experts.steps[k] = direct ? s.w : padded;
    experts.features[k] = direct ? first<T>(s, pixels) + pixels.pixel * s.w
                                 : reinterpret_cast<const T*>(read_rows(a, s, pixels, w.features + k * size));
  }
  each_channel_group(a.channels, ProjectPixels<A, T>{experts, pixels.pixels, a.channels, padded, a.row_size(), w.deltas,
                                                     first_expert > 0});
}

// out[p][c] of one block, pixel by pixel, 16 pixels and 16 experts at a time.
template <class A>
inline void forward_pixels(const HeadArgs& a, const ForwardScratch<A>& w, const Block& block) {
  const int64_t n = round_up(block.pixels);
  for (int64_t done = 0; done < block.pixels; done += kLaneCount) {
    const Block pixels{block.b, 0, 1, block.pixel + done, smaller(kLaneCount, block.pixels - done)};
    for (int64_t k = 0; k < a.experts; k += kLaneCount) {
      const int64_t count = smaller(kLaneCount, a.experts - k);
      A gated[kLaneCount * kLaneCount] = {};
      for (int64_t j = 0; j < count; ++j)
        for (int64_t p = 0; p < pixels.pixels; ++p) gated[p * kLaneCount + j] = w.maps[(k + j) * n + done + p];
      const auto all_in_place = [&](DType type) {
        for (int64_t j = 0; j < count; ++j)
          if (!in_place(a, a.feature_streams[k + j], type, pixels.pixels)) return false;
        return true;
      };
      if (all_in_place(DType::bf16)) {
        project_pixels<bf16>(a, k, count, pixels, true, gated, w);
      } else {
        project_pixels<A>(a, k, count, pixels, all_in_place(dtype_of<A>()), gated, w);
      }
    }
    const int64_t sums = round_up(pixels.pixels) * a.channels;
    for (int64_t i = 0; i < sums; i += kLaneCount)
      store(w.out + done * a.channels + i, sum_rows(w.deltas + i * kLaneCount));
  }
  const Block image{block.b, 0, a.channels, block.pixel, block.pixels};
  if (a.base.data) {
    const A* base = read(a.base, image, w.base);
#pragma omp simd
    for (int64_t i = 0; i < image.size(); ++i) w.out[i] += base[i];
  }
  write(a.image, image, w.out);
}

// [k / 16][c][k % 16]: biases, which the 16 weights of a pixel multiply.
template <class A>
inline void lane_biases(const HeadArgs& a, const A* weights, A* biases) {
  for (int64_t i = 0; i < a.padded_experts() * a.channels; ++i) biases[i] = A(0);
  for (int64_t k = 0; k < a.experts; ++k)
    for (int64_t c = 0; c < a.channels; ++c, weights += a.row_size())
      biases[(k / kLaneCount * a.channels + c) * kLaneCount + k % kLaneCount] = weights[0];
}

// Task: one tile of one sample.
template <class A>
void forward(const HeadArgs& a, A* scratch, int64_t begin, int64_t end) {
  const ForwardScratch<A> w(a, scratch);
  const int64_t tiles = a.tiles();
  int64_t prepared = -1;
  for (int64_t task = begin; task < end; ++task) {
    const int64_t b = task / tiles, tile = task % tiles * kTilePixels;
    const int64_t tile_end = smaller(tile + kTilePixels, a.pixels());
    if (prepared != b) {
      sample_weights(a, prepared = b, w.weights);
      lane_biases(a, w.weights, w.biases);
    }
    for (int64_t pixel = tile, n; pixel < tile_end; pixel += n) {
      n = block_length(a, pixel, tile_end);
      const Block block{b, 0, 1, pixel, n};
      for (int64_t k = 0; k < a.experts; ++k) {
        A* weights = w.maps + k * round_up(n);
        gate_map(static_cast<A>(a.gates.at(b, k, 0)), read_map(a, k, block, weights), round_up(n), weights);
      }
      if (a.pixel_major) {
        forward_pixels(a, w, block);
      } else {
        forward_planes(a, w, block);
      }
    }
  }
}

}  // namespace

F2D_DEFINE_KERNEL(expert_head, HeadArgs, forward)

}  // namespace f2d
