// The headers of csrc, the bodies of the CUDA kernels included, behind C functions for ctypes: what a GPU thread computes,
// computed here, thread by thread.
#include "cuda/expert_assembly_body.h"
#include "cuda/lognormal_transition_body.h"

using namespace f2d;

namespace {

// data, strides b k c h w, dtype; data 0: absent
View view(const int64_t* v) {
  return {reinterpret_cast<char*>(v[0]), v[1], v[2], v[3], v[4], v[5], static_cast<DType>(v[6])};
}

AssemblyArgs assembly(const int64_t* shape, const int64_t* flags, const int64_t* views, const int64_t* deltas,
                      const int64_t* d_deltas) {
  AssemblyArgs a{};
  a.shape = {shape[0], shape[1], shape[2], shape[3]};
  a.experts = shape[4];
  a.listed = flags[0], a.channel_gates = flags[1], a.channels_inside = flags[2];
  a.gates = view(views), a.maps = view(views + 7), a.image = view(views + 14), a.base = view(views + 21);
  a.d_maps = view(views + 28);
  for (int64_t k = 0; k < (a.listed ? a.experts : 1); ++k) {
    a.deltas[k] = view(deltas + 7 * k);
    if (d_deltas) a.d_deltas[k] = view(d_deltas + 7 * k);
  }
  return a;
}

template <class Pixels>
void assembly_backward(AssemblyArgs a, double* d_gates) {
  using A = typename Pixels::Value;
  const int64_t tile_pixels = kWarp * Pixels::kCount;
  a.tiles = (a.shape.pixels() + tile_pixels - 1) / tile_pixels;
  A used{};
  a.gate_parts = d_gates ? &used : nullptr;
  for (int64_t warp = 0; warp < a.shape.batch * a.tiles; ++warp)
    for (int lane = 0; lane < kWarp; ++lane)
      assembly_backward_lane<Pixels>(a, warp, lane, [&](A value, int64_t slot) { d_gates[slot / a.tiles] += value; });
}

LognormalArgs lognormal(const int64_t* shape, const int64_t* views, const int64_t* noise) {
  LognormalArgs a{};
  a.shape = {shape[0], shape[1], shape[2], shape[3]};
  a.channels_inside = shape[4];
  a.x = view(views), a.mu = view(views + 7), a.noise.given = view(views + 14), a.image = view(views + 21);
  a.log_mean = view(views + 28), a.log_std = view(views + 35);
  a.d_x = view(views + 42), a.d_mu = view(views + 49), a.d_noise = view(views + 56);
  NoiseSource& source = a.noise;
  source.seeds = reinterpret_cast<const int64_t*>(noise[0]);
  source.seed_per_sample = noise[1], source.seed_stride = noise[2];
  source.stream = static_cast<uint32_t>(noise[3]), source.top = static_cast<uint32_t>(noise[4]);
  source.left = static_cast<uint32_t>(noise[5]);
  source.quads_per_row = Quad::per_row(source, a.shape);
  return a;
}

template <class A>
struct AddTo {
  const LognormalArgs& a;
  double *mean, *std;
  void operator()(A value, void* parts, int64_t slot) const {
    (parts == a.log_mean_parts ? mean : std)[slot / a.tiles] += static_cast<double>(value);
  }
};

}  // namespace

extern "C" {

void driver_philox(const uint32_t* counter, const uint32_t* key, uint32_t* words) {
  const Words w = philox({counter[0], counter[1], counter[2], counter[3]}, key[0], key[1]);
  words[0] = w.w0, words[1] = w.w1, words[2] = w.w2, words[3] = w.w3;
}

void driver_normal(const uint32_t* words, float* u, float* eps, int64_t pairs) {
  for (int64_t i = 0; i < pairs; ++i) {
    u[2 * i] = uniform(words[2 * i]);
    u[2 * i + 1] = uniform(words[2 * i + 1]);
    box_muller(words[2 * i], words[2 * i + 1], eps[2 * i], eps[2 * i + 1]);
  }
}

void driver_exponential(const float* z, float* exp, float* expm1, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const Exponential<float> e = exponential(z[i]);
    exp[i] = e.exp;
    expm1[i] = e.expm1;
  }
}

void driver_fma(const float* a, const float* b, const float* c, float* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = f2d::fma(a[i], b[i], c[i]);
}

