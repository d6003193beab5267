// The expert assembly over dense tensors of one layout, sixteen elements at a time, with all streams in step
// (experts.h).
#pragma once

#include "experts.h"

namespace f2d {
namespace {

// One sample of all streams that a walk reads, in registers.
template <class K>
struct Sample {
  Plane<typename K::T> image, base, deltas[K::kRoom], d_deltas[K::kRoom];
  Plane<typename K::M> maps[K::kRoom], d_maps[K::kRoom];
  float gates[K::kRoom];  // 1 if gates are per channel, which multiply later
  Plane<float> wide_image;  // backward, if the gradient is float32 and the deltas have 16 bits
  bool has_base, has_maps, has_d_deltas, has_d_maps, channel_gates, sums_gates, is_wide;
  int64_t channels, experts;

  F2D_MEMBER Sample(const AssemblyArgs& a, int64_t b)
      : image(a.image, b), base(a.base, b), has_base(a.base.data), has_maps(a.maps), has_d_deltas(a.d_deltas),
        has_d_maps(a.d_maps), channel_gates(a.channel_gates), sums_gates(a.gate_parts),
        is_wide(a.image.dtype != a.deltas[0].dtype), channels(a.walk.channels),
        experts(K::kExperts ? K::kExperts : a.experts) {
    if (is_wide) wide_image = {a.image, b};
    for (int64_t k = 0; k < experts; ++k) {
      deltas[k] = {a.deltas[k], b};
      if (a.maps) maps[k] = {a.maps[k], b};
      if (a.d_deltas) d_deltas[k] = {a.d_deltas[k], b};
      if (a.d_maps) d_maps[k] = {a.d_maps[k], b};
      gates[k] = a.channel_gates ? 1.0f : static_cast<float>(a.gates.at(b, k, 0));
    }
  }

