// Arguments of the kernels of group_norm_silu, and their order of work.
//
// A piece is one tile of pixels: of one channel plane by plane, or of all channels pixel by pixel. A unit, one group or
// one sample, can be normalised by itself. Each pass writes two sums per channel and tile (gather), adds them in a
// fixed order (combine), then transforms every piece (apply).
#pragma once

#include "args.h"

namespace f2d {

// whole: all three steps for one unit after another, so that a small unit stays in the cache. The others: one step for
// all units, for more threads than units.
enum class Phase { whole, gather, combine, apply };

struct GroupNormArgs {
  Walk walk;
  int64_t groups;
  bool is_double;
  Phase phase;
  double eps;
  Stream x;
  Table weight, bias, scale, shift;  // [c], [c], [b][c], [b][c]; data may be null
  double *mean, *rstd;               // [b][group]; forward writes them
  Stream image;                      // forward: out; backward: grad
  double* parts;                     // [b][tile][c][2]; afterwards, if `sums_result`, [0] = sum of the result
  bool sums_result;
  // backward only
  Table grad_mean;                   // [b][c], data may be null
  Stream d_x;                        // data may be null
  double* sums;                      // [b][c][2]: sum of d_u, sum of d_u * (x - mean) * rstd
  double* terms;                     // [b][group][2]: slope, level

  F2D_MEMBER int64_t group_channels() const { return walk.channels / groups; }
  // With channels inside, at most 8 KiB of float32 and 64 pixels. Each block is one run of float32 sums, and runs of
  // 512 cost the standard deviation a digit.
  F2D_MEMBER int64_t block_pixels() const {
    if (!walk.pixel_major) return walk.block_pixels();
    return walk.channels <= 32 ? 64 : walk.channels <= 64 ? 32 : 16;
  }
  F2D_MEMBER int64_t first_pixels() const { return block_pixels() < 128 ? block_pixels() : 128; }
  F2D_MEMBER int64_t block_elements() const { return block_pixels() * walk.block_channels(); }
  // Pixel by pixel, 128 KiB of float32; with an eighth of that, the parts are 6 % of the traffic of 64 channels.
  F2D_MEMBER int64_t tile_pixels() const {
    const int64_t fit = 32768 / walk.channels / block_pixels() * block_pixels();
    return !walk.pixel_major ? kTilePixels : fit > block_pixels() ? fit : block_pixels();
  }
  F2D_MEMBER int64_t tiles() const { return (walk.pixels() + tile_pixels() - 1) / tile_pixels(); }
  F2D_MEMBER int64_t pieces() const { return walk.batch * walk.planes() * tiles(); }
  F2D_MEMBER int64_t units() const { return walk.batch * (walk.pixel_major ? 1 : groups); }
  F2D_MEMBER int64_t columns() const { return walk.pixel_major ? walk.channels : 2 * kLaneCount; }
  F2D_MEMBER int64_t period() const {  // lines repeat over pixels, since short loops cost more than they compute
    return walk.pixel_major ? (walk.channels < 256 ? 256 / walk.channels : 1) * walk.channels : 0;
  }
  F2D_MEMBER double* part(int64_t b, int64_t tile, int64_t c) const {
    return parts + 2 * ((b * tiles() + tile) * walk.channels + c);
  }
  F2D_MEMBER int64_t scratch() const { return 5 * columns() + 6 * period() + 5 * block_elements(); }
};

F2D_DECLARE_KERNEL(group_norm_silu, GroupNormArgs)
F2D_DECLARE_KERNEL(group_norm_silu_backward, GroupNormArgs)

}  // namespace f2d
