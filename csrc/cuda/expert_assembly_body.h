// What one thread does in the expert assembly's CUDA kernels, for host and device.
#pragma once

#include "../expert_assembly.h"
#include "views.h"

namespace f2d {

constexpr int kMaxListed = 32;  // tensors in a list of deltas: what fits the kernel's 4 KiB of parameters
constexpr int kGroup = 4;       // experts whose loads are under way together
constexpr int kBackwardGroup = 4;  // the same in the backward pass, so that the gradient is read once for all of them
constexpr int kWarp = 32;       // lanes; a warp's pixels are one tile of the backward pass

// What is assembled.
struct Experts {
  Shape shape;
  int64_t experts;
  int64_t run;  // forward, vectors of a plane: channels that a thread does one after another, with the same maps
  bool listed;  // deltas[k] are tensors of their own; else deltas[0] holds all, k its stride
  bool channel_gates;
  View gates, maps, base;
  View deltas[kMaxListed];

  F2D_MEMBER const View& delta(int64_t k) const { return deltas[listed ? k : 0]; }
};

// The gradients of up to kRoom listed experts.
template <int kRoom>
struct ExpertGradients {
  int64_t tiles;
  View d_maps;
  View d_deltas[kRoom];
  void* gate_parts;  // [b][k][c or 1][tile]
};

struct AssemblyArgs : Experts, ExpertGradients<kMaxListed> {
  bool channels_inside;
  int64_t splits;  // backward: warps that share the experts of a tile
  View image;      // out or grad
};

template <class A>
F2D_FN A gate_at(const Experts& a, int64_t b, int64_t k, int64_t c) {
  return load_one<A>(a.gates, b * a.gates.b + k * a.gates.k + c * a.gates.c);
}

// The maps of kCount experts from k on at four pixels.
template <int kCount>
F2D_FN void load_maps(const Experts& a, int64_t b, int64_t pixel, int64_t k, Raw maps[kCount]) {
  F2D_UNROLL
  for (int j = 0; j < kCount; ++j)
    if (a.maps.data && k + j < a.experts) maps[j] = load_raw(a.maps, b * a.maps.b + (k + j) * a.maps.k + pixel);
}

// Forward, planes dense and aligned: four pixels of plane (b, c), kCount experts at a time.
template <int kCount>
F2D_FN void add_expert_vectors(const Experts& a, int64_t b, int64_t c, int64_t pixel, int64_t k, const Raw maps[kCount],
                               float sum[kVector]) {
  Raw deltas[kCount];
  F2D_UNROLL
  for (int j = 0; j < kCount; ++j) {
    const View& delta = a.delta(k + j);
    deltas[j] = load_raw(delta, b * delta.b + (k + j) * delta.k + c * delta.c + pixel);
  }
  F2D_UNROLL
  for (int j = 0; j < kCount; ++j) {
    const float gate = gate_at<float>(a, b, k + j, c);
    float delta[kVector], map[kVector];
    unpack(deltas[j], a.delta(k + j).dtype, delta);
    if (a.maps.data) unpack(maps[j], a.maps.dtype, map);
    F2D_UNROLL
    for (int i = 0; i < kVector; ++i)
      sum[i] = assembly_add(sum[i], a.maps.data ? assembly_weight(gate, map[i]) : gate, delta[i]);
  }
}

// base + sum_k gates * maps * deltas of four pixels of plane (b, c); `maps`: those of the first kGroup experts.
F2D_FN void assemble_vector(const Experts& a, int64_t b, int64_t c, int64_t pixel, const Raw maps[kGroup],
                            float sum[kVector]) {
  F2D_UNROLL
  for (int i = 0; i < kVector; ++i) sum[i] = 0.0f;
  if (a.base.data) unpack(load_raw(a.base, b * a.base.b + c * a.base.c + pixel), a.base.dtype, sum);
  if (a.experts == kGroup) return add_expert_vectors<kGroup>(a, b, c, pixel, 0, maps, sum);
  for (int64_t k = 0; k < a.experts; ++k) {
    Raw map[1];
    load_maps<1>(a, b, pixel, k, map);
    add_expert_vectors<1>(a, b, c, pixel, k, map, sum);
  }
}

// Four neighbours of a.run planes, counted run by run.
struct PlaneVector {
  int64_t b, c, end, pixel;  // channels c to end - 1

