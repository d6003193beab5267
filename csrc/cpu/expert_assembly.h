// Arguments of the CPU kernels of the expert assembly.
#pragma once

#include "args.h"

namespace f2d {

struct AssemblyArgs {
  Walk walk;
  int64_t experts;
  bool is_double, channel_gates, shared_deltas;
  const Stream* deltas;  // one per expert
  Table gates;
  const Stream* maps;  // one per expert, or null
  Stream image;        // forward: out; backward: grad
  Stream base;         // forward only; data may be null
  // backward: gradients, of which any may be null. gate_parts: [tile][b][k][c or 1] sums over one tile.
  const Stream* d_deltas;
  const Stream* d_maps;
  double* gate_parts;

  // Scratch size in elements of the compute type.
  F2D_MEMBER int64_t forward_scratch() const {
    const int64_t vectors = (1 + experts) * kLaneCount * walk.channels;  // the fast walks' gates of all channels
    const int64_t maps = walk.pixel_major ? walk.block_elements() : walk.tile_pixels();
    return walk.block_elements() * (5 + experts) + maps * experts + vectors;
  }
  F2D_MEMBER int64_t backward_scratch() const {
    const int64_t group = shared_deltas ? walk.batch : 1, pairs = group * experts, block = walk.block_elements();
    const int64_t lanes = 2 * kLaneCount * (channel_gates ? walk.channels : 1);  // doubles, counted as floats
    const int64_t vectors = (3 + experts) * kLaneCount * walk.channels + experts * walk.tile_pixels();
    return pairs * (2 * block + walk.block_pixels() + lanes) + (group + 3) * block + vectors;
  }
};

F2D_DECLARE_KERNEL(expert_assembly, AssemblyArgs)
F2D_DECLARE_KERNEL(expert_assembly_backward, AssemblyArgs)

}  // namespace f2d