void driver_halves(const float* in, uint16_t* as_f16, uint16_t* as_bf16, int64_t n) {
  for (int64_t i = 0; i < n; ++i) as_f16[i] = to_f16(in[i]).bits, as_bf16[i] = to_bf16(in[i]).bits;
}

void driver_from_halves(const uint16_t* in, float* from_f16, float* from_bf16, int64_t n) {
  for (int64_t i = 0; i < n; ++i) from_f16[i] = to_float(f16{in[i]}), from_bf16[i] = to_float(bf16{in[i]});
}

// Threads [begin, end) of a forward kernel. kind: 0 planar vectors, 1 channels_last vectors, 2 elements in float, 3 in double
void driver_assembly_forward(int kind, int64_t begin, int64_t end, const int64_t* shape, const int64_t* flags,
                             const int64_t* views, const int64_t* deltas) {
  const AssemblyArgs a = assembly(shape, flags, views, deltas, nullptr);
  for (int64_t i = begin; i < end; ++i) {
    if (kind == 0) assembly_forward_planar(a, i);
    if (kind == 1) assembly_forward_interleaved(a, i);
    if (kind == 2) assembly_forward_element<float>(a, i);
    if (kind == 3) assembly_forward_element<double>(a, i);
  }
}

// kind: 0 vectors, 2 elements in float, 3 elements in double; shared: d_deltas [1, K, C, H, W] summed over the batch
void driver_assembly_backward(int kind, int shared, const int64_t* shape, const int64_t* flags, const int64_t* views,
                              const int64_t* deltas, const int64_t* d_deltas, double* d_gates) {
  AssemblyArgs a = assembly(shape, flags, views, deltas, d_deltas);
  if (shared) {
    for (int64_t i = 0; i < a.experts * a.shape.channels * a.shape.pixels(); ++i) {
      if (kind == 3) assembly_shared_delta_element<double>(a, i);
      if (kind != 3) assembly_shared_delta_element<float>(a, i);
    }
    a.d_deltas[0].data = nullptr;
  }
  if (kind == 0) assembly_backward<VectorPixels>(a, d_gates);
  if (kind == 2) assembly_backward<ElementPixels<float>>(a, d_gates);
  if (kind == 3) assembly_backward<ElementPixels<double>>(a, d_gates);
}

// kind: 0 vectors, 2 quads in float, 3 quads in double
void driver_lognormal_forward(int kind, int64_t begin, int64_t end, const int64_t* shape, const int64_t* views,
                              const int64_t* noise) {
  const LognormalArgs a = lognormal(shape, views, noise);
  for (int64_t i = begin; i < end; ++i) {
    if (kind == 0) lognormal_forward_vector(a, i);
    if (kind == 2) lognormal_forward_quad<float>(a, i);
    if (kind == 3) lognormal_forward_quad<double>(a, i);
  }
}

void driver_lognormal_backward(int kind, const int64_t* shape, const int64_t* views, const int64_t* noise,
                               double* d_log_mean, double* d_log_std) {
  LognormalArgs a = lognormal(shape, views, noise);
  const int64_t per_warp = 32 * (kind == 0 ? kSteps * kVector : kQuadSteps);
  const int64_t work = kind == 0 ? a.shape.channels * a.shape.pixels() : Quad::per_sample(a.noise, a.shape);
  a.tiles = (work + per_warp - 1) / per_warp;
  a.log_mean_parts = d_log_mean;
  a.log_std_parts = d_log_std;
  for (int64_t warp = 0; warp < a.shape.batch * a.tiles; ++warp)
    for (int lane = 0; lane < 32; ++lane) {
      if (kind == 0) lognormal_backward_vector(a, warp, lane, AddTo<float>{a, d_log_mean, d_log_std});
      if (kind == 2) lognormal_backward_quad<float>(a, warp, lane, AddTo<float>{a, d_log_mean, d_log_std});
      if (kind == 3) lognormal_backward_quad<double>(a, warp, lane, AddTo<double>{a, d_log_mean, d_log_std});
    }
}

// Threads that a forward kernel of that kind needs.
int64_t driver_lognormal_threads(int kind, const int64_t* shape, const int64_t* views, const int64_t* noise) {
  const LognormalArgs a = lognormal(shape, views, noise);
  if (kind == 0) return a.shape.batch * a.shape.channels * a.shape.pixels() / kVector;
  return a.shape.batch * Quad::per_sample(a.noise, a.shape);
}

}  // extern "C"
