// Arguments of the CPU kernels of the transport step.
#pragma once

#include "expert_assembly.h"

namespace f2d {

struct TransportArgs {
  AssemblyArgs assembly;     // its image is set tile by tile; the assembled sum exists only in scratch
  AssemblyArgs gradients;    // backward: the same for v, with d_deltas, d_maps and gate_parts if needed
  bool is_double;
  int64_t assembly_scratch;  // elements that the assembly's kernels need
  DType assembled, target;   // dtypes of the assembly and of mu
  double low, high;          // rounded to `target`
  Stream x, anchor;          // anchor.data null: x
  NoiseSource noise;
  Table log_mean, log_std;
  Stream x_next, mu;          // forward
  Stream grad_x, grad_mu;     // backward; data null if no gradient arrives
  Stream d_x, d_mu, d_noise;  // backward; data null if not needed; d_mu: the gradient before the clamp
  bool needs_total;           // backward: whether the sum before the clamp is needed
  double *log_mean_parts, *log_std_parts;  // [tile][b] sums over one tile of all planes; both or neither

  F2D_MEMBER const Walk& walk() const { return assembly.walk; }
  F2D_MEMBER bool has_experts() const { return gradients.d_deltas || gradients.d_maps || gradients.gate_parts; }
  // Samples per task of the backward pass: all of them if they share the deltas.
  F2D_MEMBER int64_t group() const { return has_experts() && assembly.shared_deltas ? walk().batch : 1; }
  // Elements for a tile of all channels, with the planes in different sets of the cache.
  F2D_MEMBER int64_t tile_elements() const { return (walk().tile_pixels() + kLaneCount) * walk().channels + kLaneCount; }
};

F2D_DECLARE_KERNEL(transport_step, TransportArgs)
F2D_DECLARE_KERNEL(transport_step_backward, TransportArgs)

}  // namespace f2d
