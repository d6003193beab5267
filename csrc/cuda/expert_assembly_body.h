// The work of one thread in the expert assembly's CUDA kernels, for host and device.
#pragma once

#include "experts.h"

namespace f2d {

// The gradients of up to kRoom listed experts.
template <int kRoom>
struct ExpertGradients {
  View d_maps;
  View d_deltas[kRoom];
  void* gate_parts;  // [b][k][c or 1][tile]
};

struct AssemblyArgs : Experts, ExpertGradients<kMaxListed> {
  bool channels_inside;
  int64_t splits;  // backward: warps that share the experts of a tile
  View image;      // out or grad
};

template <class Pixels>
F2D_FN void assembly_forward_pixels(const AssemblyArgs& a, typename Pixels::Index warp, int lane) {
  using Index = typename Pixels::Index;
  const Index units = Part<Index>::units(a), b = quotient(warp, units);
  const Part<Index> part(a, b, warp - b * units);
  const Pixels pixels(a.shape, part.tile, lane);
  const Weights<Pixels> weights(a, pixels, b, 0, static_cast<Index>(a.experts));
  for (Index c = part.c; c < part.end; c += Pixels::kChannels) {
    float sum[Pixels::kChannels][Pixels::kCount];
    assemble(a, pixels, b, c, weights, sum);
    pixels.write(a.image, place<Index>(a.image, b, 0, c), sum);
  }
}

// Forward, channels_last with any number of channels, dense and aligned: neighbours in memory span a few pixels.
template <class Access>
F2D_FN void assembly_forward_interleaved(const AssemblyArgs& a, typename Access::Index index) {
  using Index = typename Access::Index;
  constexpr int kCount = Access::kVector;
  const Index channels = static_cast<Index>(a.shape.channels);
  const Index vectors = quotient(static_cast<Index>(a.shape.pixels() * a.shape.channels), Index(kCount));
  const Index b = quotient(index, vectors), first = (index - b * vectors) * kCount;
  const Index first_pixel = quotient(first, channels), first_channel = first - first_pixel * channels;
  float sum[kCount] = {};
  if (a.base.data) unpack<Access>(load_raw<Access>(a.base, place<Index>(a.base, b, 0, 0) + first), a.base.dtype, sum);
  for (Index k = 0; k < a.experts; ++k) {
    const View& view = a.delta(k);
    const Raw raw = load_raw<Access>(view, place<Index>(view, b, k, 0) + first);
    Index pixel = first_pixel, c = first_channel;
    const Index map_at = place<Index>(a.maps, b, k, 0);
    float gate = gate_at<float>(a, b, k, c);
    float map = a.maps.data ? load_one<float>(a.maps, map_at + pixel) : 1.0f;
    float delta[kCount];
    unpack<Access>(raw, view.dtype, delta);
    F2D_UNROLL
    for (int i = 0; i < kCount; ++i) {
      sum[i] = assembly_add(sum[i], a.maps.data ? assembly_weight(gate, map) : gate, delta[i]);
      if (i + 1 == kCount) break;
      if (++c == channels) {
        c = 0;
        ++pixel;
        if (a.maps.data) map = load_one<float>(a.maps, map_at + pixel);
      }
      if (a.channel_gates) gate = gate_at<float>(a, b, k, c);
    }
  }
  store_vector<Access>(a.image, place<Index>(a.image, b, 0, 0) + first, sum);
}

// Forward, any strides and dtypes: one element per thread, neighbours in `image` next to each other.
template <class A>
F2D_FN void assembly_forward_element(const AssemblyArgs& a, int64_t index) {
  const int64_t C = a.shape.channels, pixels = a.shape.pixels();
  const int64_t b = quotient(index, C * pixels), rest = index - b * C * pixels;
  const int64_t major = quotient(rest, a.channels_inside ? C : pixels);
  const int64_t minor = rest - major * (a.channels_inside ? C : pixels);
  const int64_t c = a.channels_inside ? minor : major, pixel = a.channels_inside ? major : minor;
  const int64_t y = quotient(pixel, a.shape.width), x = pixel - y * a.shape.width;
  const View& v = a.image;
  store_one(v, b * v.b + c * v.c + y * v.h + x * v.w, assemble_element<A>(a, b, c, y, x));
}

template <class Args>
F2D_FN int64_t gate_part(const Args& a, int64_t b, int64_t k, int64_t c, int64_t tile) {
  return ((b * a.experts + k) * (a.channel_gates ? a.shape.channels : 1) + c) * a.tiles + tile;
}

// The source of the gradient of the assembled image in the backward pass: here, a tensor.
template <class Pixels>
struct GivenGradient {
  static constexpr bool kReadsDeltas = false;
  const AssemblyArgs& a;
  typename Pixels::Index b;

