// The instruction sets for which this binary is compiled, and the one in use (F2D_KERNELS_SIMD forces a lower one).
#pragma once

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace f2d {

enum class Level { baseline, avx2, avx512 };

constexpr const char* kLevelNames[] = {"baseline", "avx2", "avx512"};
#if defined(__x86_64__)
constexpr int kLevels = 3;
#else
constexpr int kLevels = 1;
#endif

inline bool supports(Level level) {
#if defined(__x86_64__)
  if (level == Level::avx512)
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && supports(Level::avx2);
  if (level == Level::avx2)
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
#endif
  return level == Level::baseline;
}

inline Level choose_level() {
  const char* variable = std::getenv("F2D_KERNELS_SIMD");
  const std::string wanted = variable ? variable : "";
  for (int i = kLevels - 1; i >= 0; --i) {
    const Level level = static_cast<Level>(i);
    if (wanted.empty() && supports(level)) return level;
    if (wanted != kLevelNames[i]) continue;
    if (!supports(level)) throw std::runtime_error("F2D_KERNELS_SIMD=" + wanted + ": this processor does not have it");
    return level;
  }
  throw std::runtime_error("F2D_KERNELS_SIMD=" + wanted + ": choose baseline, avx2 or avx512, as this machine has them");
}

}  // namespace f2d
