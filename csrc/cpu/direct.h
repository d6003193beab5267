// What the direct calls share: they check their arguments as the public functions in Python do, allocate the result and
// run, in one call. Whatever is not plainly right they decline by returning nothing, and Python's own checks then explain
// or handle it.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>

#include "dispatch.h"
#include "tensors.h"

namespace f2d {

constexpr int64_t kMaxChannels = 65536;  // MAX_CHANNELS in f2d_kernels/noise.py

struct ImageShape {
  int64_t batch, channels, height, width;

  bool empty() const { return batch * channels * height * width == 0; }
};

inline bool is_floating(const Tensor& t) {
  using torch::headeronly::ScalarType;
  const ScalarType type = t.scalar_type();
  return type == ScalarType::Float || type == ScalarType::BFloat16 || type == ScalarType::Half ||
         type == ScalarType::Double;
}

inline bool matches(const Tensor& t, std::initializer_list<int64_t> shape) {
  if (t.dim() != static_cast<int64_t>(shape.size()) || !is_floating(t)) return false;
  int64_t dim = 0;
  for (const int64_t size : shape)
    if (t.size(dim++) != size) return false;
  return true;
}

inline bool matches(const OptionalTensor& t, std::initializer_list<int64_t> shape) { return !t || matches(*t, shape); }

inline bool matches(const OptionalTensor& t, const ImageShape& s) {
  return matches(t, {s.batch, s.channels, s.height, s.width});
}

inline std::optional<ImageShape> image_shape(const Tensor& x) {
  if (x.dim() != 4 || !is_floating(x)) return std::nullopt;
  const ImageShape shape{x.size(0), x.size(1), x.size(2), x.size(3)};
  return shape.empty() ? std::nullopt : std::optional(shape);
}

inline Tensor new_tensor(std::initializer_list<int64_t> sizes, std::initializer_list<int64_t> strides, int32_t type) {
  AtenTensorHandle handle;
  STD_TORCH_CHECK(aoti_torch_empty_strided(static_cast<int64_t>(sizes.size()), sizes.begin(), strides.begin(), type,
                                           aoti_torch_device_type_cpu(), -1, &handle) == AOTI_TORCH_SUCCESS,
                  "f2d_kernels: a result could not be allocated");
  return Tensor(handle);
}

inline int32_t type_of(DType dtype) {
  switch (dtype) {
    case DType::f32: return aoti_torch_dtype_float32();
    case DType::f64: return aoti_torch_dtype_float64();
    case DType::f16: return aoti_torch_dtype_float16();
    default: return aoti_torch_dtype_bfloat16();
  }
}

inline Tensor new_image(const ImageShape& s, DType dtype, bool channels_last) {
  const int64_t pixels = s.height * s.width;
  if (channels_last)
    return new_tensor({s.batch, s.channels, s.height, s.width},
                      {pixels * s.channels, 1, s.width * s.channels, s.channels}, type_of(dtype));
  return new_tensor({s.batch, s.channels, s.height, s.width}, {pixels * s.channels, pixels, s.width, 1}, type_of(dtype));
}

// A result in the memory format of `like` [..., C, H, W]; is_channels_last in f2d_kernels/ops/_allocate.py is the rule.
inline Tensor new_image(const ImageShape& s, DType dtype, const Tensor& like) {
  const int64_t c_dim = like.dim() - 3;
  return new_image(s, dtype, like.stride(c_dim) == 1 && like.size(c_dim) > 1 && s.height * s.width > 1);
}

// A schedule [B], or one value for all samples, a tensor or else a number; nothing if it does not fit.
inline OptionalTensor schedule(const OptionalTensor& t, double number, int64_t batch, bool wide) {
  if (t) return is_floating(*t) && (t->dim() == 0 || matches(*t, {batch})) ? t : std::nullopt;
  const Tensor value = new_tensor({}, {}, type_of(wide ? DType::f64 : DType::f32));
  store(table_of(value), 0, 0, 0, number);
  return value;
}

// The shape of an assembly of deltas, one [B or 1,K,C,H,W] or else K tensors [B,C,H,W]; bind/expert_assembly.cpp
std::optional<ImageShape> assembly_shape(const std::vector<Tensor>& deltas, bool stacked, const OptionalTensor& gates,
                                         const OptionalTensor& maps, const OptionalTensor& base);

// Where noise comes from: a tensor, or a seed given as a tensor or a number.
struct Source {
  OptionalTensor noise, seed;
  bool fits = false;

  Source(const OptionalTensor& given, const OptionalTensor& seeds, int64_t number, const ImageShape& shape)
      : noise(given), seed(seeds) {
    if (noise) {
      fits = !seed && matches(noise, shape);
      return;
    }
    if (seed) {
      fits = seed->scalar_type() == torch::headeronly::ScalarType::Long && seed->dim() <= 1 &&
             (seed->numel() == 1 || seed->numel() == shape.batch);
    } else {
      seed = new_tensor({1}, {1}, aoti_torch_dtype_int64());
      *reinterpret_cast<int64_t*>(data_of(*seed)) = number;
      fits = true;
    }
    fits = fits && shape.channels <= kMaxChannels;
  }
};

}  // namespace f2d