  template <class Deltas, class Maps, class Gates, class Value>
  F2D_MEMBER void operator()(const Pixels& pixels, typename Pixels::Index c, const Deltas&, const Maps&, const Gates&,
                             Value& grad) const {
    pixels.decode(pixels.fetch(a.image, place<typename Pixels::Index>(a.image, b, 0, c)), a.image, grad);
  }
};

// Backward for the experts from k to end - 1, a group at most, channel by channel: one pass over their deltas and what
// `gradient` reads. `reduce(value, slot)` sums value over the warp and stores it; every lane of the warp calls it.
template <class Args, class Pixels, class Gradient, class Reduce>
F2D_FN void assembly_backward_experts(const Args& a, typename Pixels::Index b, typename Pixels::Index tile,
                                      const Pixels& pixels, typename Pixels::Index k, typename Pixels::Index end,
                                      Gradient& gradient, Reduce reduce) {
  using A = typename Pixels::Value;
  using Index = typename Pixels::Index;
  constexpr int kCount = Pixels::kCount, kChannels = Pixels::kChannels;
  const bool correlate = a.d_maps.data || a.gate_parts;
  A map[kGroup][kCount], s[kGroup][kCount];
  const Weights<Pixels> weights(a, pixels, b, k, end);
  F2D_UNROLL
  for (int j = 0; j < kGroup; ++j) {
    if (a.maps.data) pixels.decode_plane(weights.map[j], a.maps, map[j]);
    F2D_UNROLL
    for (int p = 0; p < kCount; ++p) {
      s[j][p] = A(0);
      if (!a.maps.data) map[j][p] = A(1);
    }
  }
  for (Index c = 0; c < a.shape.channels; c += kChannels) {
    typename Pixels::Fetched deltas[kGroup] = {};
    A grad[kChannels][kCount], gate[kGroup][kChannels];
    F2D_UNROLL
    for (int j = 0; j < kGroup; ++j) {
      if (k + j >= end) continue;
      const View& v = a.delta(k + j);
      if (correlate || Gradient::kReadsDeltas) deltas[j] = pixels.fetch(v, place<Index>(v, b, k + j, c));
      F2D_UNROLL
      for (int i = 0; i < kChannels; ++i)
        gate[j][i] = a.channel_gates ? gate_at<A>(a, b, k + j, c + i) : weights.gate[j];
    }
    gradient(pixels, c, deltas, map, gate, grad);
    F2D_UNROLL
    for (int j = 0; j < kGroup; ++j) {
      if (k + j >= end) continue;
      const View& d = a.d_deltas[a.listed ? k + j : 0];
      A delta[kChannels][kCount];
      if (d.data) {
        F2D_UNROLL
        for (int i = 0; i < kChannels; ++i) {
          F2D_UNROLL
          for (int p = 0; p < kCount; ++p)
            delta[i][p] = assembly_delta_gradient(assembly_weight(gate[j][i], map[j][p]), grad[i][p]);
        }
        pixels.write(d, place<Index>(d, b, k + j, c), delta);
      }
      if (!correlate) continue;
      pixels.decode(deltas[j], a.delta(k + j), delta);
      F2D_UNROLL
      for (int i = 0; i < kChannels; ++i) {
        A sum = A(0);
        F2D_UNROLL
        for (int p = 0; p < kCount; ++p) {
          if (!a.channel_gates) {
            s[j][p] = assembly_correlate(s[j][p], delta[i][p], grad[i][p]);
            continue;
          }
          const A product = delta[i][p] * grad[i][p];
          s[j][p] = assembly_correlate_gated(s[j][p], product, gate[j][i]);
          sum = fma(map[j][p], product, sum);
        }
        if (a.channel_gates && a.gate_parts) reduce(sum, gate_part(a, b, k + j, c + i, tile));
      }
    }
  }
  if (!correlate) return;
  F2D_UNROLL
  for (int j = 0; j < kGroup; ++j) {
    if (k + j >= end) continue;
    A sum = A(0);
    F2D_UNROLL
    for (int p = 0; p < kCount; ++p) {
      sum = fma(map[j][p], s[j][p], sum);
      s[j][p] = weights.gate[j] * s[j][p];  // 1 where gates are per channel
    }
    if (!a.channel_gates && a.gate_parts) reduce(sum, gate_part(a, b, k + j, 0, tile));
    if (a.d_maps.data) pixels.write_plane(a.d_maps, place<Index>(a.d_maps, b, k + j, 0), s[j]);
  }
}

template <class Pixels, class Reduce>
F2D_FN void assembly_backward_lane(const AssemblyArgs& a, typename Pixels::Index warp, int lane, Reduce reduce) {
  using Index = typename Pixels::Index;
  const Index splits = static_cast<Index>(a.splits), tiles = static_cast<Index>(a.tiles);
  const Index unit = quotient(warp, splits), split = warp - unit * splits;
  const Index b = quotient(unit, tiles), tile = unit - b * tiles, experts = static_cast<Index>(a.experts);
  const Pixels pixels(a.shape, tile, lane);
  GivenGradient<Pixels> grad{a, b};
  Index k = quotient(split * experts, splits);
  const Index end = quotient((split + 1) * experts, splits);
  F2D_ROLLED
  for (; k < end; k += kGroup)
    assembly_backward_experts(a, b, tile, pixels, k, end < k + kGroup ? end : k + kGroup, grad, reduce);
}

// d_deltas shared by the batch: one element [k, c, pixel] per thread, samples in order.
template <class A>
F2D_FN void assembly_shared_delta_element(const AssemblyArgs& a, int64_t index) {
  const int64_t pixels = a.shape.pixels(), plane = quotient(index, pixels), pixel = index - plane * pixels;
  const int64_t k = quotient(plane, a.shape.channels), c = plane - k * a.shape.channels;
  const int64_t y = quotient(pixel, a.shape.width), x = pixel - y * a.shape.width;
  A sum = A(0);
  for (int64_t b = 0; b < a.shape.batch; ++b) {
    const A gate = gate_at<A>(a, b, k, c);
    const A map = a.maps.data ? load_one<A>(a.maps, b * a.maps.b + k * a.maps.k + y * a.maps.h + x * a.maps.w) : A(1);
    const A grad = load_one<A>(a.image, b * a.image.b + c * a.image.c + y * a.image.h + x * a.image.w);
    sum = fma(assembly_weight(gate, map), grad, sum);
  }
  const View& d = a.d_deltas[0];
  store_one(d, k * d.k + c * d.c + y * d.h + x * d.w, sum);
}

}  // namespace f2d
