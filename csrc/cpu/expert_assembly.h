// What the expert assembly's CPU kernels are told.
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
  // backward: gradients, any of them null. gate_parts: [tile][b][k][c or 1] sums over one tile.
  const Stream* d_deltas;
  const Stream* d_maps;
  double* gate_parts;
};

F2D_DECLARE_KERNEL(expert_assembly, AssemblyArgs)
F2D_DECLARE_KERNEL(expert_assembly_backward, AssemblyArgs)

}  // namespace f2d
