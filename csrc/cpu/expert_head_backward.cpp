// The expert head's backward kernel for one instruction set: one pass over grad and features.
#include "expert_head_blocks.h"

namespace f2d {
namespace {

#if defined(__AVX512F__)
constexpr int kPlanes = kBackwardPlanes;  // features per pass over a block of planes, whose moments fill the registers
#else
constexpr int kPlanes = kBackwardPlanes / 2;
#endif

template <class A>
struct BackwardScratch {
  A *weights, *grads, *map, *gated, *s, *s_lanes, *q, *rows, *zeros, *features, *d_features;

  F2D_MEMBER BackwardScratch(const HeadArgs& a, A* p) {
    const int64_t n = a.block_pixels();
    weights = p, p += a.experts * a.channels * a.row_size();
    grads = p, p += a.channels * n;
    map = p, p += n;
    gated = p, p += n;
    s = p, p += n;
    s_lanes = p, p += n * kLaneCount;
    q = p, p += n * kLaneCount;
    rows = p, p += kLaneCount * kLaneCount;
    zeros = p, p += a.zero_size();
    features = p, p += a.feature_size();
    d_features = p;
  }
};

// One block of one expert: its features, their gradients, and their weights.
template <class A>
struct Piece {
  int64_t pixels, row_size, grad_step;
  const A *weights, *grads, *map, *gated;  // weights: rows of one sample and expert; gated = gate * map
  double* moments;                         // [c][F + 1], or null
  int64_t moment_step;
};

// kCount features in planes, registers of 16 pixels: q over all channels, while each channel's moment grows by
// grad * map * x; then d = gated * q and s += x * q.
template <int kCount, class A, class T>
struct PlanesBack {
  const Piece<A>& piece;
  const BackwardScratch<A>& w;
  const T* const* features;
  T* const* d_features;
  int64_t feature, channels;

  template <int kChannels>
  inline void run(int64_t first) const {
    const int64_t n = piece.pixels;
    const A* grads = piece.grads + first * piece.grad_step;
    const A* weights = piece.weights + first * piece.row_size + kLaneCount + feature;
    const bool begins = first == 0, ends = first + kChannels == channels;
    Lanes<A> moments[kCount][kChannels];
    for (int f = 0; f < kCount; ++f)
      for (int c = 0; c < kChannels; ++c) fill(A(0), moments[f][c]);
    for (int64_t i = 0; i < n; i += kLaneCount) {
      const Lanes<A> map = loaded_lanes<A>(piece.map + i);
      Lanes<A> q[kCount], masked[kCount];
      for (int f = 0; f < kCount; ++f) {
        q[f] = begins ? all_lanes(A(0)) : loaded_lanes<A>(w.q + f * n + i);
        masked[f] = map * loaded_lanes<A>(features[f] + i);
      }
      for (int c = 0; c < kChannels; ++c) {
        const Lanes<A> grad = loaded_lanes<A>(grads + c * piece.grad_step + i);
        for (int f = 0; f < kCount; ++f) {
          q[f] = head_project_back(q[f], all_lanes(weights[c * piece.row_size + f]), grad);
          moments[f][c] = head_moment(moments[f][c], grad, masked[f]);
        }
      }
      if (!ends) {
        for (int f = 0; f < kCount; ++f) store(w.q + f * n + i, q[f]);
        continue;
      }
      const Lanes<A> gated = loaded_lanes<A>(piece.gated + i);
      Lanes<A> s = loaded_lanes<A>(w.s + i);
      for (int f = 0; f < kCount; ++f) {
        s = head_correlate(s, loaded_lanes<A>(features[f] + i), q[f]);
        store(d_features[f] + i, gated * q[f]);
      }
      store(w.s + i, s);
    }
    if (!piece.moments) return;
    for (int f = 0; f < kCount; ++f)
      for (int c = 0; c < kChannels; ++c) store(w.rows + (f * kChannels + c) * kLaneCount, moments[f][c]);
    A sums[kLaneCount];
    store(sums, sum_rows(w.rows));
    for (int f = 0; f < kCount; ++f)
      for (int c = 0; c < kChannels; ++c)
        piece.moments[(first + c) * piece.moment_step + feature + f] += static_cast<double>(sums[f * kChannels + c]);
  }
};

template <class A, class T>
inline void planes_back(const HeadArgs& a, int64_t k, const Block& block, const Piece<A>& piece, bool direct,
                        const BackwardScratch<A>& w) {
  const int64_t n = piece.pixels;
  for (int64_t f = 0; f < a.features; f += kPlanes) {
    const int64_t count = smaller(kPlanes, a.features - f);
    const T* features[kPlanes];
    T* d_features[kPlanes];
    for (int64_t j = 0; j < count; ++j) {
      const Block plane{block.b, f + j, 1, block.pixel, block.pixels};
      features[j] = reinterpret_cast<const T*>(w.zeros);
      d_features[j] = reinterpret_cast<T*>(w.d_features + j * n);
      if (direct) {
        if (a.correlates) features[j] = first<T>(a.feature_streams[k], plane) + block.pixel;
        if (a.d_features) d_features[j] = first<T>(a.d_features[k], plane) + block.pixel;
      } else if (a.correlates) {
        features[j] = reinterpret_cast<const T*>(read_lanes(a.feature_streams[k], plane, w.features + j * n));
      }
    }
    if (count == kPlanes) {
      each_channel_group(a.channels, PlanesBack<kPlanes, A, T>{piece, w, features, d_features, f, a.channels});
    } else {
      for (int64_t j = 0; j < count; ++j)
        each_channel_group(a.channels, PlanesBack<1, A, T>{piece, w, features + j, d_features + j, f + j, a.channels});
    }
    for (int64_t j = 0; a.d_features && !direct && j < count; ++j)
      write(a.d_features[k], Block{block.b, f + j, 1, block.pixel, block.pixels}, w.d_features + j * n);
  }
}

// Registers of 16 features of one pixel; the block's moments of these features stay in registers.
template <class A, class T>
struct PixelsBack {
  const Piece<A>& piece;
  const BackwardScratch<A>& w;
  const T* features;
  T* d_features;
  int64_t step, d_step, feature, feature_count, channels;

