// Calls the kernels of the active level, and distributes tasks over PyTorch's thread pool.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <atomic>
#include <cstdlib>
#include <memory>
#include <vector>

#include "args.h"
#include "level.h"
#include "tensors.h"

namespace f2d {

inline Level level() {
  static const Level chosen = choose_level();
  return chosen;
}

#if defined(__x86_64__)
#define F2D_KERNEL(name) \
  (level() == Level::avx512 ? avx512::name : level() == Level::avx2 ? avx2::name : baseline::name)
#else
#define F2D_KERNEL(name) (baseline::name)
#endif

// Runs kernel on tasks [0, tasks), each range with its own scratch. `work` is the number of elements that a task
// processes: ranges below 32768 elements (about 10 us) do not pay for a second thread.
template <class Args>
void run_tasks(void (*kernel)(const Args&, char*, int64_t, int64_t), const Args& args, int64_t tasks, int64_t work,
               int64_t scratch_elements) {
  const int64_t grain = work >= 32768 ? 1 : 32768 / work;
  const size_t bytes = static_cast<size_t>(scratch_elements) * (args.is_double ? 8 : 4);
  std::atomic<bool> enough{true};  // an exception would lose its message in parallel_for
  torch::stable::parallel_for(0, tasks, grain, [&](int64_t begin, int64_t end) {
    std::unique_ptr<char, void (*)(void*)> scratch(
        static_cast<char*>(std::aligned_alloc(64, (bytes + 63) / 64 * 64)), std::free);
    if (scratch) return kernel(args, scratch.get(), begin, end);
    enough = false;
  });
  STD_TORCH_CHECK(enough, "f2d_kernels: ", bytes, " bytes of scratch memory could not be allocated");
}

// Sums over tiles of parts[tile][i], in the order of the tiles.
inline std::vector<double> sum_parts(const double* parts, int64_t tiles, int64_t count) {
  std::vector<double> sums(count, 0.0);
  for (int64_t tile = 0; tile < tiles; ++tile)
    for (int64_t i = 0; i < count; ++i) sums[i] += parts[tile * count + i];
  return sums;
}

inline void store(const Table& table, int64_t b, int64_t k, int64_t c, double value) {
  char* at = const_cast<char*>(table.data) + (b * table.b + k * table.k + c * table.c) * size_of(table.dtype);
  switch (table.dtype) {
    case DType::f32: return store_as<double>(reinterpret_cast<float*>(at), value);
    case DType::f64: return store_as<double>(reinterpret_cast<double*>(at), value);
    case DType::f16: return store_as<double>(reinterpret_cast<f16*>(at), value);
    case DType::bf16: return store_as<double>(reinterpret_cast<bf16*>(at), value);
  }
}

// d[b][k][c], if it is wanted, from parts[tile][b][k][c].
inline void store_sums(const OptionalTensor& d, const double* parts, int64_t tiles, int64_t batch, int64_t K = 1,
                       int64_t C = 1) {
  if (!d) return;
  const Table table = table_of(*d);
  const std::vector<double> sums = sum_parts(parts, tiles, batch * K * C);
  for (int64_t i = 0; i < batch * K * C; ++i) store(table, i / C / K, i / C % K, i % C, sums[i]);
}

}  // namespace f2d
