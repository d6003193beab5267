// group_norm_silu on CPU tensors: arguments from PyTorch, tasks, registration under the schema of
// f2d_kernels/ops/group_norm_silu.py.
#include "../group_norm_silu.h"

#include "../dispatch.h"
#include "../format.h"
#include "../pages.h"
#include "../tensors.h"

namespace f2d {
namespace {

GroupNormArgs group_norm_args(const Tensor& image, const Tensor& x, int64_t groups, const OptionalTensor& weight,
                              const OptionalTensor& bias, const OptionalTensor& scale, const OptionalTensor& shift) {
  GroupNormArgs a{};
  a.walk = walk_of(x);
  a.groups = groups;
  a.is_double = any_double({&x, pointer(weight), pointer(bias), pointer(scale), pointer(shift)});
  a.x = image_stream(x);
  a.image = image_stream(image);
  a.weight = table_of(weight);
  a.bias = table_of(bias);
  a.scale = table_of(scale);
  a.shift = table_of(shift);
  return a;
}

// Walks unit by unit if that keeps every thread busy, otherwise step by step over all pieces.
void run(void (*kernel)(const GroupNormArgs&, char*, int64_t, int64_t), GroupNormArgs a) {
  const int64_t threads = torch::stable::get_num_threads(), units = a.units(), pieces = a.pieces();
  const int64_t piece = a.tile_pixels() * a.walk.block_channels();
  const auto start = [&](Phase phase, int64_t tasks, int64_t work) {
    a.phase = phase;
    run_tasks(kernel, a, tasks, 8 * work, a.scratch());
  };
  if (units % threads == 0 || units >= 4 * threads) return start(Phase::whole, units, pieces / units * piece);
  start(Phase::gather, pieces, piece);
  start(Phase::combine, units, pieces / units * kLaneCount);
  start(Phase::apply, pieces, piece);
}

// Sums over the samples in order, for the gradient of a parameter that they share.
template <class Value>
void store_channels(const OptionalTensor& d, const GroupNormArgs& a, Value value) {
  if (!d) return;
  const Table table = table_of(*d);
  for (int64_t c = 0; c < a.walk.channels; ++c) {
    double sum = 0.0;
    for (int64_t b = 0; b < a.walk.batch; ++b) sum += value(b, c);
    store(table, c, 0, 0, sum);
  }
}

template <class Value>
void store_samples(const OptionalTensor& d, const GroupNormArgs& a, Value value) {
  if (!d) return;
  const Table table = table_of(*d);
  for (int64_t b = 0; b < a.walk.batch; ++b)
    for (int64_t c = 0; c < a.walk.channels; ++c) store(table, b, c, 0, value(b, c));
}

std::vector<double> values_of(const Tensor& t) {
  const Table table = table_of(t);
  std::vector<double> values;
  for (int64_t b = 0; b < t.size(0); ++b)
    for (int64_t g = 0; g < t.size(1); ++g) values.push_back(table.at(b, g, 0));
  return values;
}

void normalise(const Tensor& out, const OptionalTensor& channel_mean, double* mean, double* rstd, Tensor x,
               int64_t groups, const OptionalTensor& weight, const OptionalTensor& bias, const OptionalTensor& scale,
               const OptionalTensor& shift, double eps) {
  use_huge_pages(out);
  bring_walked_to(format_of(out), x);
  GroupNormArgs a = group_norm_args(out, x, groups, weight, bias, scale, shift);
  std::vector<double> parts(2 * a.tiles() * a.walk.batch * a.walk.channels);
  a.eps = eps;
  a.mean = mean;
  a.rstd = rstd;
  a.parts = parts.data();
  a.sums_result = channel_mean.has_value();
  run(F2D_KERNEL(group_norm_silu), a);
  store_samples(channel_mean, a, [&](int64_t b, int64_t c) {
    double sum = 0.0;
    for (int64_t tile = 0; tile < a.tiles(); ++tile) sum += *a.part(b, tile, c);
    return sum / static_cast<double>(a.walk.pixels());
  });
}

double* doubles(const Tensor& t) { return reinterpret_cast<double*>(data_of(t)); }

}  // namespace

void group_norm_silu_out(const Tensor& out, const OptionalTensor& channel_mean, const Tensor& mean, const Tensor& rstd,
                         const Tensor& x, int64_t groups, const OptionalTensor& weight, const OptionalTensor& bias,
                         const OptionalTensor& scale, const OptionalTensor& shift, double eps) {
  normalise(out, channel_mean, doubles(mean), doubles(rstd), x, groups, weight, bias, scale, shift, eps);
}

// (out, channel means, mean, rstd), the last two only where a backward pass will read them.
std::tuple<OptionalTensor, OptionalTensor, OptionalTensor, OptionalTensor> group_norm_silu_direct(
    const Tensor& x, int64_t groups, const OptionalTensor& weight, const OptionalTensor& bias,
    const OptionalTensor& scale, const OptionalTensor& shift, double eps, bool return_mean, bool keep) {
  const std::optional<ImageShape> shape = image_shape(x);
  if (!shape || groups < 1 || shape->channels % groups != 0 || !(eps >= 0.0)) return {};
  const int64_t batch = shape->batch, channels = shape->channels;
  if (!matches(weight, {channels}) || !matches(bias, {channels}) || !matches(scale, {batch, channels}) ||
      !matches(shift, {batch, channels}))
    return {};
  const Tensor out = new_image(*shape, dtype_of(x), x);
  OptionalTensor channel_mean, mean, rstd;
  if (return_mean) channel_mean = new_tensor({batch, channels}, {channels, 1}, type_of(dtype_of(x)));
  if (keep) {
    mean = new_tensor({batch, groups}, {groups, 1}, type_of(DType::f64));
    rstd = new_tensor({batch, groups}, {groups, 1}, type_of(DType::f64));
    normalise(out, channel_mean, doubles(*mean), doubles(*rstd), x, groups, weight, bias, scale, shift, eps);
  } else {
    std::vector<double> statistics(2 * batch * groups);
    normalise(out, channel_mean, statistics.data(), statistics.data() + batch * groups, x, groups, weight, bias, scale,
              shift, eps);
  }
  return {out, channel_mean, mean, rstd};
}

void group_norm_silu_backward_out(Tensor grad, const OptionalTensor& grad_mean, const Tensor& mean,
                                  const Tensor& rstd, Tensor x, const OptionalTensor& weight,
                                  const OptionalTensor& bias, const OptionalTensor& scale, const OptionalTensor& shift,
                                  const OptionalTensor& d_x, const OptionalTensor& d_weight,
                                  const OptionalTensor& d_bias, const OptionalTensor& d_scale,
                                  const OptionalTensor& d_shift) {
  use_huge_pages(d_x);
  const Format format = first_format(x.size(1), {image_stream(d_x), image_stream(x), image_stream(grad)});
  bring_walked_to(format, grad);
  bring_walked_to(format, x);
  GroupNormArgs a = group_norm_args(grad, x, mean.size(1), weight, bias, scale, shift);
  std::vector<double> means = values_of(mean), rstds = values_of(rstd);
  std::vector<double> parts(2 * a.tiles() * a.walk.batch * a.walk.channels);
  std::vector<double> sums(2 * a.walk.batch * a.walk.channels), terms(2 * a.walk.batch * a.groups);
  a.mean = means.data();
  a.rstd = rstds.data();
  a.parts = parts.data();
  a.grad_mean = table_of(grad_mean);
  a.d_x = image_stream(d_x);
  a.sums = sums.data();
  a.terms = terms.data();
  run(F2D_KERNEL(group_norm_silu_backward), a);

  const auto plain = [&](int64_t b, int64_t c) { return sums[2 * (b * a.walk.channels + c)]; };
  const auto normalised = [&](int64_t b, int64_t c) { return sums[2 * (b * a.walk.channels + c) + 1]; };
  const auto factor = [&](int64_t b, int64_t c) { return a.scale.data ? 1.0 + a.scale.at(b, c, 0) : 1.0; };
  const auto at = [](const Table& t, int64_t c, double otherwise) { return t.data ? t.at(c, 0, 0) : otherwise; };
  store_channels(d_weight, a, [&](int64_t b, int64_t c) { return factor(b, c) * normalised(b, c); });
  store_channels(d_bias, a, [&](int64_t b, int64_t c) { return factor(b, c) * plain(b, c); });
  store_samples(d_shift, a, plain);
  store_samples(d_scale, a, [&](int64_t b, int64_t c) {
    return at(a.weight, c, 1.0) * normalised(b, c) + at(a.bias, c, 0.0) * plain(b, c);
  });
}

namespace {

// The gradient of a parameter, uninitialised.
OptionalTensor new_gradient(const OptionalTensor& of, bool needed) {
  if (!of || !needed) return std::nullopt;
  const int32_t type = type_of(dtype_of(*of));
  if (of->dim() == 1) return new_tensor({of->size(0)}, {1}, type);
  return new_tensor({of->size(0), of->size(1)}, {of->size(1), 1}, type);
}

}  // namespace

// The backward pass of a direct call: the gradients that are needed of x, weight, bias, scale and shift.
std::tuple<OptionalTensor, OptionalTensor, OptionalTensor, OptionalTensor, OptionalTensor>
group_norm_silu_backward_direct(const Tensor& grad, const OptionalTensor& grad_mean, const Tensor& mean,
                                const Tensor& rstd, const Tensor& x, const OptionalTensor& weight,
                                const OptionalTensor& bias, const OptionalTensor& scale, const OptionalTensor& shift,
                                bool need_x, bool need_weight, bool need_bias, bool need_scale, bool need_shift) {
  const OptionalTensor d_x = need_x ? OptionalTensor(new_image(*image_shape(x), dtype_of(x), x)) : std::nullopt;
  const OptionalTensor d_weight = new_gradient(weight, need_weight), d_bias = new_gradient(bias, need_bias);
  const OptionalTensor d_scale = new_gradient(scale, need_scale), d_shift = new_gradient(shift, need_shift);
  group_norm_silu_backward_out(grad, grad_mean, mean, rstd, x, weight, bias, scale, shift, d_x, d_weight, d_bias,
                               d_scale, d_shift);
  return {d_x, d_weight, d_bias, d_scale, d_shift};
}

}  // namespace f2d

STABLE_TORCH_LIBRARY_IMPL(f2d_kernels, CPU, m) {
  m.impl("group_norm_silu_direct", TORCH_BOX(&f2d::group_norm_silu_direct));
  m.impl("group_norm_silu_out", TORCH_BOX(&f2d::group_norm_silu_out));
  m.impl("group_norm_silu_backward_direct", TORCH_BOX(&f2d::group_norm_silu_backward_direct));
  m.impl("group_norm_silu_backward_out", TORCH_BOX(&f2d::group_norm_silu_backward_out));
}
