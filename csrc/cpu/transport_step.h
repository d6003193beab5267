// What the transport step's CPU kernels are told.
#pragma once

#include "expert_assembly.h"

namespace f2d {

struct TransportArgs {
  AssemblyArgs assembly;     // of whole images; the assembled image itself exists in scratch only, chunk by chunk
  AssemblyArgs gradients;    // backward: the same with d_deltas, d_maps, gate_parts, where they are wanted
  bool is_double;
  bool flat;                 // in every tensor of the assembly the pixels of a plane lie at equal distances
  int64_t assembly_scratch;  // elements that the assembly's kernels need for a chunk
  DType assembled, target;   // dtypes of the assembly and of mu
  double low, high;          // rounded to `target`
  Stream x, anchor;          // anchor.data null: x
  NoiseSource noise;
  Table log_mean, log_std;
  Stream x_next, mu;        // forward
  Stream grad_x, grad_mu;   // backward, data null where no gradient arrives
  Stream d_x, d_mu, d_noise;  // backward, data null where not wanted; d_mu: the gradient under the clamp
  bool needs_total;           // backward: whether anything looks at the sum under the clamp
  double *gate_parts, *log_mean_parts, *log_std_parts;  // [task][b] (gates: [k][c or 1]) sums over one task

  F2D_MEMBER const Walk& walk() const { return assembly.walk; }
  F2D_MEMBER bool has_experts() const { return gradients.d_deltas || gradients.d_maps || gate_parts; }
  F2D_MEMBER int64_t gate_sums() const { return assembly.experts * (assembly.channel_gates ? walk().channels : 1); }
  // Samples in a task of the backward pass: all of them where they share the deltas.
  F2D_MEMBER int64_t group() const { return has_experts() && assembly.shared_deltas ? walk().batch : 1; }

  // A chunk is what stays in the fastest cache between the assembly and what follows: about 512 pixels of every plane.
  // With tiles of 4096 the memory is read at half the speed.
  F2D_MEMBER int64_t chunk_pixels() const { return walk().block_pixels() * 8; }
  F2D_MEMBER int64_t chunk_rows() const { return flat || walk().width >= chunk_pixels() ? 1 : chunk_pixels() / walk().width; }
  // Chunks along a row, or along the whole image where it is one row to the assembly.
  F2D_MEMBER int64_t chunks_across() const {
    const int64_t length = flat ? walk().pixels() : walk().width;
    return (length + chunk_pixels() - 1) / chunk_pixels();
  }
  F2D_MEMBER int64_t chunks() const {
    return flat ? chunks_across() : chunks_across() * ((walk().height + chunk_rows() - 1) / chunk_rows());
  }
  F2D_MEMBER int64_t tasks() const { return (chunks() + kTaskChunks - 1) / kTaskChunks; }  // per sample
  F2D_MEMBER int64_t task_elements() const { return kTaskChunks * chunk_pixels() * walk().channels; }
  // Room for a chunk of all channels, and for four streams of each expert, in elements; both whole cache lines.
  F2D_MEMBER int64_t chunk_elements() const { return (chunk_pixels() + kLaneCount) * walk().channels; }
  F2D_MEMBER int64_t stream_elements() const { return kLaneCount * assembly.experts * static_cast<int64_t>(sizeof(Stream)) / 4; }

  static constexpr int64_t kTaskChunks = 8;
};

F2D_DECLARE_KERNEL(transport_step, TransportArgs)
F2D_DECLARE_KERNEL(transport_step_backward, TransportArgs)

}  // namespace f2d
