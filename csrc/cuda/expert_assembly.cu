// The expert assembly on CUDA: kernels over the bodies of expert_assembly_body.h, and their launchers.
#include "expert_assembly.h"

namespace f2d {

template <class Pixels>
__global__ void __launch_bounds__(kThreads, 1)
    expert_assembly_forward(const __grid_constant__ AssemblyArgs a, int64_t threads) {
  using Index = typename Pixels::Index;
  const Index warps = static_cast<Index>(threads / kWarp);
  for (Index i = first_warp<Index>(); i < warps; i += all_warps<Index>())
    assembly_forward_pixels<Pixels>(a, i, this_lane());
}

template <class Access>
__global__ void __launch_bounds__(kThreads, 1)
    expert_assembly_interleaved(const __grid_constant__ AssemblyArgs a, int64_t threads) {
  for (int64_t i = first_thread(); i < threads; i += all_threads())
    assembly_forward_interleaved<Access>(a, static_cast<typename Access::Index>(i));
}

template <class A>
__global__ void __launch_bounds__(kThreads, 1)
    expert_assembly_element(const __grid_constant__ AssemblyArgs a, int64_t threads) {
  for (int64_t i = first_thread(); i < threads; i += all_threads()) assembly_forward_element<A>(a, i);
}

template <class A>
__global__ void __launch_bounds__(kThreads, 1)
    expert_assembly_shared_delta(const __grid_constant__ AssemblyArgs a, int64_t threads) {
  for (int64_t i = first_thread(); i < threads; i += all_threads()) assembly_shared_delta_element<A>(a, i);
}

template <class Pixels>
__global__ void __launch_bounds__(kThreads, 1)
    expert_assembly_backward(const __grid_constant__ AssemblyArgs a, int64_t threads) {
  using A = typename Pixels::Value;
  using Index = typename Pixels::Index;
  const auto reduce = [&a](A value, int64_t slot) { WarpReduce<A>()(value, a.gate_parts, slot); };
  const Index warps = static_cast<Index>(threads / kWarp);
  for (Index i = first_warp<Index>(); i < warps; i += all_warps<Index>())
    assembly_backward_lane<Pixels>(a, i, this_lane(), reduce);
}

namespace {

struct Problem {
  AssemblyArgs args;
  bool is_double, stacked;
};

Problem problem_of(const Tensor& image, const std::vector<Tensor>& deltas, const Tensor& gates, const OptionalTensor& maps,
                   const OptionalTensor& base) {
  Problem p{};
  AssemblyArgs& a = p.args;
  set_experts(a, "expert_assembly", image, deltas, gates, maps, base);
  p.stacked = !a.listed;
  a.image = image_view(image);
  a.channels_inside = channels_inside(a.image, a.shape);
  p.is_double = any_double({&image, &gates, pointer(maps), pointer(base)}, deltas);
  return p;
}

Touched touched(const AssemblyArgs& a) {
  Touched t{a.shape, a.experts, {&a.image, &a.base}, {&a.maps, &a.d_maps}};
  add_views(t.images, a.deltas, a);
  add_views(t.images, a.d_deltas, a);
  return t;
}

}  // namespace

void expert_assembly_out(const Tensor& out, const std::vector<Tensor>& deltas, const Tensor& gates,
                         const OptionalTensor& maps, const OptionalTensor& base) {
  const torch::stable::accelerator::DeviceGuard guard(out.get_device_index());
  const cudaStream_t stream = current_stream(out);
  Problem p = problem_of(out, deltas, gates, maps, base);
  AssemblyArgs& a = p.args;
  const Touched t = touched(a);
  const Walk walk = p.is_double ? Walk::elements : walk_of(t);
  if (walk != Walk::elements) {
    with_pixels(walk, [&](auto tag) {
      using Pixels = typename decltype(tag)::Pixels;
      set_tiles<Pixels>(a);
      launch(expert_assembly_forward<Pixels>, a, a.shape.batch * units_of(a) * kWarp, stream);
    });
  } else if (!p.is_double && a.channels_inside && t.fit(true, 4) &&
             (!maps || (equidistant(a.maps, a.shape) && a.maps.w == 1))) {
    const std::optional<DType> one = t.one_type();
    if (one == DType::f32) {
      launch(expert_assembly_interleaved<Floats>, a, out.numel() / 4, stream);
    } else if (one == DType::bf16 && t.fit(true, 8) && out.numel() / (8 * kWarp) >= kFewWarps) {
      launch(expert_assembly_interleaved<BFloats>, a, out.numel() / 8, stream);
    } else {
      launch(expert_assembly_interleaved<AnyType>, a, out.numel() / 4, stream);
    }
  } else if (p.is_double) {
    launch(expert_assembly_element<double>, a, out.numel(), stream);
  } else {
    launch(expert_assembly_element<float>, a, out.numel(), stream);
  }
}

void expert_assembly_backward_out(const Tensor& grad, const std::vector<Tensor>& deltas, const Tensor& gates,
                                  const OptionalTensor& maps, const std::vector<Tensor>& d_deltas,
                                  const OptionalTensor& d_gates, const OptionalTensor& d_maps) {
  const torch::stable::accelerator::DeviceGuard guard(grad.get_device_index());
  const cudaStream_t stream = current_stream(grad);
  Problem p = problem_of(grad, deltas, gates, maps, std::nullopt);
  AssemblyArgs& a = p.args;
  set_listed(a.d_deltas, d_deltas);
  if (!d_deltas.empty() && p.stacked && deltas[0].size(0) == 1 && a.shape.batch > 1) {
    const int64_t elements = d_deltas[0].numel();
    if (p.is_double) {
      launch(expert_assembly_shared_delta<double>, a, elements, stream);
    } else {
      launch(expert_assembly_shared_delta<float>, a, elements, stream);
    }
    a.d_deltas[0].data = nullptr;  // what follows does the sums over pixels only
    if (!d_gates && !d_maps) return;
  }
  if (d_maps) a.d_maps = view_of(*d_maps, 0, 1, -1);
  if (!d_gates && !d_maps)  // d_deltas do not look at the deltas: stand-ins came
    for (View& delta : a.deltas) delta = View{};
  std::optional<Tensor> parts;
  const auto start = [&](auto tag) {
    using Pixels = typename decltype(tag)::Pixels;
    a.tiles = tiles_of<Pixels>(a.shape);
    a.splits = a.shape.batch * a.tiles < kFewWarps ? a.experts : 1;
    if (d_gates) {
      parts = new_parts(grad, p.is_double, gates.numel() * a.tiles);
      a.gate_parts = parts->data_ptr();
    }
    launch(expert_assembly_backward<Pixels>, a, a.shape.batch * a.tiles * a.splits * kWarp, stream);
  };
  const Walk walk = p.is_double ? Walk::elements : walk_of(touched(a));
  if (walk != Walk::elements) {
    with_pixels(walk, start);
  } else if (p.is_double) {
    start(Tag<ElementPixels<double>>());
  } else {
    start(Tag<ElementPixels<float>>());
  }
  if (d_gates) sum_parts(*parts, p.is_double, a.tiles, *d_gates, stream);
}

}  // namespace f2d

STABLE_TORCH_LIBRARY_IMPL(f2d_kernels, CUDA, m) {
  m.impl("expert_assembly_out", TORCH_BOX(&f2d::expert_assembly_out));
  m.impl("expert_assembly_backward_out", TORCH_BOX(&f2d::expert_assembly_backward_out));
}
