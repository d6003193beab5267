// The transport step on CUDA: kernels over the bodies of transport_step_body.h, and their launchers.
#include "expert_assembly.h"
#include "transport_step_body.h"

namespace f2d {

template <class Pixels>
__global__ void __launch_bounds__(kThreads, 1)
    transport_step_forward(const __grid_constant__ TransportArgs a, int64_t threads) {
  using Index = typename Pixels::Index;
  const Index warps = static_cast<Index>(threads / kWarp);
  for (Index i = first_warp<Index>(); i < warps; i += all_warps<Index>())
    transport_forward_pixels<Pixels>(a, i, this_lane());
}

template <class A>
__global__ void __launch_bounds__(kThreads, 1)
    transport_step_quad(const __grid_constant__ TransportArgs a, int64_t threads) {
  for (int64_t i = first_thread(); i < threads; i += all_threads()) transport_forward_quad<A>(a, i, shared_quads(a));
}

template <class Pixels>
__global__ void __launch_bounds__(kThreads, 1)
    transport_step_backward(const __grid_constant__ TransportArgs a, int64_t threads) {
  using Index = typename Pixels::Index;
  const Index warps = static_cast<Index>(threads / kWarp);
  for (Index i = first_warp<Index>(); i < warps; i += all_warps<Index>())
    transport_backward_pixels<Pixels>(a, i, this_lane(), WarpReduce<float>());
}

template <class A>
__global__ void __launch_bounds__(kThreads, 1)
    transport_step_backward_quad(const __grid_constant__ TransportArgs a, int64_t threads) {
  for (int64_t i = first_thread(); i < threads; i += all_threads())
    transport_backward_quad<A>(a, i / kWarp, static_cast<int>(i % kWarp), shared_quads(a), WarpReduce<A>());
}

template <class Pixels>
__global__ void __launch_bounds__(kThreads, 1)
    transport_step_backward_experts(const __grid_constant__ TransportArgs a, int64_t threads) {
  using Index = typename Pixels::Index;
  const Index warps = static_cast<Index>(threads / kWarp);
  for (Index i = first_warp<Index>(); i < warps; i += all_warps<Index>())
    transport_backward_experts<Pixels>(a, i, this_lane(), WarpReduce<float>());
}

namespace {

struct TransportProblem {
  TransportArgs args;
  bool is_double;
};

TransportProblem transport_problem(const Tensor& image, const Tensor& x, const std::vector<Tensor>& deltas,
                                   const Tensor& gates, const OptionalTensor& maps, const OptionalTensor& base,
                                   const Tensor& log_mean, const Tensor& log_std, const OptionalTensor& anchor,
                                   double low, double high, const OptionalTensor& noise, const OptionalTensor& seed,
                                   int64_t stream, int64_t top, int64_t left) {
  TransportProblem p{};
  TransportArgs& a = p.args;
  set_experts(a, "transport_step", x, deltas, gates, maps, base);
  a.channels_inside = channels_inside(image_view(image), a.shape);
  a.noise = noise_source(noise, seed, stream, top, left, a.shape);
  a.x = image_view(x);
  a.anchor = image_view(anchor);
  a.anchored = anchor.has_value();
  a.log_mean = table_view(log_mean);
  a.log_std = table_view(log_std);
  p.is_double = any_double(
      {&x, &gates, pointer(maps), pointer(base), &log_mean, &log_std, pointer(anchor), pointer(noise)}, deltas);
  a.assembled = promoted({pointer(base)}, deltas);
  a.target = promoted(a.assembled, dtype_of(anchor ? *anchor : x));
  a.low = as_stored(low, a.target);
  a.high = as_stored(high, a.target);
  return p;
}

Touched touched(const TransportArgs& a) {
  Touched t{a.shape, a.experts,
            {&a.x, &a.anchor, &a.base, &a.x_next, &a.mu, &a.noise.given, &a.grad_x, &a.grad_mu, &a.d_x, &a.d_mu, &a.d_noise, &a.v},
            {&a.maps, &a.d_maps}};
  add_views(t.images, a.deltas, a);
  for (int64_t k = 0; k < (a.listed ? std::min<int64_t>(a.experts, kGroup) : 1); ++k) t.images.push_back(a.d_deltas + k);
  return t;
}

}  // namespace

void transport_step_out(const Tensor& x_next, const Tensor& mu, const Tensor& x, const std::vector<Tensor>& deltas,
                        const Tensor& gates, const OptionalTensor& maps, const OptionalTensor& base,
                        const Tensor& log_mean, const Tensor& log_std, const OptionalTensor& anchor, double low,
                        double high, const OptionalTensor& noise, const OptionalTensor& seed, int64_t stream,
                        int64_t top, int64_t left) {
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  const cudaStream_t current = current_stream(x);
  TransportProblem p = transport_problem(x_next, x, deltas, gates, maps, base, log_mean, log_std, anchor, low, high,
                                         noise, seed, stream, top, left);
  TransportArgs& a = p.args;
  a.x_next = image_view(x_next);
  a.mu = image_view(mu);
  const int64_t quads = a.shape.batch * Quad::lanes(a.noise, a.shape);
  const Walk walk = p.is_double ? Walk::elements : walk_of(touched(a));
  if (walk != Walk::elements) {
    with_pixels(walk, [&](auto tag) {
      using Pixels = typename decltype(tag)::Pixels;
      set_tiles<Pixels>(a);
      launch(transport_step_forward<Pixels>, a, a.shape.batch * units_of(a) * kWarp, current);
    });
  } else if (p.is_double) {
    launch(transport_step_quad<double>, a, quads, current);
  } else {
    launch(transport_step_quad<float>, a, quads, current);
  }
}

void transport_step_backward_out(const OptionalTensor& grad_x, const OptionalTensor& grad_mu, const Tensor& x,
                                 const std::vector<Tensor>& deltas, const Tensor& gates, const OptionalTensor& maps,
                                 const OptionalTensor& base, const Tensor& log_mean, const Tensor& log_std,
                                 const OptionalTensor& anchor, double low, double high, const OptionalTensor& noise,
                                 const OptionalTensor& seed, int64_t stream, int64_t top, int64_t left,
                                 const OptionalTensor& d_x, const std::vector<Tensor>& d_deltas,
                                 const OptionalTensor& d_gates, const OptionalTensor& d_maps,
                                 const OptionalTensor& d_mu, const OptionalTensor& d_log_mean,
                                 const OptionalTensor& d_log_std, const OptionalTensor& d_noise) {
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  const cudaStream_t current = current_stream(x);
  const Tensor& image = d_x ? *d_x : d_mu ? *d_mu : grad_x ? *grad_x : *grad_mu;
  TransportProblem p = transport_problem(image, x, deltas, gates, maps, base, log_mean, log_std, anchor, low, high, noise,
                                         seed, stream, top, left);
  TransportArgs& a = p.args;
  const bool is_double = p.is_double || any_double({pointer(grad_x), pointer(grad_mu)});
  a.grad_x = image_view(grad_x);
  a.grad_mu = image_view(grad_mu);
  a.d_x = image_view(d_x);
  a.d_mu = image_view(d_mu);
  a.d_noise = image_view(d_noise);
  const bool of_experts = !d_deltas.empty() || d_gates || d_maps, of_exponent = d_log_mean || d_log_std;
  a.needs_total = of_experts || of_exponent || d_mu || d_noise || (d_x && !anchor);
  if (!of_exponent && !d_noise && (anchor || !a.needs_total)) a.x = View{};  // stand-ins came for what nobody looks at
  if (!a.needs_total) {
    a.maps = a.base = a.anchor = View{};
    for (View& delta : a.deltas) delta = View{};
  }

  const bool shared = !d_deltas.empty() && a.shape.batch > 1 && !a.listed && deltas[0].size(0) == 1;
  Walk walk = Walk::elements;
  bool fused = of_experts && !is_double && a.experts <= kGroup && !shared;
  if (fused) {
    set_listed(a.d_deltas, d_deltas);
    if (d_maps) a.d_maps = view_of(*d_maps, 0, 1, -1);
    walk = walk_of(touched(a));
    if (walk != Walk::elements) with_pixels(walk, [&](auto tag) { a.tiles = tiles_of<typename decltype(tag)::Pixels>(a.shape); });
    // one pass over everything has a warp per tile, two have more
    fused = walk != Walk::elements && 2 * a.shape.batch * a.tiles >= kFewWarps;
  }
  std::optional<Tensor> v;
  if (of_experts && !fused) {
    for (View& d : a.d_deltas) d = View{};
    a.d_maps = View{};
    const auto scalar = is_double ? torch::headeronly::ScalarType::Double : torch::headeronly::ScalarType::Float;
    if (d_mu && d_mu->scalar_type() == scalar) {
      v = d_mu;
    } else {
      v = torch::stable::new_empty(x, {a.shape.batch, a.shape.channels, a.shape.height, a.shape.width}, scalar);
      a.v = image_view(*v);
    }
  }
  if (!fused && !is_double) walk = walk_of(touched(a));

  std::optional<Tensor> mean_parts, std_parts, gate_parts;
  const auto start = [&](auto kernel, int64_t units) {
    a.steps = fused ? 1 : steps_for(a.shape.batch, units, kTransportSteps);
    a.warps = (units + a.steps - 1) / a.steps;
    const int64_t warps = a.shape.batch * a.warps;
    if (of_exponent) {
      mean_parts = new_parts(x, is_double, warps);
      std_parts = new_parts(x, is_double, warps);
      a.log_mean_parts = mean_parts->data_ptr();
      a.log_std_parts = std_parts->data_ptr();
    }
    if (fused && d_gates) {
      gate_parts = new_parts(x, is_double, gates.numel() * a.tiles);
      a.gate_parts = gate_parts->data_ptr();
    }
    launch(kernel, a, warps * kWarp, current);
  };
  const int64_t quads = (Quad::per_sample(a.noise, a.shape) + kWarp - 1) / kWarp;
  if (walk != Walk::elements) {
    with_pixels(walk, [&](auto tag) {
      using Pixels = typename decltype(tag)::Pixels;
      set_tiles<Pixels>(a);
      if (fused) return start(transport_step_backward_experts<Pixels>, a.tiles);
      start(transport_step_backward<Pixels>, units_of(a));
    });
  } else if (is_double) {
    start(transport_step_backward_quad<double>, quads);
  } else {
    start(transport_step_backward_quad<float>, quads);
  }
  if (d_log_mean) sum_parts(*mean_parts, is_double, a.warps, *d_log_mean, current);
  if (d_log_std) sum_parts(*std_parts, is_double, a.warps, *d_log_std, current);
  if (gate_parts) sum_parts(*gate_parts, is_double, a.tiles, *d_gates, current);
  if (of_experts && !fused) expert_assembly_backward_out(*v, deltas, gates, maps, d_deltas, d_gates, d_maps);
}

}  // namespace f2d

STABLE_TORCH_LIBRARY_IMPL(f2d_kernels, CUDA, m) {
  m.impl("transport_step_out", TORCH_BOX(&f2d::transport_step_out));
  m.impl("transport_step_backward_out", TORCH_BOX(&f2d::transport_step_backward_out));
}