  template <int kChannels>
  inline void run(int64_t first) const {
    const A* grads = piece.grads + first * piece.grad_step;
    const A* rows = piece.weights + first * piece.row_size + kLaneCount + feature;
    const bool begins = first == 0, ends = first + kChannels == channels;
    Lanes<A> moments[kChannels], weights[kChannels];
    for (int c = 0; c < kChannels; ++c) {
      fill(A(0), moments[c]);
      load(rows + c * piece.row_size, weights[c]);
    }
    for (int64_t p = 0; p < piece.pixels; ++p) {
      const Lanes<A> x = loaded_lanes<A>(features + p * step), masked = all_lanes(piece.map[p]) * x;
      if (begins) prefetch_to_l2(features + (p + piece.pixels) * step);
      Lanes<A> q = begins ? all_lanes(A(0)) : loaded_lanes<A>(w.q + p * kLaneCount);
      for (int c = 0; c < kChannels; ++c) {
        const Lanes<A> grad = all_lanes(grads[c * piece.grad_step + p]);
        q = head_project_back(q, weights[c], grad);
        moments[c] = head_moment(moments[c], grad, masked);
      }
      if (!ends) {
        store(w.q + p * kLaneCount, q);
        continue;
      }
      A* s = w.s_lanes + p * kLaneCount;
      store(s, head_correlate(loaded_lanes<A>(s), x, q));
      store(d_features + p * d_step, all_lanes(piece.gated[p]) * q);
    }
    if (!piece.moments) return;
    for (int c = 0; c < kChannels; ++c) {
      A sums[kLaneCount];
      store(sums, moments[c]);
      double* to = piece.moments + (first + c) * piece.moment_step + feature;
      for (int64_t f = 0; f < feature_count; ++f) to[f] += static_cast<double>(sums[f]);
    }
  }
};

template <class A, class T>
inline void pixels_back(const HeadArgs& a, int64_t k, const Block& block, const Piece<A>& piece, bool direct,
                        const BackwardScratch<A>& w) {
  const int64_t padded = a.padded_features(), n = block.pixels;
  const T* features = reinterpret_cast<const T*>(w.zeros);
  T* d_features = reinterpret_cast<T*>(w.d_features);
  int64_t step = 0, d_step = padded;
  if (a.correlates) {
    const Stream& s = a.feature_streams[k];
    features = direct ? first<T>(s, block) + block.pixel * s.w
                      : reinterpret_cast<const T*>(read_rows(a, s, block, w.features));
    step = direct ? s.w : padded;
  }
  if (direct && a.d_features) {
    d_step = a.d_features[k].w;
    d_features = first<T>(a.d_features[k], block) + block.pixel * d_step;
  }
  for (int64_t i = 0; i < round_up(n) * kLaneCount; ++i) w.s_lanes[i] = A(0);
  for (int64_t f = 0; f < padded; f += kLaneCount)
    each_channel_group(a.channels,
                       PixelsBack<A, T>{piece, w, features + (a.correlates ? f : 0), d_features + f, step, d_step, f,
                                        smaller(kLaneCount, a.features - f), a.channels});
  for (int64_t p = 0; p < n; p += kLaneCount) store(w.s + p, sum_rows(w.s_lanes + p * kLaneCount));
  if (direct || !a.d_features) return;
  for (int64_t p = 0; p < n; ++p)  // removes the padding of the rows in place; writing never overtakes reading
    for (int64_t f = 0; f < a.features; ++f) w.d_features[p * a.features + f] = w.d_features[p * padded + f];
  write(a.d_features[k], Block{block.b, 0, a.features, block.pixel, n}, w.d_features);
}

// The terms of the bias in s and in the moments, and the gradient of the map.
template <class A>
inline void finish_block(const HeadArgs& a, int64_t b, int64_t k, const Block& block, const Piece<A>& piece,
                         const BackwardScratch<A>& w) {
  const int64_t n = round_up(block.pixels);
  for (int64_t c = 0; c < a.channels; ++c) {
    const A* grads = piece.grads + c * piece.grad_step;
    const Lanes<A> bias = all_lanes(piece.weights[c * piece.row_size]);
    Lanes<A> moment = all_lanes(A(0));
    for (int64_t i = 0; i < n; i += kLaneCount) {
      const Lanes<A> grad = loaded_lanes<A>(grads + i);
      store(w.s + i, head_correlate(loaded_lanes<A>(w.s + i), bias, grad));
      moment = head_moment(moment, grad, loaded_lanes<A>(piece.map + i));
    }
    A lanes[kLaneCount];
    store(lanes, moment);
    if (piece.moments) piece.moments[c * piece.moment_step + a.features] += static_cast<double>(sum_lanes(lanes));
  }
  if (!a.d_maps) return;
  gate_map(static_cast<A>(a.gates.at(b, k, 0)), w.s, n, w.s);
  write(a.d_maps[k], block, w.s);
}

template <class A>
inline void backward_block(const HeadArgs& a, int64_t b, int64_t tile, const Block& block,
                           const BackwardScratch<A>& w) {
  const int64_t n = round_up(block.pixels);
  for (int64_t c = 0; c < a.channels; ++c) {
    const Block plane{b, c, 1, block.pixel, block.pixels};
    A* grads = w.grads + c * n;
    const A* from = read_lanes(a.image, plane, grads);
    for (int64_t i = 0; from != grads && i < n; ++i) grads[i] = from[i];
  }
  for (int64_t k = 0; k < a.experts; ++k) {
    const A* map = read_map(a, k, block, w.map);
    gate_map(static_cast<A>(a.gates.at(b, k, 0)), map, n, w.gated);
    for (int64_t i = 0; i < n; ++i) w.s[i] = A(0);
    double* moments = a.moments ? a.moments + ((tile * a.batch + b) * a.experts + k) * a.moment_count() : nullptr;
    const Piece<A> piece{a.pixel_major ? block.pixels : n, a.row_size(), n,
                         w.weights + k * a.channels * a.row_size(), w.grads, map, w.gated, moments, a.features + 1};
    const auto both = [&](DType type) {
      return (!a.correlates || in_place(a, a.feature_streams[k], type, block.pixels)) &&
             (!a.d_features || in_place(a, a.d_features[k], type, block.pixels));
    };
    if (both(DType::bf16)) {
      if (a.pixel_major) pixels_back<A, bf16>(a, k, block, piece, true, w);
      else planes_back<A, bf16>(a, k, block, piece, true, w);
    } else {
      if (a.pixel_major) pixels_back<A, A>(a, k, block, piece, both(dtype_of<A>()), w);
      else planes_back<A, A>(a, k, block, piece, both(dtype_of<A>()), w);
    }
    finish_block(a, b, k, block, piece, w);
  }
}

// Task: one tile of one sample.
template <class A>
void backward(const HeadArgs& a, A* scratch, int64_t begin, int64_t end) {
  const BackwardScratch<A> w(a, scratch);
  for (int64_t i = 0; i < a.zero_size(); ++i) w.zeros[i] = A(0);
  const int64_t tiles = a.tiles();
  int64_t prepared = -1;
  for (int64_t task = begin; task < end; ++task) {
    const int64_t b = task / tiles, tile = task % tiles;
    const int64_t tile_end = smaller((tile + 1) * kTilePixels, a.pixels());
    if (prepared != b) sample_weights(a, prepared = b, w.weights);
    for (int64_t pixel = tile * kTilePixels, n; pixel < tile_end; pixel += n) {
      n = block_length(a, pixel, tile_end);
      backward_block(a, b, tile, Block{b, 0, 1, pixel, n}, w);
    }
  }
}

}  // namespace

F2D_DEFINE_KERNEL(expert_head_backward, HeadArgs, backward)

}  // namespace f2d
