// Helpers for PyTorch tensors through the stable ABI, shared by the CPU and the CUDA registrations.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <initializer_list>
#include <optional>
#include <vector>

#include "portable.h"

namespace f2d {

using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;

inline DType dtype_of(const Tensor& t) {
  using torch::headeronly::ScalarType;
  switch (t.scalar_type()) {
    case ScalarType::Float: return DType::f32;
    case ScalarType::Double: return DType::f64;
    case ScalarType::Half: return DType::f16;
    case ScalarType::BFloat16: return DType::bf16;
    default: STD_TORCH_CHECK(false, "f2d_kernels: tensors must be float16, bfloat16, float32 or float64");
  }
}

inline char* data_of(const Tensor& t) { return static_cast<char*>(t.data_ptr()); }

inline const Tensor* pointer(const OptionalTensor& t) { return t ? &*t : nullptr; }

// Deltas and features come as one tensor [.., K, C, H, W], or as a list of tensors [B, C, H, W].
inline bool is_stacked(const std::vector<Tensor>& list) { return list.size() == 1 && list[0].dim() == 5; }

// The promoted type of the tensors that are there.
inline DType promoted(std::initializer_list<const Tensor*> tensors, const std::vector<Tensor>& list = {}) {
  std::optional<DType> result;
  const auto add = [&](const Tensor& t) { result = result ? promoted(*result, dtype_of(t)) : dtype_of(t); };
  for (const Tensor* t : tensors)
    if (t) add(*t);
  for (const Tensor& t : list) add(t);
  return *result;
}

inline bool any_double(std::initializer_list<const Tensor*> tensors, const std::vector<Tensor>& list = {}) {
  for (const Tensor* t : tensors)
    if (t && dtype_of(*t) == DType::f64) return true;
  for (const Tensor& t : list)
    if (dtype_of(t) == DType::f64) return true;
  return false;
}

}  // namespace f2d
