// The log-normal transition on CPU tensors: arguments from PyTorch, tasks, registration under the schema of
// f2d_kernels/ops/lognormal_transition.py.
#include "../lognormal_transition.h"

#include "../dispatch.h"
#include "../format.h"
#include "../pages.h"
#include "../tensors.h"

namespace f2d {

LognormalArgs lognormal_args(const Tensor& image, const Tensor& x, const Tensor& mu, const Tensor& log_mean,
                             const Tensor& log_std, const OptionalTensor& noise, const OptionalTensor& seed,
                             int64_t stream, int64_t top, int64_t left) {
  LognormalArgs a{};
  a.walk = walk_of(image);
  a.is_double = any_double({&image, &x, &mu, &log_mean, &log_std, pointer(noise)});
  a.x = image_stream(x);
  a.mu = image_stream(mu);
  a.noise = noise_source(noise, seed, stream, top, left);
  a.log_mean = table_of(log_mean);
  a.log_std = table_of(log_std);
  a.image = image_stream(image);
  return a;
}

void lognormal_transition_out(const Tensor& out, Tensor x, Tensor mu, const Tensor& log_mean, const Tensor& log_std,
                              OptionalTensor noise, const OptionalTensor& seed, int64_t stream, int64_t top,
                              int64_t left) {
  use_huge_pages(out);
  bring_operands_to(format_of(out), Runs::kept, x, mu, noise);
  const LognormalArgs a = lognormal_args(out, x, mu, log_mean, log_std, noise, seed, stream, top, left);
  const int64_t block = a.walk.block_elements();
  run_tasks(F2D_KERNEL(lognormal_transition), a, a.walk.batch * a.walk.planes() * a.walk.blocks(), 8 * block, 4 * block);
}

void lognormal_transition_backward_out(Tensor grad, Tensor x, Tensor mu, const Tensor& log_mean,
                                       const Tensor& log_std, OptionalTensor noise, const OptionalTensor& seed,
                                       int64_t stream, int64_t top, int64_t left, const OptionalTensor& d_x,
                                       const OptionalTensor& d_mu, const OptionalTensor& d_log_mean,
                                       const OptionalTensor& d_log_std, const OptionalTensor& d_noise) {
  use_huge_pages(d_x, d_mu, d_noise);
  const Format format = first_format(grad.size(1), {image_stream(d_x), image_stream(d_mu), image_stream(d_noise),
                                                    image_stream(x), image_stream(noise), image_stream(grad)});
  bring_walked_to(format, grad);
  bring_operands_to(format, Runs::kept, x, mu, noise);
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
  store_sums(d_log_mean, a.log_mean_parts, tiles, walk.batch);
  store_sums(d_log_std, a.log_std_parts, tiles, walk.batch);
}

OptionalTensor lognormal_transition_direct(const Tensor& x, const Tensor& mu, const OptionalTensor& log_mean,
                                           double mean_number, const OptionalTensor& log_std, double std_number,
                                           const OptionalTensor& noise, const OptionalTensor& seed, int64_t seed_number,
                                           int64_t stream) {
  const std::optional<ImageShape> shape = image_shape(x);
  if (!shape || !matches(OptionalTensor(mu), *shape)) return std::nullopt;
  const bool wide = any_double({&x, &mu});
  const OptionalTensor mean = schedule(log_mean, mean_number, shape->batch, wide);
  const OptionalTensor std = schedule(log_std, std_number, shape->batch, wide);
  const Source source(noise, seed, seed_number, *shape);
  if (!mean || !std || !source.fits) return std::nullopt;
  const Tensor out = new_image(*shape, promoted({&x, &mu}), x);
  lognormal_transition_out(out, x, mu, *mean, *std, source.noise, source.seed, stream, 0, 0);
  return out;
}

}  // namespace f2d

STABLE_TORCH_LIBRARY_IMPL(f2d_kernels, CPU, m) {
  m.impl("lognormal_transition_direct", TORCH_BOX(&f2d::lognormal_transition_direct));
  m.impl("lognormal_transition_out", TORCH_BOX(&f2d::lognormal_transition_out));
  m.impl("lognormal_transition_backward_out", TORCH_BOX(&f2d::lognormal_transition_backward_out));
}
