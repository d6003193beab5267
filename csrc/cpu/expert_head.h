// What the expert head's CPU kernels are told.
#pragma once

#include "args.h"

namespace f2d {

constexpr int kPlaneGroup = 8;    // features per pass over the deltas of a block of planes
constexpr int kChannelGroup = 4;  // output channels whose sums are in registers at a time

constexpr int kBackwardPlanes = 4;  // backward: features per pass over a block of planes, at most

struct HeadArgs {
  int64_t batch, experts, features, channels, height, width;  // B, K, F, C, H, W
  bool is_double;
  bool pixel_major;  // each pixel's features lie next to each other; else each feature's pixels do
  bool correlates;   // backward: anything but d_features is asked for, so that the features' values matter
  const Stream* feature_streams;      // one per expert
  Table weight, bias, scale, gates;   // [k,c,f], [k,c] or null, [b,k,f] or null, [b,k]
  const Stream* maps;                 // one per expert, or null
  Stream image;                       // forward: out; backward: grad
  Stream base;                        // forward only; data may be null
  // backward: gradients, any of them null. moments: [tile][b][k][c][F + 1] sums over one tile (../expert_head.h), the
  // bias's behind the features'.
  const Stream* d_features;
  const Stream* d_maps;
  double* moments;

  F2D_MEMBER int64_t pixels() const { return height * width; }
  F2D_MEMBER int64_t tiles() const { return (pixels() + kTilePixels - 1) / kTilePixels; }
  // Pixels whose sums stay in L1; they divide a tile.
  F2D_MEMBER int64_t block_pixels() const { return pixel_major ? 64 : 512; }
  F2D_MEMBER int64_t padded_features() const { return (features + kLaneCount - 1) / kLaneCount * kLaneCount; }
  // One channel's bias (in the first of 16 lanes) and weights; zeros behind the last feature.
  F2D_MEMBER int64_t row_size() const { return kLaneCount + padded_features(); }
  F2D_MEMBER int64_t moment_count() const { return channels * (features + 1); }

  F2D_MEMBER int64_t padded_experts() const { return (experts + kLaneCount - 1) / kLaneCount * kLaneCount; }
  // Planes of deltas; or, pixel by pixel, one register for each of 16 pixels and their channels.
  F2D_MEMBER int64_t delta_size() const { return channels * (pixel_major ? kLaneCount * kLaneCount : block_pixels()); }
  // Scratch in elements, as the kernels carve it up.
  F2D_MEMBER int64_t forward_scratch() const {
    const int64_t rows = (experts < kLaneCount ? experts : kLaneCount) + 1;
    return channels * (experts * row_size() + padded_experts() + 2 * block_pixels()) + experts * block_pixels() +
           delta_size() + (pixel_major ? rows * kLaneCount * padded_features() : kPlaneGroup * block_pixels());
  }
  F2D_MEMBER int64_t feature_size() const {
    return block_pixels() * (pixel_major ? 2 * padded_features() : kBackwardPlanes);
  }
  F2D_MEMBER int64_t zero_size() const { return pixel_major ? kLaneCount : block_pixels(); }
  F2D_MEMBER int64_t backward_scratch() const {
    return experts * channels * row_size() + (channels + 3 + 2 * kLaneCount) * block_pixels() +
           kLaneCount * kLaneCount + zero_size() + 2 * feature_size();
  }
};

F2D_DECLARE_KERNEL(expert_head, HeadArgs)
F2D_DECLARE_KERNEL(expert_head_backward, HeadArgs)

}  // namespace f2d