  // Sixteen elements of the gradient, starting at `at`.
  F2D_MEMBER Wide gradient(int64_t at) const {
    if (is_wide) return load(wide_image.data + at);
    return load(image.data + at);
  }
};

// Planes: pixels [pixel, end) of the channels [channel, channels). The channels of a pixel are processed together, so
// that its experts' weights are computed once. gates: [k][c], read if they are per channel.
template <class K>
inline void planar_forward(const AssemblyArgs& a, int64_t b, int64_t pixel, int64_t end, int64_t channel,
                           int64_t channels, const float* gates) {
  using T = typename K::T;
  constexpr int kParts = kLineBytes / sizeof(T) / kWide;
  const Sample<K> s(a, b);
  for (; pixel < end; pixel += kParts * kWide) {
    Wide weights[K::kRoom][kParts];
    for (int64_t k = 0; k < s.experts; ++k) {
      const Wide gate = broadcast(s.gates[k]);
      const auto* map = s.maps[k].data + pixel;
      if (s.has_maps) prefetch_ahead(map);
      for (int i = 0; i < kParts; ++i) weights[k][i] = s.has_maps ? gate * load(map + i * kWide) : gate;
    }
    for (int64_t c = channel; c < channels; ++c) {
      Wide sum[kParts];
      const T* base = s.base.data + c * s.base.c + pixel;
      if (s.has_base) prefetch_ahead(base);
      for (int i = 0; i < kParts; ++i) sum[i] = s.has_base ? load(base + i * kWide) : broadcast(0.0f);
      for (int64_t k = 0; k < s.experts; ++k) {
        const T* delta = s.deltas[k].data + c * s.deltas[k].c + pixel;
        prefetch_ahead(delta);
        for (int i = 0; i < kParts; ++i) {
          const Wide weight = s.channel_gates ? broadcast(gates[k * s.channels + c]) * weights[k][i] : weights[k][i];
          sum[i] = multiply_add(weight, load(delta + i * kWide), sum[i]);
        }
      }
      T* out = s.image.data + c * s.image.c + pixel;
      for (int i = 0; i < kParts; ++i) put<K::kPastCache>(out + i * kWide, sum[i]);
    }
  }
}

// Channels inside pixels: pixels [pixel, end) in groups of sixteen. index, gates: see lay_out_pixels.
template <class K>
inline void interleaved_forward(const AssemblyArgs& a, int64_t b, int64_t pixel, int64_t end, const int32_t* index,
                                const float* gates) {
  const Sample<K> s(a, b);
  const int64_t size = kWide * s.channels;
  for (; pixel < end; pixel += kWide) {
    Wide weights[K::kRoom];
    for (int64_t k = 0; k < s.experts; ++k)
      weights[k] = s.has_maps ? broadcast(s.gates[k]) * load(s.maps[k].data + pixel) : broadcast(s.gates[k]);
    for (int64_t i = 0, at = pixel * s.channels; i < size; i += kWide, at += kWide) {
      Wide sum = s.has_base ? load(s.base.data + at) : broadcast(0.0f);
      for (int64_t k = 0; k < s.experts; ++k) {
        prefetch_ahead(s.deltas[k].data + at);
        Wide weight = s.has_maps ? select(weights[k], index + i) : weights[k];
        if (s.channel_gates) weight = load(gates + k * size + i) * weight;
        sum = multiply_add(weight, load(s.deltas[k].data + at), sum);
      }
      put<K::kPastCache>(s.image.data + at, sum);
    }
  }
}

// Planes: pixels [pixel, end) of the channels [channel, channels). gates: [k][c]. lanes: sixteen per expert, or per
// expert and channel. sums: s of the earlier channels, [pixel / sixteen][k][sixteen].
template <class K>
inline void planar_backward(const AssemblyArgs& a, int64_t b, int64_t pixel, int64_t end, int64_t channel,
                            int64_t channels, const float* gates, double* lanes, float* sums) {
  using T = typename K::T;
  constexpr int kParts = kLineBytes / sizeof(T) / kWide;
  const Sample<K> sample(a, b);
  const bool correlate = sample.has_d_maps || sample.sums_gates, last = channels == sample.channels;
  for (; pixel < end; pixel += kParts * kWide, sums += sample.experts * kParts * kWide) {
    Wide maps[K::kRoom][kParts], s[K::kRoom][kParts];
    for (int64_t k = 0; k < sample.experts; ++k)
      for (int i = 0; i < kParts; ++i) {
        maps[k][i] = sample.has_maps ? load(sample.maps[k].data + pixel + i * kWide) : broadcast(1.0f);
        s[k][i] = channel ? load(sums + (k * kParts + i) * kWide) : broadcast(0.0f);
      }
    for (int64_t c = channel; c < channels; ++c) {
      Wide grad[kParts];
      const int64_t from = c * sample.image.c + pixel;
      if (!sample.is_wide) prefetch_ahead(sample.image.data + from);
      for (int i = 0; i < kParts; ++i) grad[i] = sample.gradient(from + i * kWide);
      for (int64_t k = 0; k < sample.experts; ++k) {
        const Wide gate = broadcast(gates[k * sample.channels + c]);
        T* out = sample.d_deltas[k].data + c * sample.d_deltas[k].c + pixel;
        for (int i = 0; sample.has_d_deltas && i < kParts; ++i)
          put<K::kPastCache>(out + i * kWide, (gate * maps[k][i]) * grad[i]);
        if (!correlate) continue;
        const T* delta = sample.deltas[k].data + c * sample.deltas[k].c + pixel;
        prefetch_ahead(delta);
        for (int i = 0; i < kParts; ++i) {
          const Wide value = load(delta + i * kWide);
          if (!sample.channel_gates) {
            s[k][i] = multiply_add(value, grad[i], s[k][i]);
            continue;
          }
          const Wide product = value * grad[i];
          s[k][i] = multiply_add(product, gate, s[k][i]);
          if (sample.sums_gates) add_products(lanes + (k * sample.channels + c) * kLaneCount, maps[k][i], product);
        }
      }
    }
    for (int64_t k = 0; correlate && k < sample.experts; ++k)
      for (int i = 0; i < kParts; ++i) {
        if (!last) {
          store(sums + (k * kParts + i) * kWide, s[k][i]);
          continue;
        }
        if (sample.sums_gates && !sample.channel_gates) add_products(lanes + k * kLaneCount, maps[k][i], s[k][i]);
        if (sample.has_d_maps)
          put<K::kPastCache>(sample.d_maps[k].data + pixel + i * kWide, broadcast(sample.gates[k]) * s[k][i]);
      }
  }
}

// sums[p] = sum_c products[p * channels + c] of sixteen pixels; a few channels in order, more in sixteen lanes.
inline void add_pixels(const float* products, int64_t channels, float* sums) {
  if (channels <= 4) return add_channels(products, sums, kWide, channels);
  for (int p = 0; p < kWide; ++p, products += channels) {
    Wide lanes = load_first(products, channels < kWide ? static_cast<int>(channels) : kWide);
    for (int64_t c = kWide; c < channels; c += kWide)
      lanes = lanes + load_first(products + c, channels - c < kWide ? static_cast<int>(channels - c) : kWide);
    sums[p] = sum(lanes);
  }
}

// Channels inside pixels: pixels [pixel, end) in groups of sixteen. The lanes of a channel's gate are `channels` apart.
// index, gates: see lay_out_pixels. values: two groups.
template <class K>
inline void interleaved_backward(const AssemblyArgs& a, int64_t b, int64_t pixel, int64_t end, const int32_t* index,
                                 const float* gates, float* values, double* lanes) {
  const Sample<K> s(a, b);
  const int64_t size = kWide * s.channels;
  const bool correlate = s.has_d_maps || s.sums_gates, sums_pixels = correlate && (!s.channel_gates || s.has_d_maps);
  float* const grads = values;
  float* const products = values + size;
  for (; pixel < end; pixel += kWide) {
    const int64_t first = pixel * s.channels;
    for (int64_t i = 0; i < size; i += kWide) {
      if (!s.is_wide) prefetch_ahead(s.image.data + first + i);
      store(grads + i, s.gradient(first + i));
    }
    for (int64_t k = 0; k < s.experts; ++k) {
      const Wide map = s.has_maps ? load(s.maps[k].data + pixel) : broadcast(1.0f);
      const Wide scaled = broadcast(s.gates[k]) * map;
      for (int64_t i = 0; i < size; i += kWide) {
        const Wide grad = load(grads + i);
        const float* channel_gates = gates + k * size + i;
        if (s.has_d_deltas) {
          Wide weight = s.has_maps ? select(scaled, index + i) : scaled;
          if (s.channel_gates) weight = load(channel_gates) * weight;
          put<K::kPastCache>(s.d_deltas[k].data + first + i, weight * grad);
        }
        if (!correlate) continue;
        prefetch_ahead(s.deltas[k].data + first + i);
        Wide product = load(s.deltas[k].data + first + i) * grad;
        if (s.channel_gates) {
          if (s.sums_gates) add_products(lanes + k * size + i, select(map, index + i), product);
          product = product * load(channel_gates);
        }
        store(products + i, product);
      }
      if (!sums_pixels) continue;
      float sums[kWide] = {};
      add_pixels(products, s.channels, sums);
      if (s.sums_gates && !s.channel_gates) add_products(lanes + k * kLaneCount, map, load(sums));
      if (s.has_d_maps) put<K::kPastCache>(s.d_maps[k].data + pixel, broadcast(s.gates[k]) * load(sums));
    }
  }
}

}  // namespace
}  // namespace f2d
