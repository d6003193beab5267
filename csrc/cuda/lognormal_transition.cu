// The lognormal transition on CUDA: kernels over the bodies of lognormal_transition_body.h, and their launchers.
#include "launch.h"
#include "lognormal_transition_body.h"

namespace f2d {

template <class Pixels>
__global__ void __launch_bounds__(kThreads, 1)
    lognormal_transition_forward(const __grid_constant__ LognormalArgs a, int64_t threads) {
  using Index = typename Pixels::Index;
  const Index warps = static_cast<Index>(threads / kWarp);
  for (Index i = first_warp<Index>(); i < warps; i += all_warps<Index>())
    lognormal_forward_pixels<Pixels>(a, i, this_lane());
}

template <class A>
__global__ void __launch_bounds__(kThreads, 1)
    lognormal_transition_quad(const __grid_constant__ LognormalArgs a, int64_t threads) {
  for (int64_t i = first_thread(); i < threads; i += all_threads()) lognormal_forward_quad<A>(a, i, shared_quads(a));
}

template <class Pixels>
__global__ void __launch_bounds__(kThreads, 1)
    lognormal_transition_backward(const __grid_constant__ LognormalArgs a, int64_t threads) {
  using Index = typename Pixels::Index;
  const Index warps = static_cast<Index>(threads / kWarp);
  for (Index i = first_warp<Index>(); i < warps; i += all_warps<Index>())
    lognormal_backward_pixels<Pixels>(a, i, this_lane(), WarpReduce<float>());
}

template <class A>
__global__ void __launch_bounds__(kThreads, 1)
    lognormal_transition_backward_quad(const __grid_constant__ LognormalArgs a, int64_t threads) {
  for (int64_t i = first_thread(); i < threads; i += all_threads())
    lognormal_backward_quad<A>(a, i / 32, static_cast<int>(i % 32), shared_quads(a), WarpReduce<A>());
}

namespace {

LognormalArgs lognormal_args(const Tensor& image, const Tensor& x, const Tensor& mu, const Tensor& log_mean,
                             const Tensor& log_std, const OptionalTensor& noise, const OptionalTensor& seed,
                             int64_t stream, int64_t top, int64_t left) {
  LognormalArgs a{};
  a.shape = {image.size(0), image.size(1), image.size(2), image.size(3)};
  a.x = image_view(x);
  a.mu = image_view(mu);
  a.noise = noise_source(noise, seed, stream, top, left, a.shape);
  a.image = image_view(image);
  a.log_mean = table_view(log_mean);
  a.log_std = table_view(log_std);
  a.channels_inside = channels_inside(a.image, a.shape);
  return a;
}

// Chooses the walk. If noise is given, images without gaps that are all alike become one row a sample.
Walk settle(LognormalArgs& a) {
  Touched t{a.shape, 1, {&a.image, &a.x, &a.mu, &a.noise.given, &a.d_x, &a.d_mu, &a.d_noise}, {}};
  if (a.channels_inside && a.noise.given.data && t.fit(true, 4)) {
    t.shape = a.shape = {a.shape.batch, 1, 1, a.shape.channels * a.shape.pixels()};
    a.noise.quads_per_row = Quad::per_row(a.noise, a.shape);  // read if the row is too long for the other walks
    for (View* v : {&a.image, &a.x, &a.mu, &a.noise.given, &a.d_x, &a.d_mu, &a.d_noise}) v->c = v->h = 0, v->w = 1;
  }
  return walk_of(t);
}

void set_warps(LognormalArgs& a, int64_t units) {
  a.steps = steps_for(a.shape.batch, units, kSteps);
  a.warps = (units + a.steps - 1) / a.steps;
}

}  // namespace

void lognormal_transition_out(const Tensor& out, const Tensor& x, const Tensor& mu, const Tensor& log_mean,
                              const Tensor& log_std, const OptionalTensor& noise, const OptionalTensor& seed,
                              int64_t stream, int64_t top, int64_t left) {
  const torch::stable::accelerator::DeviceGuard guard(out.get_device_index());
  LognormalArgs a = lognormal_args(out, x, mu, log_mean, log_std, noise, seed, stream, top, left);
  const cudaStream_t current = current_stream(out);
  const bool is_double = any_double({&out, &x, &mu, &log_mean, &log_std, pointer(noise)});
  const Walk walk = is_double ? Walk::elements : settle(a);
  if (walk != Walk::elements) {
    with_pixels(walk, [&](auto tag) {
      using Pixels = typename decltype(tag)::Pixels;
      a.tiles = tiles_of<Pixels>(a.shape);
      set_warps(a, units_of<Pixels>(a));
      launch(lognormal_transition_forward<Pixels>, a, a.shape.batch * a.warps * kWarp, current);
    });
  } else if (is_double) {
    launch(lognormal_transition_quad<double>, a, a.shape.batch * Quad::lanes(a.noise, a.shape), current);
  } else {
    launch(lognormal_transition_quad<float>, a, a.shape.batch * Quad::lanes(a.noise, a.shape), current);
  }
}

void lognormal_transition_backward_out(const Tensor& grad, const Tensor& x, const Tensor& mu, const Tensor& log_mean,
                                       const Tensor& log_std, const OptionalTensor& noise, const OptionalTensor& seed,
                                       int64_t stream, int64_t top, int64_t left, const OptionalTensor& d_x,
                                       const OptionalTensor& d_mu, const OptionalTensor& d_log_mean,
                                       const OptionalTensor& d_log_std, const OptionalTensor& d_noise) {
  const torch::stable::accelerator::DeviceGuard guard(grad.get_device_index());
  const cudaStream_t current = current_stream(grad);
  LognormalArgs a = lognormal_args(grad, x, mu, log_mean, log_std, noise, seed, stream, top, left);
  a.d_x = image_view(d_x);
  a.d_mu = image_view(d_mu);
  a.d_noise = image_view(d_noise);
  if (!d_log_mean && !d_log_std && !d_noise) a.x = a.mu = View{};  // d_x and d_mu do not look at them: stand-ins came
  const bool is_double = any_double({&grad, &x, &mu, &log_mean, &log_std, pointer(noise)});
  const Walk walk = is_double ? Walk::elements : settle(a);
  std::optional<Tensor> mean_parts, std_parts;
  const auto start = [&](auto kernel, int64_t units) {
    set_warps(a, units);
    const int64_t count = a.shape.batch * a.warps;
    if (d_log_mean || d_log_std) {
      mean_parts = new_parts(grad, is_double, count);
      std_parts = new_parts(grad, is_double, count);
      a.log_mean_parts = mean_parts->data_ptr();
      a.log_std_parts = std_parts->data_ptr();
    }
    launch(kernel, a, count * kWarp, current);
  };
  const int64_t quads = (Quad::per_sample(a.noise, a.shape) + kWarp - 1) / kWarp;
  if (walk != Walk::elements) {
    with_pixels(walk, [&](auto tag) {
      using Pixels = typename decltype(tag)::Pixels;
      a.tiles = tiles_of<Pixels>(a.shape);
      start(lognormal_transition_backward<Pixels>, units_of<Pixels>(a));
    });
  } else if (is_double) {
    start(lognormal_transition_backward_quad<double>, quads);
  } else {
    start(lognormal_transition_backward_quad<float>, quads);
  }
  if (d_log_mean) sum_parts(*mean_parts, is_double, a.warps, *d_log_mean, current);
  if (d_log_std) sum_parts(*std_parts, is_double, a.warps, *d_log_std, current);
}

}  // namespace f2d

STABLE_TORCH_LIBRARY_IMPL(f2d_kernels, CUDA, m) {
  m.impl("lognormal_transition_out", TORCH_BOX(&f2d::lognormal_transition_out));
  m.impl("lognormal_transition_backward_out", TORCH_BOX(&f2d::lognormal_transition_backward_out));
}
