// Converts PyTorch tensors (stable ABI) to the structures of args.h. Python has validated the shapes; strides are free.
#pragma once

#include <vector>

#include "../tensors.h"
#include "args.h"

namespace f2d {

// The last two dimensions are (h, w); b_dim and c_dim name the dimensions of samples and channels, -1 where absent.
inline Stream stream_of(const Tensor& t, int64_t b_dim, int64_t c_dim, int64_t offset = 0) {
  const int64_t h_dim = t.dim() - 2, height = t.size(h_dim), width = t.size(h_dim + 1);
  Stream s;
  s.dtype = dtype_of(t);
  s.data = data_of(t) + offset * size_of(s.dtype);
  s.b = b_dim < 0 || t.size(b_dim) == 1 ? 0 : t.stride(b_dim);
  s.c = c_dim < 0 ? 0 : t.size(c_dim) == 1 ? 1 : t.stride(c_dim);
  s.width = width;
  s.w = width == 1 ? t.stride(h_dim) : t.stride(h_dim + 1);
  s.h = t.stride(h_dim);
  s.linear = height == 1 || width == 1 || s.h == width * s.w;
  return s;
}

inline Stream image_stream(const Tensor& t) { return stream_of(t, 0, 1); }
inline Stream image_stream(const OptionalTensor& t) { return t ? image_stream(*t) : Stream{}; }

// Deltas: one tensor [B or 1, K, C, H, W], or K tensors [B, C, H, W].
inline std::vector<Stream> expert_streams(const std::vector<Tensor>& list) {
  std::vector<Stream> streams;
  if (is_stacked(list)) {
    for (int64_t k = 0; k < list[0].size(1); ++k) streams.push_back(stream_of(list[0], 0, 2, k * list[0].stride(1)));
  } else {
    for (const Tensor& t : list) streams.push_back(image_stream(t));
  }
  return streams;
}

// Maps [B, K, H, W], the same for every channel.
inline std::vector<Stream> map_streams(const OptionalTensor& maps) {
  std::vector<Stream> streams;
  for (int64_t k = 0; maps && k < maps->size(1); ++k) streams.push_back(stream_of(*maps, 0, -1, k * maps->stride(1)));
  return streams;
}

inline Table table_of(const Tensor& t) {
  Table table{data_of(t), 0, 0, 0, dtype_of(t)};
  if (t.dim() > 0 && t.size(0) > 1) table.b = t.stride(0);
  if (t.dim() > 1) table.k = t.stride(1);
  if (t.dim() > 2) table.c = t.stride(2);
  return table;
}

inline Table table_of(const OptionalTensor& t) { return t ? table_of(*t) : Table{}; }

// Exactly one of noise and seed is given.
inline NoiseSource noise_source(const OptionalTensor& noise, const OptionalTensor& seed, int64_t stream, int64_t top,
                                int64_t left) {
  NoiseSource source{};
  source.noise = image_stream(noise);
  if (seed) {
    source.seeds = reinterpret_cast<const int64_t*>(data_of(*seed));
    source.seed_per_sample = seed->numel() > 1;
    source.seed_stride = source.seed_per_sample ? seed->stride(0) : 0;
  }
  source.stream = static_cast<uint32_t>(stream);
  source.top = static_cast<uint32_t>(top);
  source.left = static_cast<uint32_t>(left);
  return source;
}

inline Walk walk_of(const Tensor& image) {
  Walk walk{image.size(0), image.size(1), image.size(2), image.size(3), false};
  const Stream s = image_stream(image);
  walk.pixel_major = walk.channels > 1 && s.linear && s.c == 1 && (s.w == walk.channels || walk.pixels() == 1);
  return walk;
}

}  // namespace f2d
