// The expert assembly on CUDA: kernels over the bodies of expert_assembly_body.h, and their launchers.
#include "expert_assembly.h"
#include "expert_assembly_triples.h"

namespace f2d {

__global__ void __launch_bounds__(kThreads, 1)
    expert_assembly_planar(const __grid_constant__ AssemblyArgs a, int64_t threads) {
  for (int64_t i = first_thread(); i < threads; i += all_threads()) assembly_forward_planar(a, i);
}

__global__ void __launch_bounds__(kThreads, 1)
    expert_assembly_interleaved(const __grid_constant__ AssemblyArgs a, int64_t threads) {
  for (int64_t i = first_thread(); i < threads; i += all_threads()) assembly_forward_interleaved(a, i);
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

// A warp's 32 threads stay together: `threads` is a multiple of 32, and so is the stride.
template <class Pixels>
__global__ void __launch_bounds__(kThreads, 1)
    expert_assembly_backward(const __grid_constant__ AssemblyArgs a, int64_t threads) {
  using A = typename Pixels::Value;
  const auto reduce = [&a](A value, int64_t slot) { WarpReduce<A>()(value, a.gate_parts, slot); };
  for (int64_t i = first_thread(); i < threads; i += all_threads())
    assembly_backward_lane<Pixels>(a, i / kWarp, static_cast<int>(i % kWarp), reduce);
}

__global__ void __launch_bounds__(kThreads, 1)
    expert_assembly_backward_triples(const __grid_constant__ AssemblyArgs a, int64_t threads) {
  const auto reduce = [&a](float value, int64_t slot) { WarpReduce<float>()(value, a.gate_parts, slot); };
  for (int64_t i = first_thread(); i < threads; i += all_threads())
    assembly_backward_triples(a, i / kWarp, static_cast<int>(i % kWarp), reduce);
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
  p.is_double = any_double({&image, &gates, pointer(maps), pointer(base)});
  for (const Tensor& t : deltas) p.is_double |= any_double({&t});
  return p;
}

// Pixels that follow each other at one distance, of which channels are the innermost where `channels` is not 1.
bool walks(const View& v, const Shape& s, int64_t channels) {
  if (!v.data) return true;
  const bool flat = steps(v.h, s.height, s.width * v.w) || s.width == 1;
  return flat && (channels == 1 || (v.c == 1 && steps(v.w, s.width, channels) && steps(v.h, s.height, s.width * channels)));
}

// Images [h, w, 3] without gaps, maps whose pixels can be counted.
bool has_triples(const AssemblyArgs& a) {
  if (!a.channels_inside || a.shape.channels != 3 || !walks(a.image, a.shape, 3)) return false;
  for (int64_t k = 0; k < (a.listed ? a.experts : 1); ++k)
    if (!walks(a.deltas[k], a.shape, 3) || !walks(a.d_deltas[k], a.shape, 3)) return false;
  return a.shape.width > 1 && walks(a.maps, a.shape, 1) && walks(a.d_maps, a.shape, 1);
}

}  // namespace

void expert_assembly_out(const Tensor& out, const std::vector<Tensor>& deltas, const Tensor& gates,
                         const OptionalTensor& maps, const OptionalTensor& base) {
  const torch::stable::accelerator::DeviceGuard guard(out.get_device_index());
  const cudaStream_t stream = current_stream(out);
  const Problem p = problem_of(out, deltas, gates, maps, base);
  const AssemblyArgs& a = p.args;
  const bool inside = a.channels_inside;
  const bool images_fit = !p.is_double && fits_vectors(a.image, a.shape, inside) && fits_vectors(a.base, a.shape, inside) &&
                          all_fit(a.deltas, a, inside);
  const bool maps_linear = !maps || steps(a.maps.h, a.shape.height, a.shape.width * a.maps.w);
  if (images_fit && !inside && fits_vectors(a.maps, a.shape, false)) {
    launch(expert_assembly_planar, a, PlaneVector::count(a), stream);
  } else if (images_fit && inside && (!maps || (maps_linear && steps(a.maps.w, a.shape.width, 1)))) {
    launch(expert_assembly_interleaved, a, out.numel() / kVector, stream);
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
  const bool vectors = !p.is_double && fits_vectors(a.image, a.shape, false) && fits_vectors(a.maps, a.shape, false) &&
                       fits_vectors(a.d_maps, a.shape, false) && all_fit(a.deltas, a, false) &&
                       all_fit(a.d_deltas, a, false);
  const int64_t tile_pixels = kWarp * (vectors ? kVector : 1);
  a.tiles = (a.shape.pixels() + tile_pixels - 1) / tile_pixels;
  std::optional<Tensor> parts;
  if (d_gates) {
    parts = new_parts(grad, p.is_double, gates.numel() * a.tiles);
    a.gate_parts = parts->data_ptr();
  }
  a.splits = a.shape.batch * a.tiles < kFewWarps ? a.experts : 1;
  const int64_t threads = a.shape.batch * a.tiles * a.splits * kWarp;
  if (vectors) {
    launch(expert_assembly_backward<VectorPixels>, a, threads, stream);
  } else if (!p.is_double && has_triples(a)) {
    launch(expert_assembly_backward_triples, a, threads, stream);
  } else if (p.is_double) {
    launch(expert_assembly_backward<ElementPixels<double>>, a, threads, stream);
  } else {
    launch(expert_assembly_backward<ElementPixels<float>>, a, threads, stream);
  }
  if (d_gates) sum_parts(*parts, p.is_double, a.tiles, *d_gates, stream);
}

}  // namespace f2d

STABLE_TORCH_LIBRARY_IMPL(f2d_kernels, CUDA, m) {
  m.impl("expert_assembly_out", TORCH_BOX(&f2d::expert_assembly_out));
  m.impl("expert_assembly_backward_out", TORCH_BOX(&f2d::expert_assembly_backward_out));
}
