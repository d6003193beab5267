// f2d_kernels._build_info: how the compiled part was built, for `python -m f2d_kernels.info` and issue reports.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/headeronly/version.h>

#include <string>
#include <vector>

#include "cpu/level.h"

namespace {

std::string simd_in_use() {
  try {
    return f2d::kLevelNames[static_cast<int>(f2d::choose_level())];
  } catch (const std::exception& error) {
    return error.what();
  }
}

std::string compiler() {
#if defined(__clang__)
  return std::string("clang ") + __VERSION__;
#else
  return std::string("gcc ") + __VERSION__;
#endif
}

pybind11::dict build_info() {
  pybind11::dict info;
  info["version"] = F2D_VERSION;
  info["compiler"] = compiler();
  info["torch"] = TORCH_VERSION;
  info["minimum_torch"] = F2D_MINIMUM_TORCH;
  info["cuda"] = *F2D_CUDA ? pybind11::object(pybind11::str(F2D_CUDA)) : pybind11::none();
  info["cuda_architectures"] = F2D_CUDA_ARCHITECTURES;
  info["simd"] = std::vector<std::string>(f2d::kLevelNames, f2d::kLevelNames + f2d::kLevels);
  info["simd_in_use"] = simd_in_use();
  info["openmp"] = "simd loops only; threads are PyTorch's pool";
  return info;
}

}  // namespace

PYBIND11_MODULE(_build_info, module) {
  module.doc() = "How the compiled part of f2d_kernels was built.";
  module.def("build_info", &build_info, "Versions, CUDA architectures and instruction sets of the compiled part.");
}
