// The expert head on CPU tensors: arguments from PyTorch, tasks, gradients of the parameters from the
// moments, registration under the schema of f2d_kernels/ops/expert_head.py.
#include "../expert_head.h"

#include "../direct.h"
#include "../dispatch.h"
#include "../pages.h"
#include "../tensors.h"

namespace f2d {

HeadArgs head_args(const Tensor& image, const std::vector<Tensor>& features, const std::vector<Stream>& streams,
                   const Tensor& weight, const OptionalTensor& bias, const OptionalTensor& scale, const Tensor& gates,
                   const OptionalTensor& maps, const std::vector<Stream>& maps_streams) {
  HeadArgs a{};
  a.batch = image.size(0);
  a.experts = weight.size(0);
  a.features = weight.size(2);
  a.channels = image.size(1);
  a.height = image.size(2);
  a.width = image.size(3);
  a.pixel_major = a.features > 1 && streams[0].c == 1 && a.pixels() > 1;
  a.is_double = any_double({&image, &weight, pointer(bias), pointer(scale), &gates, pointer(maps)}, features);
  a.feature_streams = streams.data();
  a.weight = table_of(weight);
  a.bias = table_of(bias);
  a.scale = table_of(scale);
  a.gates = table_of(gates);
  a.maps = maps ? maps_streams.data() : nullptr;
  a.image = image_stream(image);
  return a;
}

int64_t head_work(const HeadArgs& a) { return kTilePixels * a.features * a.experts; }

void expert_head_out(const Tensor& out, const std::vector<Tensor>& features, const Tensor& weight,
                     const OptionalTensor& bias, const OptionalTensor& scale, const Tensor& gates,
                     const OptionalTensor& maps, const OptionalTensor& base) {
  use_huge_pages(out);
  const std::vector<Stream> streams = expert_streams(features), maps_streams = map_streams(maps);
  HeadArgs a = head_args(out, features, streams, weight, bias, scale, gates, maps, maps_streams);
  a.is_double |= any_double({pointer(base)});
  a.base = image_stream(base);
  run_tasks(F2D_KERNEL(expert_head), a, a.batch * a.tiles(), head_work(a), a.forward_scratch());
}

// Computes the gradients of the parameters that are not null from the moments M of all samples (../../expert_head.h).
void finish_head_moments(const HeadArgs& a, const std::vector<double>& moments, Table d_weight, Table d_bias,
                         Table d_scale, Table d_gates) {
  const int64_t F = a.features, columns = F + 1;
  std::vector<double> of_weight(F), of_scale(F);
  for (int64_t k = 0; k < a.experts; ++k) {
    for (int64_t c = 0; c < a.channels; ++c) {
      for (double& d : of_weight) d = 0.0;
      double of_bias = 0.0;
      for (int64_t b = 0; b < a.batch; ++b) {
        const double* row = moments.data() + ((b * a.experts + k) * a.channels + c) * columns;
        const double gate = a.gates.at(b, k, 0);
        for (int64_t f = 0; d_weight.data && f < F; ++f)
          of_weight[f] += gate * (a.scale.data ? a.scale.at(b, k, f) : 1.0) * row[f];
        of_bias += gate * row[F];
      }
      for (int64_t f = 0; d_weight.data && f < F; ++f) store(d_weight, k, c, f, of_weight[f]);
      if (d_bias.data) store(d_bias, k, c, 0, of_bias);
    }
    for (int64_t b = 0; (d_scale.data || d_gates.data) && b < a.batch; ++b) {
      for (double& d : of_scale) d = 0.0;
      double of_gate = 0.0;
      for (int64_t c = 0; c < a.channels; ++c) {
        const double* row = moments.data() + ((b * a.experts + k) * a.channels + c) * columns;
        for (int64_t f = 0; f < F; ++f) of_scale[f] += a.weight.at(k, c, f) * row[f];
        if (a.bias.data) of_gate += a.bias.at(k, c, 0) * row[F];
      }
      const double gate = a.gates.at(b, k, 0);
      for (int64_t f = 0; f < F; ++f) {
        if (d_scale.data) store(d_scale, b, k, f, gate * of_scale[f]);
        of_gate += (a.scale.data ? a.scale.at(b, k, f) : 1.0) * of_scale[f];
      }
      if (d_gates.data) store(d_gates, b, k, 0, of_gate);
    }
  }
}

void expert_head_backward_out(const Tensor& grad, const std::vector<Tensor>& features, const Tensor& weight,
                              const OptionalTensor& bias, const OptionalTensor& scale, const Tensor& gates,
                              const OptionalTensor& maps, const std::vector<Tensor>& d_features,
                              const OptionalTensor& d_weight, const OptionalTensor& d_bias,
                              const OptionalTensor& d_scale, const OptionalTensor& d_gates,
                              const OptionalTensor& d_maps) {
  use_huge_pages(d_features, d_maps);
  const std::vector<Stream> streams = expert_streams(features), maps_streams = map_streams(maps);
  const std::vector<Stream> d_streams = expert_streams(d_features), d_maps_streams = map_streams(d_maps);
  HeadArgs a = head_args(grad, features, streams, weight, bias, scale, gates, maps, maps_streams);
  if (!d_features.empty()) a.pixel_major = a.features > 1 && d_streams[0].c == 1 && a.pixels() > 1;
  const int64_t count = a.batch * a.experts * a.moment_count();
  std::vector<double> parts(d_weight || d_bias || d_scale || d_gates ? a.tiles() * count : 0);
  a.correlates = d_weight || d_scale || d_gates || d_maps;
  a.d_features = d_features.empty() ? nullptr : d_streams.data();
  a.d_maps = d_maps ? d_maps_streams.data() : nullptr;
  a.moments = parts.empty() ? nullptr : parts.data();
  run_tasks(F2D_KERNEL(expert_head_backward), a, a.batch * a.tiles(), 2 * head_work(a), a.backward_scratch());
  if (parts.empty()) return;
  finish_head_moments(a, sum_parts(parts.data(), a.tiles(), count), table_of(d_weight),
                 table_of(d_bias), table_of(d_scale), table_of(d_gates));
}

OptionalTensor expert_head_direct(const std::vector<Tensor>& features, bool stacked, const OptionalTensor& weight,
                                  const OptionalTensor& bias, const OptionalTensor& channel_scale,
                                  const OptionalTensor& gates, const OptionalTensor& maps, const OptionalTensor& base) {
  // the features are an assembly without gates per channel, and base has the channels of weight
  const std::optional<ImageShape> s = assembly_shape(features, stacked, gates, maps, std::nullopt);
  if (!s || !weight || weight->dim() != 3 || gates->dim() != 2 || features[0].size(0) != s->batch) return std::nullopt;
  const int64_t experts = gates->size(1), channels = weight->size(1);
  const ImageShape result{s->batch, channels, s->height, s->width};
  if (result.empty() || !matches(*weight, {experts, channels, s->channels}) || !matches(bias, {experts, channels}) ||
      !matches(channel_scale, {s->batch, experts, s->channels}) || !matches(base, result))
    return std::nullopt;
  const Tensor out = new_image(result, promoted({pointer(base)}, features), features[0]);
  expert_head_out(out, features, *weight, bias, channel_scale, *gates, maps, base);
  return out;
}

}  // namespace f2d

STABLE_TORCH_LIBRARY_IMPL(f2d_kernels, CPU, m) {
  m.impl("expert_head_direct", TORCH_BOX(&f2d::expert_head_direct));
  m.impl("expert_head_out", TORCH_BOX(&f2d::expert_head_out));
  m.impl("expert_head_backward_out", TORCH_BOX(&f2d::expert_head_backward_out));
}
