// Launching: tensors as views, a grid sized to the device, warps' sums and their fixed-order total.
#pragma once

#include <cuda_runtime.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>

#include "../tensors.h"
#include "noise.h"

namespace f2d {

// Kernels are declared __launch_bounds__(kThreads, 1): left alone, ptxas spills 4 to 16 bytes to fit one more block.
constexpr int kThreads = 128;

// The last two dimensions are (h, w); -1 where a dimension is absent. Dimensions of size 1 get stride 0.
inline View view_of(const Tensor& t, int b_dim, int k_dim, int c_dim) {
  const auto stride = [&](int64_t dim) { return dim < 0 || t.size(dim) == 1 ? 0 : t.stride(dim); };
  return {data_of(t), stride(b_dim), stride(k_dim), stride(c_dim), stride(t.dim() - 2), stride(t.dim() - 1), dtype_of(t)};
}

inline View image_view(const Tensor& t) { return view_of(t, 0, -1, 1); }
inline View image_view(const OptionalTensor& t) { return t ? image_view(*t) : View{}; }
inline View table_view(const Tensor& t) {
  View v{data_of(t), 0, 0, 0, 0, 0, dtype_of(t)};
  if (t.dim() > 0 && t.size(0) > 1) v.b = t.stride(0);
  if (t.dim() > 1) v.k = t.stride(1);
  if (t.dim() > 2) v.c = t.stride(2);
  return v;
}

// Whether a dimension of `size` steps by `wanted` (or does not step at all).
inline bool steps(int64_t stride, int64_t size, int64_t wanted) { return size == 1 || stride == wanted; }

// Planes [h, w] dense and every four of their elements aligned to their size; absent tensors fit. With channels_inside the
// same of images [h, w, c].
inline bool fits_vectors(const View& v, const Shape& s, bool channels_inside) {
  if (!v.data) return true;
  if (v.dtype == DType::f64) return false;
  const int64_t c = channels_inside ? s.channels : 1, block = s.pixels() * c;
  if (!steps(v.w, s.width, c) || !steps(v.h, s.height, s.width * c)) return false;
  if (channels_inside && !steps(v.c, s.channels, 1)) return false;
  const int64_t outer = channels_inside ? 0 : v.c;
  return block % kVector == 0 && (v.b | v.k | outer) % kVector == 0 &&
         reinterpret_cast<uintptr_t>(v.data) % (kVector * size_of(v.dtype)) == 0;
}

// Planes that follow each other without a gap.
inline bool planes_adjacent(const View& v, const Shape& s) { return !v.data || steps(v.c, s.channels, s.pixels()); }

inline bool channels_inside(const View& v, const Shape& s) {
  return s.channels > 1 && v.c == 1 && s.pixels() > 1;
}

// Exactly one of noise and seed is there.
inline NoiseSource noise_source(const OptionalTensor& noise, const OptionalTensor& seed, int64_t stream, int64_t top,
                                int64_t left, const Shape& shape) {
  NoiseSource source{};
  source.given = image_view(noise);
  if (seed) {
    source.seeds = static_cast<const int64_t*>(seed->data_ptr());
    source.seed_per_sample = seed->numel() > 1;
    source.seed_stride = source.seed_per_sample ? seed->stride(0) : 0;
  }
  source.stream = static_cast<uint32_t>(stream);
  source.top = static_cast<uint32_t>(top);
  source.left = static_cast<uint32_t>(left);
  source.quads_per_row = Quad::per_row(source, shape);
  return source;
}

// Whether four aligned neighbours always lie in one row, from the first lane of a counter on.
inline bool draws_vectors(const NoiseSource& s, const Shape& shape) {
  static_assert(kVector == 4, "a counter of Philox gives the noise of four");
  return shape.width % 4 == 0 && s.left % 4 == 0;
}

inline cudaStream_t current_stream(const Tensor& t) {
  void* stream = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(t.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

// Fewer warps than this, four on each of an H100's 132 multiprocessors, leave much of a GPU idle: then work is cut finer,
// though that costs traffic. A fixed number, since results may depend on sizes and not on the device.
constexpr int64_t kFewWarps = 4 * 132;

// Vectors or quads per lane of a warp's tile: `most`, or one where that leaves too few warps. `work`: of each sample.
inline int64_t steps_for(int64_t batch, int64_t work, int64_t most) {
  return batch * work / (32 * most) < kFewWarps ? 1 : most;
}

// Four times the 16 blocks that fill a multiprocessor, not more: the kernels stride over the rest.
inline int grid_for(int64_t threads) {
  int device = 0, processors = 0;
  STD_CUDA_CHECK(cudaGetDevice(&device));
  STD_CUDA_CHECK(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device));
  const int64_t wanted = (threads + kThreads - 1) / kThreads, most = static_cast<int64_t>(processors) * 64;
  return static_cast<int>(wanted < most ? wanted : most);
}

template <class Args>
void launch(void (*kernel)(Args, int64_t), const Args& args, int64_t threads, cudaStream_t stream) {
  kernel<<<grid_for(threads), kThreads, 0, stream>>>(args, threads);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

__device__ __forceinline__ int64_t first_thread() { return blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x; }
__device__ __forceinline__ int64_t all_threads() { return gridDim.x * static_cast<int64_t>(kThreads); }

// Of kernels whose lanes have a quad each: they share out the elements unless many channels already lie side by side, and
// where positions fit into 32 bits.
template <class Args>
__device__ __forceinline__ SharedQuads shared_quads(const Args& a) {
  const bool few = a.shape.height < (int64_t{1} << 30) && a.shape.width < (int64_t{1} << 30);
  return {few && (!a.channels_inside || a.shape.channels <= 8)};
}

template <class A>
__device__ __forceinline__ A warp_sum(A value) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(0xffffffffu, value, distance);
  return value;
}

// Sums over the warp; its first lane stores to parts[slot].
template <class A>
struct WarpReduce {
  __device__ __forceinline__ void operator()(A value, void* parts, int64_t slot) const {
    value = warp_sum(value);
    if (threadIdx.x % 32 == 0) static_cast<A*>(parts)[slot] = value;
  }
};

// out[i] = the sum of parts[i][0 .. tiles), one warp each: 32 interleaved sums in double, then a fixed tree.
template <class A>
__global__ void __launch_bounds__(kThreads, 1) sum_parts_kernel(const A* parts, int64_t tiles, View out, int64_t threads) {
  for (int64_t t = first_thread(); t < threads; t += all_threads()) {
    const int64_t i = t / 32;
    double sum = 0.0;
    for (int64_t tile = t % 32; tile < tiles; tile += 32) sum += static_cast<double>(parts[i * tiles + tile]);
    sum = warp_sum(sum);
    if (t % 32 == 0) store_one(out, i, sum);
  }
}

// `out` is contiguous with `count` elements.
inline void sum_parts(const Tensor& parts, bool is_double, int64_t tiles, const Tensor& out, cudaStream_t stream) {
  const int64_t threads = out.numel() * 32;
  const View view{data_of(out), 0, 0, 0, 0, 0, dtype_of(out)};
  const int grid = grid_for(threads);
  if (is_double) {
    sum_parts_kernel<<<grid, kThreads, 0, stream>>>(static_cast<const double*>(parts.data_ptr()), tiles, view, threads);
  } else {
    sum_parts_kernel<<<grid, kThreads, 0, stream>>>(static_cast<const float*>(parts.data_ptr()), tiles, view, threads);
  }
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

// Memory for partial sums, from PyTorch's allocator (hence ordered with the stream).
inline Tensor new_parts(const Tensor& like, bool is_double, int64_t count) {
  using torch::headeronly::ScalarType;
  return torch::stable::new_empty(like, {count}, is_double ? ScalarType::Double : ScalarType::Float);
}

}  // namespace f2d
