// The CPU implementations of the schemas that Python defines (f2d_kernels/ops).
#include "dispatch.h"
#include "tensors.h"

namespace f2d {

AssemblyArgs assembly_args(const Tensor& image, const std::vector<Stream>& deltas, const std::vector<Tensor>& tensors,
                           const Tensor& gates, const OptionalTensor& maps, const std::vector<Stream>& maps_streams) {
  AssemblyArgs a{};
  a.walk = walk_of(image);
  a.experts = static_cast<int64_t>(deltas.size());
  a.channel_gates = gates.dim() == 3;
  a.shared_deltas = a.walk.batch > 1 && tensors.size() == 1 && tensors[0].dim() == 5 && tensors[0].size(0) == 1;
  a.deltas = deltas.data();
  a.gates = table_of(gates);
  a.maps = maps ? maps_streams.data() : nullptr;
  a.image = image_stream(image);
  a.is_double = any_double({&image, &gates, pointer(maps)});
  for (const Tensor& t : tensors) a.is_double |= any_double({&t});
  return a;
}

void expert_assembly_out(const Tensor& out, const std::vector<Tensor>& deltas, const Tensor& gates,
                         const OptionalTensor& maps, const OptionalTensor& base) {
  const std::vector<Stream> delta_streams = expert_streams(deltas), maps_streams = map_streams(maps);
  AssemblyArgs a = assembly_args(out, delta_streams, deltas, gates, maps, maps_streams);
  a.is_double |= any_double({pointer(base)});
  a.base = image_stream(base);
  const int64_t block = a.walk.block_elements(), tile = a.walk.tile_pixels() * a.walk.block_channels();
  run_tasks(F2D_KERNEL(expert_assembly), a, a.walk.batch * a.walk.tiles(),
            a.walk.tile_pixels() * a.walk.channels * (a.experts + 2), block * (5 + a.experts) + tile * a.experts);
}

void expert_assembly_backward_out(const Tensor& grad, const std::vector<Tensor>& deltas, const Tensor& gates,
                                  const OptionalTensor& maps, const std::vector<Tensor>& d_deltas,
                                  const OptionalTensor& d_gates, const OptionalTensor& d_maps) {
  const std::vector<Stream> delta_streams = expert_streams(deltas), maps_streams = map_streams(maps);
  const std::vector<Stream> d_delta_streams = expert_streams(d_deltas), d_maps_streams = map_streams(d_maps);
  AssemblyArgs a = assembly_args(grad, delta_streams, deltas, gates, maps, maps_streams);
  const Walk& walk = a.walk;
  const int64_t sums = a.channel_gates ? walk.channels : 1, parts = walk.batch * a.experts * sums;
  std::vector<double> gate_parts(d_gates ? walk.tiles() * parts : 0);
  a.d_deltas = d_deltas.empty() ? nullptr : d_delta_streams.data();
  a.d_maps = d_maps ? d_maps_streams.data() : nullptr;
  a.gate_parts = d_gates ? gate_parts.data() : nullptr;

  const int64_t group = a.shared_deltas ? walk.batch : 1, pairs = group * a.experts, block = walk.block_elements();
  const int64_t lanes = 2 * kLaneCount * sums;  // doubles, counted as floats
  const int64_t scratch = pairs * (2 * block + walk.block_pixels() + lanes) + (group + 3) * block;
  run_tasks(F2D_KERNEL(expert_assembly_backward), a, walk.batch / group * walk.tiles(),
            group * walk.tile_pixels() * walk.channels * (2 * a.experts + 1), scratch);
  if (!d_gates) return;
  const std::vector<double> total = sum_parts(a.gate_parts, walk.tiles(), parts);
  const Table table = table_of(*d_gates);
  for (int64_t i = 0; i < parts; ++i)
    store(table, i / sums / a.experts, i / sums % a.experts, i % sums, total[i]);
}

LognormalArgs lognormal_args(const Tensor& image, const Tensor& x, const Tensor& mu, const Tensor& log_mean,
                             const Tensor& log_std, const OptionalTensor& noise, const OptionalTensor& seed,
                             int64_t stream, int64_t top, int64_t left) {
  LognormalArgs a{};
  a.walk = walk_of(image);
  a.is_double = any_double({&image, &x, &mu, &log_mean, &log_std, pointer(noise)});
  a.x = image_stream(x);
  a.mu = image_stream(mu);
  a.noise = image_stream(noise);
  a.log_mean = table_of(log_mean);
  a.log_std = table_of(log_std);
  if (seed) {
    a.seeds = reinterpret_cast<const int64_t*>(data_of(*seed));
    a.seed_per_sample = seed->numel() > 1;
    a.seed_stride = a.seed_per_sample ? seed->stride(0) : 0;
  }
  a.stream = static_cast<uint32_t>(stream);
  a.top = static_cast<uint32_t>(top);
  a.left = static_cast<uint32_t>(left);
  a.image = image_stream(image);
  return a;
}

void lognormal_transition_out(const Tensor& out, const Tensor& x, const Tensor& mu, const Tensor& log_mean,
                              const Tensor& log_std, const OptionalTensor& noise, const OptionalTensor& seed,
                              int64_t stream, int64_t top, int64_t left) {
  const LognormalArgs a = lognormal_args(out, x, mu, log_mean, log_std, noise, seed, stream, top, left);
  const int64_t block = a.walk.block_elements();
  run_tasks(F2D_KERNEL(lognormal_transition), a, a.walk.batch * a.walk.planes() * a.walk.blocks(), 8 * block, 4 * block);
}

void lognormal_transition_backward_out(const Tensor& grad, const Tensor& x, const Tensor& mu, const Tensor& log_mean,
                                       const Tensor& log_std, const OptionalTensor& noise, const OptionalTensor& seed,
                                       int64_t stream, int64_t top, int64_t left, const OptionalTensor& d_x,
                                       const OptionalTensor& d_mu, const OptionalTensor& d_log_mean,
                                       const OptionalTensor& d_log_std, const OptionalTensor& d_noise) {
  LognormalArgs a = lognormal_args(grad, x, mu, log_mean, log_std, noise, seed, stream, top, left);
  const Walk& walk = a.walk;
  const int64_t tiles = walk.tiles() * walk.planes(), block = walk.block_elements();
  const bool sums = d_log_mean || d_log_std;
  std::vector<double> parts(sums ? 2 * tiles * walk.batch : 0);
  a.d_x = image_stream(d_x);
  a.d_mu = image_stream(d_mu);
  a.d_noise = image_stream(d_noise);
  a.log_mean_parts = sums ? parts.data() : nullptr;
  a.log_std_parts = sums ? parts.data() + tiles * walk.batch : nullptr;
  run_tasks(F2D_KERNEL(lognormal_transition_backward), a, walk.batch * tiles,
            8 * walk.tile_pixels() * walk.block_channels(), 9 * block);
  const auto finish = [&](const OptionalTensor& d, const double* part) {
    if (!d) return;
    const std::vector<double> total = sum_parts(part, tiles, walk.batch);
    for (int64_t b = 0; b < walk.batch; ++b) store(table_of(*d), b, 0, 0, total[b]);
  };
  finish(d_log_mean, a.log_mean_parts);
  finish(d_log_std, a.log_std_parts);
}

}  // namespace f2d

STABLE_TORCH_LIBRARY_IMPL(f2d_kernels, CPU, m) {
  m.impl("expert_assembly_out", TORCH_BOX(&f2d::expert_assembly_out));
  m.impl("expert_assembly_backward_out", TORCH_BOX(&f2d::expert_assembly_backward_out));
  m.impl("lognormal_transition_out", TORCH_BOX(&f2d::lognormal_transition_out));
  m.impl("lognormal_transition_backward_out", TORCH_BOX(&f2d::lognormal_transition_backward_out));
}
