// The expert assembly on CPU tensors: arguments from PyTorch, tasks, registration under the schema of
// f2d_kernels/ops/expert_assembly.py.
#include "../expert_assembly.h"

#include "../dispatch.h"
#include "../format.h"
#include "../pages.h"
#include "../tensors.h"

namespace f2d {

AssemblyArgs assembly_args(const Tensor& image, const std::vector<Stream>& deltas, const std::vector<Tensor>& tensors,
                           const Tensor& gates, const OptionalTensor& maps, const std::vector<Stream>& maps_streams) {
  AssemblyArgs a{};
  a.walk = walk_of(image);
  a.experts = static_cast<int64_t>(deltas.size());
  a.channel_gates = gates.dim() == 3;
  a.shared_deltas = a.walk.batch > 1 && is_stacked(tensors) && tensors[0].size(0) == 1;
  a.deltas = deltas.data();
  a.gates = table_of(gates);
  a.maps = maps ? maps_streams.data() : nullptr;
  a.image = image_stream(image);
  a.is_double = any_double({&image, &gates, pointer(maps)}, tensors);
  return a;
}

void expert_assembly_out(const Tensor& out, std::vector<Tensor> deltas, const Tensor& gates, OptionalTensor maps,
                         OptionalTensor base) {
  use_huge_pages(out);
  bring_operands_to(format_of(out), dtype_of(out) == DType::bf16 ? Runs::joined : Runs::kept, deltas, base);
  bring_operands_to(Format::planar, Runs::kept, maps);
  const std::vector<Stream> delta_streams = expert_streams(deltas), maps_streams = map_streams(maps);
  AssemblyArgs a = assembly_args(out, delta_streams, deltas, gates, maps, maps_streams);
  a.is_double |= any_double({pointer(base)});
  a.base = image_stream(base);
  run_tasks(F2D_KERNEL(expert_assembly), a, a.walk.batch * a.walk.tiles(),
            a.walk.tile_pixels() * a.walk.channels * (a.experts + 2), a.forward_scratch());
}

void expert_assembly_backward_out(Tensor grad, std::vector<Tensor> deltas, const Tensor& gates, OptionalTensor maps,
                                  const std::vector<Tensor>& d_deltas, const OptionalTensor& d_gates,
                                  const OptionalTensor& d_maps) {
  use_huge_pages(d_deltas, d_maps);
  const std::vector<Stream> results = d_deltas.empty() ? std::vector<Stream>(1) : expert_streams(d_deltas);
  const Format format = first_format(grad.size(1), {results[0], expert_streams(deltas)[0], image_stream(grad)});
  const DType dtype = dtype_of(deltas[0]);
  const Runs runs = dtype == DType::bf16 || dtype == DType::f32 ? Runs::joined : Runs::kept;
  bring_to(format, grad, runs);
  bring_walked_to(format, grad);
  bring_operands_to(format, runs, deltas);
  bring_operands_to(Format::planar, runs, maps);
  const std::vector<Stream> delta_streams = expert_streams(deltas), maps_streams = map_streams(maps);
  const std::vector<Stream> d_delta_streams = expert_streams(d_deltas), d_maps_streams = map_streams(d_maps);
  AssemblyArgs a = assembly_args(grad, delta_streams, deltas, gates, maps, maps_streams);
  const Walk& walk = a.walk;
  const int64_t sums = a.channel_gates ? walk.channels : 1;
  std::vector<double> gate_parts(d_gates ? walk.tiles() * walk.batch * a.experts * sums : 0);
  a.d_deltas = d_deltas.empty() ? nullptr : d_delta_streams.data();
  a.d_maps = d_maps ? d_maps_streams.data() : nullptr;
  a.gate_parts = d_gates ? gate_parts.data() : nullptr;

  const int64_t group = a.shared_deltas ? walk.batch : 1;
  run_tasks(F2D_KERNEL(expert_assembly_backward), a, walk.batch / group * walk.tiles(),
            group * walk.tile_pixels() * walk.channels * (2 * a.experts + 1), a.backward_scratch());
  store_sums(d_gates, a.gate_parts, walk.tiles(), walk.batch, a.experts, sums);
}

std::optional<ImageShape> assembly_shape(const std::vector<Tensor>& deltas, bool stacked, const OptionalTensor& gates,
                                         const OptionalTensor& maps, const OptionalTensor& base) {
  if (deltas.empty() || !gates || gates->dim() < 2) return std::nullopt;
  const Tensor& first = deltas[0];
  const int64_t c_dim = stacked ? 2 : 1;
  if (first.dim() != c_dim + 3 || !is_floating(first)) return std::nullopt;
  const int64_t experts = stacked ? first.size(1) : static_cast<int64_t>(deltas.size());
  const ImageShape s{gates->size(0), first.size(c_dim), first.size(c_dim + 1), first.size(c_dim + 2)};
  if (s.empty() || experts == 0) return std::nullopt;
  if (first.size(0) != s.batch && !(stacked && first.size(0) == 1)) return std::nullopt;
  if (!stacked)
    for (const Tensor& t : deltas)
      if (!matches(t, {s.batch, s.channels, s.height, s.width})) return std::nullopt;
  if (!matches(*gates, {s.batch, experts}) && !matches(*gates, {s.batch, experts, s.channels})) return std::nullopt;
  if (!matches(maps, {s.batch, experts, s.height, s.width}) || !matches(base, s)) return std::nullopt;
  return s;
}

OptionalTensor expert_assembly_direct(const std::vector<Tensor>& deltas, bool stacked, const OptionalTensor& gates,
                                      const OptionalTensor& maps, const OptionalTensor& base) {
  const std::optional<ImageShape> shape = assembly_shape(deltas, stacked, gates, maps, base);
  if (!shape) return std::nullopt;
  const Tensor out = new_image(*shape, promoted({pointer(base)}, deltas), deltas[0]);
  expert_assembly_out(out, deltas, *gates, maps, base);
  return out;
}

}  // namespace f2d

STABLE_TORCH_LIBRARY_IMPL(f2d_kernels, CPU, m) {
  m.impl("expert_assembly_direct", TORCH_BOX(&f2d::expert_assembly_direct));
  m.impl("expert_assembly_out", TORCH_BOX(&f2d::expert_assembly_out));
  m.impl("expert_assembly_backward_out", TORCH_BOX(&f2d::expert_assembly_backward_out));
}
