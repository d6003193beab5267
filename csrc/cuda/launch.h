// Launching: tensors as views, a grid sized to the device, warps' sums and their fixed-order total.
#pragma once

#include <cuda_runtime.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>

#include <algorithm>
#include <optional>
#include <vector>

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

// Planes [h, w] dense and every `count` of their elements aligned to their size; absent tensors fit. With channels_inside the
// same of images [h, w, c].
inline bool fits_vectors(const View& v, const Shape& s, bool channels_inside, int64_t count) {
  if (!v.data) return true;
  if (v.dtype == DType::f64) return false;
  const int64_t c = channels_inside ? s.channels : 1, block = s.pixels() * c;
  if (!steps(v.w, s.width, c) || !steps(v.h, s.height, s.width * c)) return false;
  if (channels_inside && !steps(v.c, s.channels, 1)) return false;
  const int64_t outer = channels_inside ? 0 : v.c;
  return block % count == 0 && (v.b | v.k | outer) % count == 0 &&
         reinterpret_cast<uintptr_t>(v.data) % (count * size_of(v.dtype)) == 0;
}

// Pixels that follow each other at one distance.
inline bool equidistant(const View& v, const Shape& s) {
  return !v.data || (s.width > 1 && steps(v.h, s.height, s.width * v.w));
}

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

inline cudaStream_t current_stream(const Tensor& t) {
  void* stream = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(t.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

// Fewer warps than this, four on each of an H100's 132 multiprocessors, leave much of a GPU idle: then work is cut finer,
// though that costs traffic. A fixed number, since results may depend on sizes and not on the device.
constexpr int64_t kFewWarps = 4 * 132;

// Units of a sample that one warp of a backward pass takes: `most`, or one where that leaves too few warps.
inline int64_t steps_for(int64_t batch, int64_t units, int64_t most) {
  return batch * units / most < kFewWarps ? 1 : most;
}

// The tensors that a launch touches, some of them absent: images [b, c, h, w], stacks of them, and maps [b, k, h, w].
struct Touched {
  Shape shape;
  int64_t experts;
  std::vector<const View*> images, maps;

  bool fit(bool channels_inside, int64_t count) const {
    for (const View* v : images)
      if (!fits_vectors(*v, shape, channels_inside, count)) return false;
    for (const View* v : maps)
      if (!channels_inside && !fits_vectors(*v, shape, false, count)) return false;
    return true;
  }
  // Maps beside images [h, w, 3], of which TriplePixels reads whole vectors where pixels lie together.
  bool maps_fit_triples() const {
    for (const View* v : maps)
      if (!(v->w == 1 ? fits_vectors(*v, shape, false, 4) : equidistant(*v, shape))) return false;
    return true;
  }
  // The dtype of all, if there is one that OneType serves and no offset or number of threads needs more than 31 bits.
  std::optional<DType> one_type() const {
    constexpr int64_t kMost = (int64_t{1} << 31) - (int64_t{1} << 16);
    std::optional<DType> one;
    if (shape.batch * shape.channels * shape.pixels() >= kMost) return {};
    for (const auto* list : {&images, &maps})
      for (const View* v : *list) {
        if (!v->data) continue;
        if (one && *one != v->dtype) return {};
        one = v->dtype;
        if (shape.batch * v->b + experts * v->k + shape.channels * v->c + shape.height * v->h + shape.width * v->w >= kMost)
          return {};
      }
    return one == DType::f32 || one == DType::bf16 ? one : std::nullopt;
  }
};

// The walks of the kernels: elements of any layout, vectors of planes, vectors of images [h, w, 3].
enum class Walk { elements, any, f32, bf16, f32_triples, bf16_triples };

inline Walk walk_of(const Touched& t) {
  if (t.shape.width >> 31) return Walk::elements;  // columns are counted in 32 bits
  const std::optional<DType> one = t.one_type();
  const int64_t warps = t.shape.batch * t.shape.pixels() / (kWarp * 4);
  if (one == DType::f32 && t.fit(false, 4)) return Walk::f32;
  if (one == DType::bf16 && t.fit(false, 8) && warps / 2 * t.shape.channels >= kFewWarps) return Walk::bf16;
  if (t.fit(false, 4)) return Walk::any;
  if (one && t.shape.channels == 3 && warps >= kFewWarps && t.shape.pixels() % 4 == 0 && t.fit(true, 4) &&
      t.maps_fit_triples())
    return one == DType::f32 ? Walk::f32_triples : Walk::bf16_triples;
  return Walk::elements;
}

template <class P>
struct Tag {
  using Pixels = P;
};

// Calls `act` with a Tag of the Pixels of a walk over vectors.
template <class Act>
void with_pixels(Walk walk, Act act) {
  switch (walk) {
    case Walk::f32: return act(Tag<VectorPixels<Floats>>());
    case Walk::bf16: return act(Tag<VectorPixels<BFloats>>());
    case Walk::f32_triples: return act(Tag<TriplePixels<Floats>>());
    case Walk::bf16_triples: return act(Tag<TriplePixels<HalfBFloats>>());
    default: return act(Tag<VectorPixels<AnyType>>());
  }
}

template <class Pixels>
int64_t tiles_of(const Shape& s) {
  constexpr int64_t pixels = kWarp * Pixels::kCount;
  return (s.pixels() + pixels - 1) / pixels;
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

// For kernels whose warps have a part each. `threads` is a multiple of 32, and so is the stride.
template <class Index>
__device__ __forceinline__ Index first_warp() {
  return static_cast<Index>(blockIdx.x * (kThreads / kWarp) + threadIdx.x / kWarp);
}
template <class Index>
__device__ __forceinline__ Index all_warps() {
  return static_cast<Index>(gridDim.x * (kThreads / kWarp));
}
__device__ __forceinline__ int this_lane() { return static_cast<int>(threadIdx.x % kWarp); }

// For kernels whose lanes have a quad each: the lanes share the elements unless many channels already lie side by side, if
// positions fit into 32 bits.
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