  F2D_MEMBER PlaneVector(const Experts& a, int64_t index) {
    const int64_t vectors = a.shape.pixels() / kVector, runs = (a.shape.channels + a.run - 1) / a.run;
    const int64_t part = quotient(index, vectors);
    pixel = (index - part * vectors) * kVector;
    b = quotient(part, runs);
    c = (part - b * runs) * a.run;
    end = c + a.run < a.shape.channels ? c + a.run : a.shape.channels;
  }
  F2D_MEMBER static int64_t count(const Experts& a) {
    return a.shape.batch * ((a.shape.channels + a.run - 1) / a.run) * (a.shape.pixels() / kVector);
  }
};

F2D_FN void assembly_forward_planar(const AssemblyArgs& a, int64_t index) {
  const PlaneVector at(a, index);
  Raw maps[kGroup];
  load_maps<kGroup>(a, at.b, at.pixel, 0, maps);
  for (int64_t c = at.c; c < at.end; ++c) {
    float sum[kVector];
    assemble_vector(a, at.b, c, at.pixel, maps, sum);
    store_vector(a.image, at.b * a.image.b + c * a.image.c + at.pixel, sum);
  }
}

// Forward, channels_last, dense and aligned: four neighbours in memory span a few pixels.
F2D_FN void assembly_forward_interleaved(const AssemblyArgs& a, int64_t index) {
  const int64_t channels = a.shape.channels, vectors = a.shape.pixels() * channels / kVector;
  const int64_t b = quotient(index, vectors), first = (index - b * vectors) * kVector;
  const int64_t first_pixel = quotient(first, channels), first_channel = first - first_pixel * channels;
  float sum[kVector] = {};
  if (a.base.data) unpack(load_raw(a.base, b * a.base.b + first), a.base.dtype, sum);
  for (int64_t k = 0; k < a.experts; ++k) {
    const View& view = a.delta(k);
    const Raw raw = load_raw(view, b * view.b + k * view.k + first);
    int64_t pixel = first_pixel, c = first_channel;
    const int64_t map_at = b * a.maps.b + k * a.maps.k;
    float gate = gate_at<float>(a, b, k, c);
    float map = a.maps.data ? load_one<float>(a.maps, map_at + pixel) : 1.0f;
    float delta[kVector];
    unpack(raw, view.dtype, delta);
    F2D_UNROLL
    for (int i = 0; i < kVector; ++i) {
      sum[i] = assembly_add(sum[i], a.maps.data ? assembly_weight(gate, map) : gate, delta[i]);
      if (i + 1 == kVector) break;
      if (++c == channels) {
        c = 0;
        ++pixel;
        if (a.maps.data) map = load_one<float>(a.maps, map_at + pixel);
      }
      if (a.channel_gates) gate = gate_at<float>(a, b, k, c);
    }
  }
  store_vector(a.image, b * a.image.b + first, sum);
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

// One lane's pixels of a warp's tile: four neighbours as vectors.
struct VectorPixels {
  using Value = float;
  using Fetched = Raw;
  static constexpr int kCount = kVector;

  int64_t first, count;

  F2D_MEMBER VectorPixels(const Shape& shape, int64_t tile, int lane)
      : first((tile * kWarp + lane) * kVector), count(shape.pixels()) {}
  F2D_MEMBER Raw fetch(const View& v, int64_t start) const { return first < count ? load_raw(v, start + first) : Raw{}; }
  F2D_MEMBER void decode(const Raw& raw, const View& v, float value[kVector]) const { unpack(raw, v.dtype, value); }
  F2D_MEMBER void write(const View& v, int64_t start, const float value[kVector]) const {
    if (first < count) store_vector(v, start + first, value);
  }
};

// One lane's pixel of a warp's tile, any strides and dtypes.
template <class A>
struct ElementPixels {
  using Value = A;
  using Fetched = A;
  static constexpr int kCount = 1;

  int64_t y, x;
  bool inside;

  F2D_MEMBER ElementPixels(const Shape& shape, int64_t tile, int lane) {
    const int64_t pixel = tile * kWarp + lane;
    y = quotient(pixel, shape.width);
    x = pixel - y * shape.width;
    inside = pixel < shape.pixels();
  }
  F2D_MEMBER A fetch(const View& v, int64_t start) const {
    return inside ? load_one<A>(v, start + y * v.h + x * v.w) : A(0);
  }
  F2D_MEMBER void decode(A fetched, const View&, A value[1]) const { value[0] = fetched; }
  F2D_MEMBER void write(const View& v, int64_t start, const A value[1]) const {
    if (inside) store_one(v, start + y * v.h + x * v.w, value[0]);
  }
};

template <class Args>
F2D_FN int64_t gate_part(const Args& a, int64_t b, int64_t k, int64_t c, int64_t tile) {
  return ((b * a.experts + k) * (a.channel_gates ? a.shape.channels : 1) + c) * a.tiles + tile;
}

// Where the backward pass takes the gradient of the assembled image from: here, a tensor.
template <class Pixels>
struct GivenGradient {
  static constexpr bool kReadsDeltas = false;
  const AssemblyArgs& a;
  int64_t b;

  template <class Deltas, class Maps, class Value>
  F2D_MEMBER void operator()(const Pixels& pixels, int64_t c, const Deltas&, const Maps&, Value* grad) const {
    pixels.decode(pixels.fetch(a.image, b * a.image.b + c * a.image.c), a.image, grad);
  }
};

// Backward for kCount experts from k on, channel by channel: one pass over their deltas and what `gradient` reads.
// `reduce(value, slot)` sums value over the warp and stores it; every lane of the warp calls it.
template <int kExperts, class Args, class Pixels, class Gradient, class Reduce>
F2D_FN void assembly_backward_experts(const Args& a, int64_t b, int64_t tile, const Pixels& pixels, int64_t k,
                                      Gradient& gradient, Reduce reduce) {
  using A = typename Pixels::Value;
  constexpr int kCount = Pixels::kCount;
  const bool correlate = a.d_maps.data || a.gate_parts;
  A map[kExperts][kCount], s[kExperts][kCount];
  F2D_UNROLL
  for (int j = 0; j < kExperts; ++j) {
    if (a.maps.data) pixels.decode(pixels.fetch(a.maps, b * a.maps.b + (k + j) * a.maps.k), a.maps, map[j]);
    F2D_UNROLL
    for (int i = 0; i < kCount; ++i) {
      s[j][i] = A(0);
      if (!a.maps.data) map[j][i] = A(1);
    }
  }
  for (int64_t c = 0; c < a.shape.channels; ++c) {
    typename Pixels::Fetched deltas[kExperts] = {};
    A grad[kCount];
    F2D_UNROLL
    for (int j = 0; j < kExperts; ++j) {
      const View& v = a.delta(k + j);
      if (correlate || Gradient::kReadsDeltas) deltas[j] = pixels.fetch(v, b * v.b + (k + j) * v.k + c * v.c);
    }
    gradient(pixels, c, deltas, map, grad);
    F2D_UNROLL
    for (int j = 0; j < kExperts; ++j) {
      const A gate = gate_at<A>(a, b, k + j, c);
      const View& d = a.d_deltas[a.listed ? k + j : 0];
      A delta[kCount];
      if (d.data) {
        F2D_UNROLL
        for (int i = 0; i < kCount; ++i) delta[i] = assembly_delta_gradient(assembly_weight(gate, map[j][i]), grad[i]);
        pixels.write(d, b * d.b + (k + j) * d.k + c * d.c, delta);
      }
      if (!correlate) continue;
      pixels.decode(deltas[j], a.delta(k + j), delta);
      A sum = A(0);
      F2D_UNROLL
      for (int i = 0; i < kCount; ++i) {
        if (!a.channel_gates) {
          s[j][i] = assembly_correlate(s[j][i], delta[i], grad[i]);
          continue;
        }
        const A product = delta[i] * grad[i];
        s[j][i] = assembly_correlate_gated(s[j][i], product, gate);
        sum = fma(map[j][i], product, sum);
      }
      if (a.channel_gates && a.gate_parts) reduce(sum, gate_part(a, b, k + j, c, tile));
    }
  }
  if (!correlate) return;
  F2D_UNROLL
  for (int j = 0; j < kExperts; ++j) {
    const A gate = a.channel_gates ? A(1) : gate_at<A>(a, b, k + j, 0);
    A sum = A(0);
    F2D_UNROLL
    for (int i = 0; i < kCount; ++i) {
      sum = fma(map[j][i], s[j][i], sum);
      s[j][i] = gate * s[j][i];
    }
    if (!a.channel_gates && a.gate_parts) reduce(sum, gate_part(a, b, k + j, 0, tile));
    if (a.d_maps.data) pixels.write(a.d_maps, b * a.d_maps.b + (k + j) * a.d_maps.k, s[j]);
  }
}

template <class Pixels, class Reduce>
F2D_FN void assembly_backward_lane(const AssemblyArgs& a, int64_t warp, int lane, Reduce reduce) {
  const int64_t unit = quotient(warp, a.splits), split = warp - unit * a.splits;
  const int64_t b = quotient(unit, a.tiles), tile = unit - b * a.tiles;
  const Pixels pixels(a.shape, tile, lane);
  const GivenGradient<Pixels> grad{a, b};
  int64_t k = split * a.experts / a.splits;
  const int64_t end = (split + 1) * a.experts / a.splits;
  for (; k + kBackwardGroup <= end; k += kBackwardGroup)
    assembly_backward_experts<kBackwardGroup>(a, b, tile, pixels, k, grad, reduce);
  for (; k < end; ++k) assembly_backward_experts<1>(a, b, tile, pixels, k, grad, reduce);
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
