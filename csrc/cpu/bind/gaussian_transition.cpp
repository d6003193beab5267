// The Gaussian transition on CPU tensors: arguments from PyTorch, tasks, registration under the schema of
// f2d_kernels/ops/gaussian_transition.py.
#include "../gaussian_transition.h"

#include "../dispatch.h"
#include "../format.h"
#include "../pages.h"
#include "../tensors.h"

namespace f2d {

GaussianArgs gaussian_args(const Tensor& image, const std::vector<Tensor>& terms, const Tensor& coefficients,
                           const OptionalTensor& std, const OptionalTensor& noise, const OptionalTensor& seed,
                           int64_t stream, int64_t top, int64_t left) {
  GaussianArgs a{};
  a.walk = walk_of(image);
  a.is_double = any_double({&image, &coefficients, pointer(std), pointer(noise)}, terms);
  a.count = static_cast<int>(terms.size());
  for (int j = 0; j < a.count; ++j) a.terms[j] = image_stream(terms[j]);
  a.coefficients = table_of(coefficients);
  a.noise = noise_source(noise, seed, stream, top, left);
  a.std = table_of(std);
  a.image = image_stream(image);
  return a;
}

void gaussian_transition_out(const Tensor& out, std::vector<Tensor> terms, const Tensor& coefficients,
                             const OptionalTensor& std, OptionalTensor noise, const OptionalTensor& seed, int64_t stream,
                             int64_t top, int64_t left) {
  use_huge_pages(out);
  bring_operands_to(format_of(out), Runs::kept, terms, noise);
  const GaussianArgs a = gaussian_args(out, terms, coefficients, std, noise, seed, stream, top, left);
  const int64_t block = a.walk.block_elements(), work = (a.count + (a.std.data ? 5 : 1)) * block;
  run_tasks(F2D_KERNEL(gaussian_transition), a, a.walk.batch * a.walk.planes() * a.walk.blocks(), work, 6 * block);
}

// An empty d_terms[j] is not computed.
void gaussian_transition_backward_out(Tensor grad, std::vector<Tensor> terms, const Tensor& coefficients,
                                      const OptionalTensor& std, OptionalTensor noise, const OptionalTensor& seed,
                                      int64_t stream, int64_t top, int64_t left, const std::vector<Tensor>& d_terms,
                                      const OptionalTensor& d_coefficients, const OptionalTensor& d_std,
                                      const OptionalTensor& d_noise) {
  use_huge_pages(d_terms, d_noise);
  Stream result = image_stream(d_noise);
  for (const Tensor& d : d_terms)
    if (d.numel() > 0) result = image_stream(d);
  const Format format = first_format(grad.size(1), {result, image_stream(terms[0]), image_stream(noise), image_stream(grad)});
  bring_walked_to(format, grad);
  bring_operands_to(format, Runs::kept, terms, noise);
  GaussianArgs a = gaussian_args(grad, terms, coefficients, std, noise, seed, stream, top, left);
  const Walk& walk = a.walk;
  const int64_t tiles = walk.tiles() * walk.planes();
  std::vector<double> coefficient_parts(d_coefficients ? tiles * walk.batch * a.count : 0);
  std::vector<double> std_parts(d_std ? tiles * walk.batch : 0);
  for (int j = 0; j < a.count; ++j)
    if (d_terms[j].numel() > 0) a.d_terms[j] = image_stream(d_terms[j]);
  a.d_noise = image_stream(d_noise);
  a.coefficient_parts = d_coefficients ? coefficient_parts.data() : nullptr;
  a.std_parts = d_std ? std_parts.data() : nullptr;
  run_tasks(F2D_KERNEL(gaussian_transition_backward), a, walk.batch * tiles,
            (a.count + 1) * walk.tile_pixels() * walk.block_channels(), 3 * walk.block_elements());
  store_sums(d_coefficients, a.coefficient_parts, tiles, walk.batch, a.count);
  store_sums(d_std, a.std_parts, tiles, walk.batch);
}

// coefficients: [B,J], or else numbers. Without noise (std 0) there is no source of noise.
OptionalTensor gaussian_transition_direct(const std::vector<Tensor>& terms, const OptionalTensor& coefficients,
                                          const std::vector<double>& numbers, bool noisy, const OptionalTensor& std,
                                          double std_number, const OptionalTensor& noise, const OptionalTensor& seed,
                                          int64_t seed_number, int64_t stream) {
  const int64_t count = static_cast<int64_t>(terms.size());
  if (count < 1 || count > kMaxTerms) return std::nullopt;
  const std::optional<ImageShape> shape = image_shape(terms[0]);
  if (!shape || (coefficients ? !matches(*coefficients, {shape->batch, count}) : static_cast<int64_t>(numbers.size()) != count))
    return std::nullopt;
  bool wide = false;
  for (const Tensor& t : terms) {
    if (!matches(OptionalTensor(t), *shape)) return std::nullopt;
    wide |= dtype_of(t) == DType::f64;
  }
  Tensor factors = coefficients ? *coefficients : new_tensor({1, count}, {count, 1}, type_of(wide ? DType::f64 : DType::f32));
  if (!coefficients)
    for (int64_t j = 0; j < count; ++j) store(table_of(factors), 0, j, 0, numbers[j]);
  const OptionalTensor deviation = schedule(std, std_number, shape->batch, wide);
  const Source source(noise, seed, seed_number, *shape);
  if (!deviation || !source.fits) return std::nullopt;
  const Tensor out = new_image(*shape, promoted({}, terms), terms[0]);
  if (noisy) gaussian_transition_out(out, terms, factors, deviation, source.noise, source.seed, stream, 0, 0);
  if (!noisy) gaussian_transition_out(out, terms, factors, std::nullopt, std::nullopt, std::nullopt, stream, 0, 0);
  return out;
}

}  // namespace f2d

STABLE_TORCH_LIBRARY_IMPL(f2d_kernels, CPU, m) {
  m.impl("gaussian_transition_direct", TORCH_BOX(&f2d::gaussian_transition_direct));
  m.impl("gaussian_transition_out", TORCH_BOX(&f2d::gaussian_transition_out));
  m.impl("gaussian_transition_backward_out", TORCH_BOX(&f2d::gaussian_transition_backward_out));
}
