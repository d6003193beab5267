// What the transport step's CPU kernels are told.
#pragma once

#include "expert_assembly.h"

namespace f2d {

struct TransportArgs {
  AssemblyArgs assembly;     // its image is set tile by tile: what is assembled exists in scratch only
  AssemblyArgs gradients;    // backward: the same for v, with d_deltas, d_maps, gate_parts where they are wanted
  bool is_double;
  int64_t assembly_scratch;  // elements that the assembly's kernels need
  DType assembled, target;   // dtypes of the assembly and of mu
  double low, high;          // rounded to `target`
  Stream x, anchor;          // anchor.data null: x
  NoiseSource noise;
  Table log_mean, log_std;
  Stream x_next, mu;          // forward
  Stream grad_x, grad_mu;     // backward, data null where no gradient arrives
  Stream d_x, d_mu, d_noise;  // backward, data null where not wanted; d_mu: the gradient under the clamp
  bool needs_total;           // backward: whether anything looks at the sum under the clamp
  double *log_mean_parts, *log_std_parts;  // [tile][b] sums over one tile of all planes, both or neither

  F2D_MEMBER const Walk& walk() const { return assembly.walk; }
  F2D_MEMBER bool has_experts() const { return gradients.d_deltas || gradients.d_maps || gradients.gate_parts; }
  // Samples in a task of the backward pass: all of them where they share the deltas.
  F2D_MEMBER int64_t group() const { return has_experts() && assembly.shared_deltas ? walk().batch : 1; }
  // Room for a tile of all channels in elements, planes in different sets of the cache.
  F2D_MEMBER int64_t tile_elements() const { return (walk().tile_pixels() + kLaneCount) * walk().channels + kLaneCount; }
};

F2D_DECLARE_KERNEL(transport_step, TransportArgs)
F2D_DECLARE_KERNEL(transport_step_backward, TransportArgs)

}  // namespace f2d
