// The headers of csrc, the bodies of the CUDA kernels included, behind C functions for ctypes: what a GPU thread computes,
// computed here, thread by thread.
#include "cuda/expert_assembly_body.h"
#include "cuda/lognormal_transition_body.h"
#include "cuda/transport_step_body.h"

using namespace f2d;

namespace {

// data, strides b k c h w, dtype; data 0: absent
View view(const int64_t* v) {
  return {reinterpret_cast<char*>(v[0]), v[1], v[2], v[3], v[4], v[5], static_cast<DType>(v[6])};
}

// Kinds of kernels: vectors of any dtype, channels_last vectors, elements or quads in float and in double, vectors of one
// dtype, and the same of images of three channels that lie inside.
enum Kind { kAny, kInterleaved, kFloat, kDouble, kOne, kTriples };

template <class P>
struct Tag {
  using Pixels = P;
};

// Calls `act` with the Pixels of a kernel that walks vectors.
template <class Act>
void with_pixels(int kind, DType dtype, Act act) {
  const bool f32 = dtype == DType::f32;
  if (kind == kAny) act(Tag<VectorPixels<AnyType>>());
  if (kind == kOne && f32) act(Tag<VectorPixels<Floats>>());
  if (kind == kOne && !f32) act(Tag<VectorPixels<BFloats>>());
  if (kind == kTriples && f32) act(Tag<TriplePixels<Floats>>());
  if (kind == kTriples && !f32) act(Tag<TriplePixels<HalfBFloats>>());
}

bool walks_vectors(int kind) { return kind == kAny || kind == kOne || kind == kTriples; }

template <class Pixels>
int64_t tiles_of(const Shape& shape) {
  return (shape.pixels() + kWarp * Pixels::kCount - 1) / (kWarp * Pixels::kCount);
}

// Calls `lane_of(warp, lane)` for all lanes of `warps` warps.
template <class Lane>
void every_lane(int64_t warps, Lane lane_of) {
  for (int64_t warp = 0; warp < warps; ++warp)
    for (int lane = 0; lane < kWarp; ++lane) lane_of(warp, lane);
}

// The tiles of a sample, and the channels that a warp does one after another.
template <class Pixels>
int64_t set_units(Experts& a) {
  a.tiles = tiles_of<Pixels>(a.shape);
  a.run = Pixels::kChannels == 1 && a.shape.channels % 2 ? 1 : a.shape.channels;
  return a.shape.channels / a.run * a.tiles;
}

// views: gates, maps, base
void set_experts(Experts& a, const int64_t* shape, const int64_t* flags, const int64_t* views, const int64_t* deltas) {
  a.shape = {shape[0], shape[1], shape[2], shape[3]};
  a.experts = shape[4];
  a.run = 1;
  a.listed = flags[0], a.channel_gates = flags[1];
  a.gates = view(views), a.maps = view(views + 7), a.base = view(views + 14);
  for (int64_t k = 0; k < (a.listed ? a.experts : 1); ++k) a.deltas[k] = view(deltas + 7 * k);
}

template <int kRoom>
void set_gradients(ExpertGradients<kRoom>& d, const Experts& a, const int64_t* d_maps, const int64_t* d_deltas) {
  d.d_maps = view(d_maps);
  for (int64_t k = 0; d_deltas && k < (a.listed ? a.experts : 1); ++k) d.d_deltas[k] = view(d_deltas + 7 * k);
}

// views: gates, maps, base, image, d_maps
AssemblyArgs assembly(const int64_t* shape, const int64_t* flags, const int64_t* views, const int64_t* deltas,
                      const int64_t* d_deltas) {
  AssemblyArgs a{};
  set_experts(a, shape, flags, views, deltas);
  a.channels_inside = flags[2];
  a.splits = 1;
  a.image = view(views + 21);
  set_gradients(a, a, views + 28, d_deltas);
  return a;
}

template <class Pixels>
void assembly_backward(AssemblyArgs a, double* d_gates) {
  using A = typename Pixels::Value;
  a.tiles = (a.shape.pixels() + kWarp * Pixels::kCount - 1) / (kWarp * Pixels::kCount);
  A used{};
  a.gate_parts = d_gates ? &used : nullptr;
  for (int64_t warp = 0; warp < a.shape.batch * a.tiles; ++warp)
    for (int lane = 0; lane < kWarp; ++lane)
      assembly_backward_lane<Pixels>(a, warp, lane, [&](A value, int64_t slot) { d_gates[slot / a.tiles] += value; });
}

void set_seeds(NoiseSource& source, const int64_t* noise, const Shape& shape) {
  source.seeds = reinterpret_cast<const int64_t*>(noise[0]);
  source.seed_per_sample = noise[1], source.seed_stride = noise[2];
  source.stream = static_cast<uint32_t>(noise[3]), source.top = static_cast<uint32_t>(noise[4]);
  source.left = static_cast<uint32_t>(noise[5]);
  source.quads_per_row = Quad::per_row(source, shape);
}

LognormalArgs lognormal(const int64_t* shape, const int64_t* views, const int64_t* noise) {
  LognormalArgs a{};
  a.shape = {shape[0], shape[1], shape[2], shape[3]};
  a.channels_inside = shape[4];
  a.x = view(views), a.mu = view(views + 7), a.noise.given = view(views + 14), a.image = view(views + 21);
  a.log_mean = view(views + 28), a.log_std = view(views + 35);
  a.d_x = view(views + 42), a.d_mu = view(views + 49), a.d_noise = view(views + 56);
  set_seeds(a.noise, noise, a.shape);
  return a;
}

template <class A>
struct AddTo {
  const LognormalArgs& a;
  double *mean, *std;
  void operator()(A value, void* parts, int64_t slot) const {
    (parts == a.log_mean_parts ? mean : std)[slot / a.warps] += static_cast<double>(value);
  }
};

// views: gates, maps, base, d_maps, x, anchor, noise, log_mean, log_std, x_next, mu, grad_x, grad_mu, d_x, d_mu, d_noise,
// v; dtypes: of the assembly and of mu
TransportArgs transport(const int64_t* shape, const int64_t* flags, const int64_t* views, const int64_t* deltas,
                        const int64_t* d_deltas, const int64_t* noise, const int64_t* dtypes, const double* bounds) {
  TransportArgs a{};
  set_experts(a, shape, flags, views, deltas);
  set_gradients(a, a, views + 21, d_deltas);
  a.channels_inside = flags[2], a.needs_total = true, a.anchored = views[28 + 7] != 0;
  View* const rest[] = {&a.x, &a.anchor, &a.noise.given, &a.log_mean, &a.log_std, &a.x_next,
                        &a.mu, &a.grad_x, &a.grad_mu, &a.d_x, &a.d_mu, &a.d_noise, &a.v};
  for (int i = 0; i < 13; ++i) *rest[i] = view(views + 28 + 7 * i);
  set_seeds(a.noise, noise, a.shape);
  a.assembled = static_cast<DType>(dtypes[0]), a.target = static_cast<DType>(dtypes[1]);
  a.low = as_stored(bounds[0], a.target), a.high = as_stored(bounds[1], a.target);
  return a;
}

// Runs the warps of a backward kernel; sums: d_log_mean [b], d_log_std [b], d_gates.
template <class A, class Lane>
void transport_warps(TransportArgs& a, int64_t warps_per_sample, bool gates, double* const* sums, Lane lane_of) {
  A mean{}, std{}, gate{};  // their addresses tell the sums apart
  a.log_mean_parts = &mean, a.log_std_parts = &std, a.gate_parts = gates ? &gate : nullptr;
  a.warps = warps_per_sample;
  const auto reduce = [&](A value, void* parts, int64_t slot) {
    if (parts == &gate) sums[2][slot / a.tiles] += value;
    if (parts == &mean) sums[0][slot / a.warps] += value;
    if (parts == &std) sums[1][slot / a.warps] += value;
  };
  for (int64_t warp = 0; warp < a.shape.batch * a.warps; ++warp)
    for (int lane = 0; lane < kWarp; ++lane) lane_of(a, warp, lane, reduce);
}

template <class Pixels>
void transport_experts(TransportArgs& a, double* const* sums) {
  transport_warps<float>(a, a.tiles, true, sums, [](const TransportArgs& args, int64_t warp, int lane, auto reduce) {
    transport_backward_experts<Pixels>(args, warp, lane, reduce);
  });
}

template <class A>
void transport_quads(TransportArgs& a, int64_t warps, double* const* sums) {
  transport_warps<A>(a, warps, false, sums, [](const TransportArgs& args, int64_t warp, int lane, auto reduce) {
    transport_backward_quad<A>(args, warp, lane, OwnQuads(), reduce);
  });
}

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

// Threads [begin, end) of a forward kernel; all of it where it walks vectors.
void driver_assembly_forward(int kind, int64_t begin, int64_t end, const int64_t* shape, const int64_t* flags,
                             const int64_t* views, const int64_t* deltas) {
  AssemblyArgs a = assembly(shape, flags, views, deltas, nullptr);
  with_pixels(kind, a.image.dtype, [&](auto tag) {
    using Pixels = typename decltype(tag)::Pixels;
    every_lane(a.shape.batch * set_units<Pixels>(a), [&](int64_t warp, int lane) {
      assembly_forward_pixels<Pixels>(a, warp, lane);
    });
  });
  for (int64_t i = begin; i < end && !walks_vectors(kind); ++i) {
    if (kind == kInterleaved) assembly_forward_interleaved<AnyType>(a, i);
    if (kind == kFloat) assembly_forward_element<float>(a, i);
    if (kind == kDouble) assembly_forward_element<double>(a, i);
  }
}

// shared: d_deltas [1, K, C, H, W] summed over the batch
void driver_assembly_backward(int kind, int shared, const int64_t* shape, const int64_t* flags, const int64_t* views,
                              const int64_t* deltas, const int64_t* d_deltas, double* d_gates) {
  AssemblyArgs a = assembly(shape, flags, views, deltas, d_deltas);
  if (shared) {
    for (int64_t i = 0; i < a.experts * a.shape.channels * a.shape.pixels(); ++i) {
      if (kind == kDouble) assembly_shared_delta_element<double>(a, i);
      if (kind != kDouble) assembly_shared_delta_element<float>(a, i);
    }
    a.d_deltas[0].data = nullptr;
  }
  with_pixels(kind, a.image.dtype, [&](auto tag) { assembly_backward<typename decltype(tag)::Pixels>(a, d_gates); });
  if (kind == kFloat) assembly_backward<ElementPixels<float>>(a, d_gates);
  if (kind == kDouble) assembly_backward<ElementPixels<double>>(a, d_gates);
}

// Threads [begin, end) of a forward kernel, all of them where end is -1.
void driver_lognormal_forward(int kind, int64_t begin, int64_t end, const int64_t* shape, const int64_t* views,
                              const int64_t* noise) {
  LognormalArgs a = lognormal(shape, views, noise);
  with_pixels(kind, a.image.dtype, [&](auto tag) {
    using Pixels = typename decltype(tag)::Pixels;
    a.tiles = tiles_of<Pixels>(a.shape);
    a.steps = kSteps;
    a.warps = (units_of<Pixels>(a) + a.steps - 1) / a.steps;
    every_lane(a.shape.batch * a.warps, [&](int64_t warp, int lane) {
      lognormal_forward_pixels<Pixels>(a, warp, lane);
    });
  });
  const int64_t all = a.shape.batch * Quad::lanes(a.noise, a.shape);
  for (int64_t i = begin; i < (end < 0 ? all : end) && !walks_vectors(kind); ++i) {
    if (kind == kFloat) lognormal_forward_quad<float>(a, i, OwnQuads());
    if (kind == kDouble) lognormal_forward_quad<double>(a, i, OwnQuads());
  }
}

void driver_lognormal_backward(int kind, const int64_t* shape, const int64_t* views, const int64_t* noise,
                               double* d_log_mean, double* d_log_std) {
  LognormalArgs a = lognormal(shape, views, noise);
  a.log_mean_parts = d_log_mean;
  a.log_std_parts = d_log_std;
  const auto run = [&](int64_t units, auto lane_of) {
    a.steps = kSteps;
    a.warps = (units + a.steps - 1) / a.steps;
    every_lane(a.shape.batch * a.warps, lane_of);
  };
  with_pixels(kind, a.image.dtype, [&](auto tag) {
    using Pixels = typename decltype(tag)::Pixels;
    a.tiles = tiles_of<Pixels>(a.shape);
    run(units_of<Pixels>(a), [&](int64_t warp, int lane) {
      lognormal_backward_pixels<Pixels>(a, warp, lane, AddTo<float>{a, d_log_mean, d_log_std});
    });
  });
  const int64_t quads = (Quad::per_sample(a.noise, a.shape) + kWarp - 1) / kWarp;
  if (kind == kFloat)
    run(quads, [&](int64_t warp, int lane) {
      lognormal_backward_quad<float>(a, warp, lane, OwnQuads(), AddTo<float>{a, d_log_mean, d_log_std});
    });
  if (kind == kDouble)
    run(quads, [&](int64_t warp, int lane) {
      lognormal_backward_quad<double>(a, warp, lane, OwnQuads(), AddTo<double>{a, d_log_mean, d_log_std});
    });
}

// Threads [begin, end) of a forward kernel, all of them where end is -1.
void driver_transport_forward(int kind, int64_t begin, int64_t end, const int64_t* shape, const int64_t* flags,
                              const int64_t* views, const int64_t* deltas, const int64_t* noise, const int64_t* dtypes,
                              const double* bounds) {
  TransportArgs a = transport(shape, flags, views, deltas, nullptr, noise, dtypes, bounds);
  with_pixels(kind, a.x.dtype, [&](auto tag) {
    using Pixels = typename decltype(tag)::Pixels;
    every_lane(a.shape.batch * set_units<Pixels>(a), [&](int64_t warp, int lane) {
      transport_forward_pixels<Pixels>(a, warp, lane);
    });
  });
  const int64_t all = a.shape.batch * Quad::lanes(a.noise, a.shape);
  for (int64_t i = begin; i < (end < 0 ? all : end) && !walks_vectors(kind); ++i) {
    if (kind == kFloat) transport_forward_quad<float>(a, i, OwnQuads());
    if (kind == kDouble) transport_forward_quad<double>(a, i, OwnQuads());
  }
}

// fused: with the experts' gradients
void driver_transport_backward(int kind, int fused, const int64_t* shape, const int64_t* flags, const int64_t* views,
                               const int64_t* deltas, const int64_t* d_deltas, const int64_t* noise,
                               const int64_t* dtypes, const double* bounds, double* d_log_mean, double* d_log_std,
                               double* d_gates) {
  TransportArgs a = transport(shape, flags, views, deltas, fused ? d_deltas : nullptr, noise, dtypes, bounds);
  if (!fused) a.d_maps = View{};
  double* const sums[] = {d_log_mean, d_log_std, d_gates};
  a.steps = kTransportSteps;
  with_pixels(kind, a.x.dtype, [&](auto tag) {
    using Pixels = typename decltype(tag)::Pixels;
    const int64_t warps = (set_units<Pixels>(a) + a.steps - 1) / a.steps;
    if (!fused)
      return transport_warps<float>(a, warps, false, sums, [](const auto& args, int64_t warp, int lane, auto reduce) {
        transport_backward_pixels<Pixels>(args, warp, lane, reduce);
      });
    transport_experts<Pixels>(a, sums);
  });
  const int64_t per_warp = kWarp * a.steps, warps = (Quad::per_sample(a.noise, a.shape) + per_warp - 1) / per_warp;
  if (kind == kFloat) transport_quads<float>(a, warps, sums);
  if (kind == kDouble) transport_quads<double>(a, warps, sums);
}

}  // extern "C"
