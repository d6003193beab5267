// The transport step on CPU tensors: arguments from PyTorch, tasks, registration under the schema of
// f2d_kernels/ops/transport_step.py.
#include "../../transport_step.h"

#include "../dispatch.h"
#include "../format.h"
#include "../pages.h"
#include "../tensors.h"
#include "../transport_step.h"

namespace f2d {

// bind/expert_assembly.cpp
AssemblyArgs assembly_args(const Tensor& image, const std::vector<Stream>& deltas, const std::vector<Tensor>& tensors,
                           const Tensor& gates, const OptionalTensor& maps, const std::vector<Stream>& maps_streams);

namespace {

// Arguments of both directions; the streams live as long as the call.
struct TransportCall {
  std::vector<Stream> deltas, maps;
  TransportArgs args{};

  TransportCall(const Tensor& image, const Tensor& x, const std::vector<Tensor>& tensors, const Tensor& gates,
                const OptionalTensor& map_tensor, const OptionalTensor& base, const Tensor& log_mean,
                const Tensor& log_std, const OptionalTensor& anchor, double low, double high,
                const OptionalTensor& noise, const OptionalTensor& seed, int64_t stream, int64_t top, int64_t left)
      : deltas(expert_streams(tensors)), maps(map_streams(map_tensor)) {
    TransportArgs& a = args;
    a.assembly = assembly_args(image, deltas, tensors, gates, map_tensor, maps);
    a.assembly.base = image_stream(base);
    a.is_double = a.assembly.is_double ||
                  any_double({&x, pointer(base), &log_mean, &log_std, pointer(anchor), pointer(noise)});
    a.assembled = promoted({pointer(base)}, tensors);
    a.target = promoted(a.assembled, dtype_of(anchor ? *anchor : x));
    a.low = as_stored(low, a.target);
    a.high = as_stored(high, a.target);
    a.x = image_stream(x);
    a.anchor = image_stream(anchor);
    a.noise = noise_source(noise, seed, stream, top, left);
    a.log_mean = table_of(log_mean);
    a.log_std = table_of(log_std);
  }
};

int64_t whole_lines(int64_t elements) { return (elements + kLaneCount - 1) / kLaneCount * kLaneCount; }

}  // namespace

void transport_step_out(const Tensor& x_next, const Tensor& mu, Tensor x, std::vector<Tensor> deltas,
                        const Tensor& gates, OptionalTensor maps, OptionalTensor base,
                        const Tensor& log_mean, const Tensor& log_std, OptionalTensor anchor, double low,
                        double high, OptionalTensor noise, const OptionalTensor& seed, int64_t stream,
                        int64_t top, int64_t left) {
  use_huge_pages(x_next, mu);
  bring_operands_to(format_of(x_next), Runs::kept, x, deltas, base, anchor, noise);
  bring_operands_to(Format::planar, Runs::kept, maps);
  TransportCall call(x_next, x, deltas, gates, maps, base, log_mean, log_std, anchor, low, high, noise, seed, stream,
                     top, left);
  TransportArgs& a = call.args;
  a.assembly.is_double = a.is_double;
  a.x_next = image_stream(x_next);
  a.mu = image_stream(mu);
  a.assembly_scratch = whole_lines(a.assembly.forward_scratch());
  const Walk& walk = a.walk();
  run_tasks(F2D_KERNEL(transport_step), a, walk.batch * walk.tiles(),
            walk.tile_pixels() * walk.channels * (a.assembly.experts + 8),
            a.assembly_scratch + a.tile_elements() + 7 * walk.block_elements());
}

void transport_step_backward_out(OptionalTensor grad_x, OptionalTensor grad_mu, Tensor x,
                                 std::vector<Tensor> deltas, const Tensor& gates, OptionalTensor maps,
                                 OptionalTensor base, const Tensor& log_mean, const Tensor& log_std,
                                 OptionalTensor anchor, double low, double high, OptionalTensor noise,
                                 const OptionalTensor& seed, int64_t stream, int64_t top, int64_t left,
                                 const OptionalTensor& d_x, const std::vector<Tensor>& d_deltas,
                                 const OptionalTensor& d_gates, const OptionalTensor& d_maps,
                                 const OptionalTensor& d_mu, const OptionalTensor& d_log_mean,
                                 const OptionalTensor& d_log_std, const OptionalTensor& d_noise) {
  use_huge_pages(d_x, d_deltas, d_maps, d_mu, d_noise);
  const Format format = first_format(x.size(1), {image_stream(d_x), image_stream(d_mu), image_stream(x),
                                                 image_stream(anchor), expert_streams(deltas)[0], image_stream(grad_x),
                                                 image_stream(grad_mu)});
  bring_walked_to(format, grad_x);
  bring_walked_to(format, grad_mu);
  bring_operands_to(format, Runs::kept, x, deltas, base, anchor, noise);
  bring_operands_to(Format::planar, Runs::kept, maps);
  const Tensor& image = d_x ? *d_x : d_mu ? *d_mu : grad_x ? *grad_x : *grad_mu;
  TransportCall call(image, x, deltas, gates, maps, base, log_mean, log_std, anchor, low, high, noise, seed, stream,
                     top, left);
  TransportArgs& a = call.args;
  const Walk& walk = a.walk();
  a.is_double |= any_double({pointer(grad_x), pointer(grad_mu)});
  a.assembly.is_double = a.is_double;
  a.grad_x = image_stream(grad_x);
  a.grad_mu = image_stream(grad_mu);
  a.d_x = image_stream(d_x);
  a.d_mu = image_stream(d_mu);
  a.d_noise = image_stream(d_noise);

  const std::vector<Stream> d_delta_streams = expert_streams(d_deltas), d_maps_streams = map_streams(d_maps);
  const int64_t tiles = walk.tiles(), channels = a.assembly.channel_gates ? walk.channels : 1;
  const int64_t gate_count = d_gates ? walk.batch * a.assembly.experts * channels : 0;
  const bool sums = d_log_mean || d_log_std;
  std::vector<double> gate_parts(tiles * gate_count), parts(sums ? 2 * tiles * walk.batch : 0);
  a.gradients = a.assembly;
  a.gradients.d_deltas = d_deltas.empty() ? nullptr : d_delta_streams.data();
  a.gradients.d_maps = d_maps ? d_maps_streams.data() : nullptr;
  a.gradients.gate_parts = d_gates ? gate_parts.data() : nullptr;
  a.log_mean_parts = sums ? parts.data() : nullptr;
  a.log_std_parts = sums ? parts.data() + tiles * walk.batch : nullptr;
  a.needs_total = a.has_experts() || d_mu || d_noise || sums || (d_x && !anchor);

  const int64_t forward_part = a.assembly.forward_scratch(), backward_part = a.gradients.backward_scratch();
  a.assembly_scratch = whole_lines(forward_part > backward_part ? forward_part : backward_part);
  const int64_t group = a.group();
  run_tasks(F2D_KERNEL(transport_step_backward), a, walk.batch / group * tiles,
            group * walk.tile_pixels() * walk.channels * (3 * a.assembly.experts + 8),
            a.assembly_scratch + (1 + group) * a.tile_elements() + 10 * walk.block_elements());

  store_sums(d_log_mean, a.log_mean_parts, tiles, walk.batch);
  store_sums(d_log_std, a.log_std_parts, tiles, walk.batch);
  store_sums(d_gates, gate_parts.data(), tiles, walk.batch, a.assembly.experts, channels);
}

std::tuple<OptionalTensor, OptionalTensor> transport_step_direct(
    const Tensor& x, const std::vector<Tensor>& deltas, bool stacked, const OptionalTensor& gates,
    const OptionalTensor& maps, const OptionalTensor& base, const OptionalTensor& log_mean, double mean_number,
    const OptionalTensor& log_std, double std_number, const OptionalTensor& anchor, double low, double high,
    const OptionalTensor& noise, const OptionalTensor& seed, int64_t seed_number, int64_t stream) {
  const std::optional<ImageShape> shape = assembly_shape(deltas, stacked, gates, maps, base);
  if (!shape || !matches(OptionalTensor(x), *shape) || !matches(anchor, *shape)) return {};
  const DType target = promoted({anchor ? &*anchor : &x, pointer(base)}, deltas);
  const bool wide = any_double({&x}) || target == DType::f64;
  const OptionalTensor mean = schedule(log_mean, mean_number, shape->batch, wide);
  const OptionalTensor std = schedule(log_std, std_number, shape->batch, wide);
  const Source source(noise, seed, seed_number, *shape);
  if (!mean || !std || !source.fits) return {};
  const Tensor mu = new_image(*shape, target, x), x_next = new_image(*shape, promoted(target, dtype_of(x)), x);
  transport_step_out(x_next, mu, x, deltas, *gates, maps, base, *mean, *std, anchor, low, high, source.noise,
                     source.seed, stream, 0, 0);
  return {x_next, mu};
}

}  // namespace f2d

STABLE_TORCH_LIBRARY_IMPL(f2d_kernels, CPU, m) {
  m.impl("transport_step_direct", TORCH_BOX(&f2d::transport_step_direct));
  m.impl("transport_step_out", TORCH_BOX(&f2d::transport_step_out));
  m.impl("transport_step_backward_out", TORCH_BOX(&f2d::transport_step_backward_out));
}
