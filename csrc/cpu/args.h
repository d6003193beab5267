// Arguments of the CPU kernels as plain structures. The files compiled per instruction set must include neither PyTorch
// nor standard library templates, whose shared copies the linker could take from the wrong set. Each op adds its
// arguments in OP.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../portable.h"
#include "../philox.h"

namespace f2d {

// Elements per block: 2 KiB of float32, so that ten blocks at equal page offsets fit into the sets of an L1 cache.
// On bfloat16 planes of 512 x 512, 1024 is 2.5x slower and 256 is 2x slower.
constexpr int64_t kBlockSize = 512;
constexpr int64_t kTilePixels = 4096;  // pixels that are summed before the final sum in fixed order
constexpr int64_t kMaxPixels = 512;    // largest number of pixels per block
constexpr int kLaneCount = 16;         // virtual lanes of every reduction

// A tensor as [b, c, h, w]; strides in elements, 0 along constant dimensions. linear: pixel p is at p * w.
struct Stream {
  char* data = nullptr;
  int64_t b = 0, c = 0, h = 0, w = 0;
  int64_t width = 1;
  DType dtype = DType::f32;
  bool linear = true;
};

// The order of the elements: plane by plane, or pixel by pixel with the channels inside (channels_last).
struct Walk {
  int64_t batch, channels, height, width;
  bool pixel_major;

  F2D_MEMBER int64_t pixels() const { return height * width; }
  F2D_MEMBER int64_t elements() const { return batch * channels * pixels(); }
  F2D_MEMBER int64_t block_channels() const { return pixel_major ? channels : 1; }
  F2D_MEMBER int64_t planes() const { return pixel_major ? 1 : channels; }
  // A multiple of 16 unless it is the whole image, so that lanes stay aligned. It depends only on the shape.
  F2D_MEMBER int64_t block_pixels() const {
    const int64_t fit = kBlockSize / block_channels() / kLaneCount * kLaneCount;
    return fit > kLaneCount ? fit : kLaneCount;
  }
  F2D_MEMBER int64_t block_elements() const { return block_pixels() * block_channels(); }
  F2D_MEMBER int64_t blocks() const { return (pixels() + block_pixels() - 1) / block_pixels(); }
  F2D_MEMBER int64_t tile_pixels() const { return (kTilePixels + block_pixels() - 1) / block_pixels() * block_pixels(); }
  F2D_MEMBER int64_t tiles() const { return (pixels() + tile_pixels() - 1) / tile_pixels(); }
};

// Gates [b, k] or [b, k, c], or a schedule [b]; strides in elements.
struct Table {
  const char* data = nullptr;
  int64_t b = 0, k = 0, c = 0;
  DType dtype = DType::f32;

  F2D_MEMBER double at(int64_t ib, int64_t ik, int64_t ic) const {
    const int64_t i = ib * b + ik * k + ic * c;
    switch (dtype) {
      case DType::f32: return reinterpret_cast<const float*>(data)[i];
      case DType::f64: return reinterpret_cast<const double*>(data)[i];
      case DType::f16: return to_float(reinterpret_cast<const f16*>(data)[i]);
      default: return to_float(reinterpret_cast<const bf16*>(data)[i]);
    }
  }
};

// Noise as a tensor, or as seeds from which it is generated in place (then noise.data is null).
struct NoiseSource {
  Stream noise;
  const int64_t* seeds;
  bool seed_per_sample;
  int64_t seed_stride;
  uint32_t stream, top, left;

  F2D_MEMBER NoiseKey key(int64_t b) const {
    const uint64_t seed = static_cast<uint64_t>(seeds[seed_per_sample ? b * seed_stride : 0]);
    return {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32),
            seed_per_sample ? 0u : static_cast<uint32_t>(b), stream};
  }
};

// A kernel, compiled once per instruction set, runs the tasks [begin, end) with `scratch` of the stated size. Results
// do not depend on how the tasks are split.
#define F2D_DECLARE_KERNEL(name, Args)                                                      \
  namespace baseline { void name(const Args&, char* scratch, int64_t begin, int64_t end); } \
  namespace avx2 { void name(const Args&, char* scratch, int64_t begin, int64_t end); }     \
  namespace avx512 { void name(const Args&, char* scratch, int64_t begin, int64_t end); }

// The kernel of the instruction set that F2D_LEVEL names: `tasks(args, scratch, begin, end)` with scratch of the type in
// which the arguments compute, float or double.
#define F2D_DEFINE_KERNEL(name, Args, tasks)                                                \
  namespace F2D_LEVEL {                                                                     \
  void name(const Args& a, char* scratch, int64_t begin, int64_t end) {                     \
    if (a.is_double) return tasks(a, reinterpret_cast<double*>(scratch), begin, end);       \
    tasks(a, reinterpret_cast<float*>(scratch), begin, end);                                \
  }                                                                                         \
  }

}  // namespace f2d
