// Arguments of the CPU kernels of the expert head.
#pragma once

#include "args.h"

namespace f2d {

constexpr int kPlaneGroup = 8;    // features per pass over the deltas of a block of planes
constexpr int kChannelGroup = 4;  // output channels whose sums are in registers together

constexpr int kBackwardPlanes = 4;  // backward: largest number of features per pass over a block of planes

struct HeadArgs {
  int64_t batch, experts, features, channels, height, width;  // B, K, F, C, H, W
  bool is_double;
  bool pixel_major;  // the features of a pixel are contiguous; otherwise the pixels of a feature are
  bool correlates;   // backward: a gradient other than d_features is needed, and with it the features' values
  const Stream* feature_streams;      // one per expert
  Table weight, bias, scale, gates;   // [k,c,f], [k,c] or null, [b,k,f] or null, [b,k]
  const Stream* maps;                 // one per expert, or null
  Stream image;                       // forward: out; backward: grad
  Stream base;                        // forward only; data may be null
  // backward: gradients, of which any may be null. moments: [tile][b][k][c][F + 1] sums over one tile
  // (../expert_head.h); that of the bias follows those of the features.
  const Stream* d_features;
  const Stream* d_maps;
  double* moments;

  F2D_MEMBER int64_t pixels() const { return height * width; }
  F2D_MEMBER int64_t tiles() const { return (pixels() + kTilePixels - 1) / kTilePixels; }
  // Pixels per block, whose sums stay in L1; a divisor of the tile.
  F2D_MEMBER int64_t block_pixels() const { return pixel_major ? 64 : 512; }
  F2D_MEMBER int64_t padded_features() const { return (features + kLaneCount - 1) / kLaneCount * kLaneCount; }
  // The bias of a channel (in the first of 16 lanes) and its weights, with zeros after the last feature.
  F2D_MEMBER int64_t row_size() const { return kLaneCount + padded_features(); }
  F2D_MEMBER int64_t moment_count() const { return channels * (features + 1); }

  F2D_MEMBER int64_t padded_experts() const { return (experts + kLaneCount - 1) / kLaneCount * kLaneCount; }
  // Planes of deltas; pixel by pixel, one register for each of 16 pixels and each of their channels.
  F2D_MEMBER int64_t delta_size() const { return channels * (pixel_major ? kLaneCount * kLaneCount : block_pixels()); }
  // Scratch in elements, as the kernels divide it.
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
