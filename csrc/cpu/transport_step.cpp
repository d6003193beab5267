// The transport step for one instruction set: compiled once per level with F2D_LEVEL naming it.
//
// Chunk by chunk: the assembly's own kernel leaves its result in scratch, in the fastest cache, for what follows; in the
// backward pass its kernel then takes v from there. The deltas come from memory once, again from the cache.
#include "../transport_step.h"

#include "experts.h"
#include "noise.h"
#include "transport_step.h"

namespace f2d {
namespace {

// Part of one plane, from `pixel` on: `rows` of `columns` pixels, rows a whole width apart where there are several.
struct Chunk {
  int64_t pixel, rows, columns;

  F2D_MEMBER Chunk(const TransportArgs& a, int64_t index) {
    const Walk& walk = a.walk();
    const int64_t across = a.chunks_across(), y = index / across * a.chunk_rows(), x = index % across * a.chunk_pixels();
    pixel = y * walk.width + x;
    rows = a.flat ? 1 : smaller(a.chunk_rows(), walk.height - y);
    columns = smaller(a.chunk_pixels(), (a.flat ? walk.pixels() : walk.width) - x);
  }
  F2D_MEMBER int64_t pixels() const { return rows * columns; }

  // The chunk of sample b as an image of its own.
  F2D_MEMBER Stream of(const Stream& s, int64_t b) const {
    Stream part = s;
    if (!s.data) return part;
    const int64_t offset = s.linear ? pixel * s.w : pixel / s.width * s.h + pixel % s.width * s.w;
    part.data += (b * s.b + offset) * size_of(s.dtype);
    part.linear = s.linear || rows == 1;
    return part;
  }

  // The same of everything the assembly reads and writes. `samples` tells its kernels whether results are worth keeping
  // in the cache; `streams`: room for four of each expert.
  F2D_MEMBER AssemblyArgs of(const AssemblyArgs& a, int64_t b, int64_t samples, const Stream& image, Stream* streams) const {
    AssemblyArgs part = a;
    part.walk = {samples, a.walk.channels, rows, columns, a.walk.pixel_major};
    part.image = image;
    part.base = of(a.base, b);
    part.gates.data += b * a.gates.b * size_of(a.gates.dtype);
    const auto cut = [&](const Stream*& list) {
      if (!list) return;
      for (int64_t k = 0; k < a.experts; ++k) streams[k] = of(list[k], b);
      list = streams;
      streams += a.experts;
    };
    cut(part.deltas);
    cut(part.maps);
    cut(part.d_deltas);
    cut(part.d_maps);
    return part;
  }
};

// A chunk of all channels in scratch, dense; of several samples, `samples` elements apart.
template <class A>
inline Stream chunk_stream(const TransportArgs& a, A* data, DType dtype, int64_t samples) {
  const Walk& walk = a.walk();
  Stream s;
  s.dtype = dtype;
  s.b = samples;
  s.c = walk.pixel_major ? 1 : a.chunk_pixels() + kLaneCount;  // planes in different sets of the cache
  s.w = walk.pixel_major ? walk.channels : 1;
  s.data = reinterpret_cast<char*>(data);
  return s;
}

template <class T, class A>
inline void round_trip(A* values, int64_t n, void* buffer) {
  T* stored = static_cast<T*>(buffer);
  convert_out(values, stored, n);
  convert_in(stored, values, n);
}

// anchor + assembled, rounded to the dtype of mu.
template <class A>
inline A* add_anchor(const TransportArgs& a, const A* anchor, const A* assembled, int64_t n, A* total, A* buffer) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) total[i] = anchor[i] + assembled[i];
  if (a.target == DType::bf16) round_trip<bf16>(total, n, buffer);
  if (a.target == DType::f16) round_trip<f16>(total, n, buffer);
  if (a.target == DType::f32 && sizeof(A) > sizeof(float)) round_trip<float>(total, n, buffer);
  return total;
}

// Where a result is computed and how it reaches memory: in place, or from `buffer`; past the caches where it is large,
// which spares the read that precedes a store into a cache.
template <class A>
struct Result {
  const Stream& stream;
  const Block& block;
  A* values;
  bool past;

  F2D_MEMBER Result(const Stream& s, const Block& b, A* buffer, bool large)
      : stream(s), block(b), past(large && sizeof(A) == sizeof(float) && is_dense(s, b)) {
    values = past || !s.data ? buffer : target(s, b, buffer);
  }
  F2D_MEMBER void finish() const {
    if (!stream.data) return;
    if (!past) return write(stream, block, values);
    switch (stream.dtype) {
      case DType::f32: return send<float>();
      case DType::bf16: return send<bf16>();
      default: return send<f16>();
    }
  }

 private:
  template <class T>
  F2D_MEMBER void send() const {
    T* to = first<T>(stream, block) + block.pixel * stream.w;
    const int64_t n = block.size(), whole = n - n % kWide;
    for (int64_t i = 0; i < whole; i += kWide) store_past_cache(to + i, load(reinterpret_cast<const float*>(values) + i));
    for (int64_t i = whole; i < n; ++i) store_as<A>(to + i, values[i]);
  }
};

inline bool is_large(const Walk& walk, const Stream& s) {
  return s.data && s.dtype != DType::f64 && past_cache(&s, 1, walk.elements() * size_of(s.dtype));
}

// Asks for what the next chunk reads where this one reads the block. Chunks are too short for the processor to see what
// comes next by itself, and while noise is drawn the memory would be idle: 1.4x.
inline void prefetch_next(const TransportArgs& a, const Stream& s, const Block& block) {
  if (!s.data || !is_dense(s, block)) return;
  const int64_t e = size_of(s.dtype), first = block.b * s.b + block.channel * s.c + (block.pixel + a.chunk_pixels()) * s.w;
  for (int64_t at = 0; at < block.size() * e; at += kLineBytes) prefetch(s.data + first * e + at);
}

inline void prefetch_next(const TransportArgs& a, const Block& block) {
  prefetch_next(a, a.x, block);
  prefetch_next(a, a.anchor, block);
  prefetch_next(a, a.noise.noise, block);
  prefetch_next(a, a.grad_x, block);
  prefetch_next(a, a.grad_mu, block);
  prefetch_next(a, a.assembly.base, block);
  for (int64_t k = 0; k < a.assembly.experts; ++k) prefetch_next(a, a.assembly.deltas[k], block);
  for (int64_t k = 0; a.assembly.maps && block.channel == 0 && k < a.assembly.experts; ++k)
    prefetch_next(a, a.assembly.maps[k], Block{block.b, 0, 1, block.pixel, block.pixels});
}

// Calls visit(block of the image, the same block of the chunk) for each block of the chunk of samples from b0 on.
template <class Visit>
inline void each_block(const Walk& walk, int64_t b, int64_t b0, const Chunk& chunk, int64_t plane, Visit visit) {
  const int64_t pixels = chunk.pixels(), step = walk.block_pixels();
  for (int64_t at = 0; at < pixels; at += step) {
    const int64_t count = smaller(step, pixels - at);
    visit(Block{b, plane, walk.block_channels(), chunk.pixel + at, count},
          Block{b - b0, plane, walk.block_channels(), at, count});
  }
}

// The loops over elements are functions of their own: GCC 12 does not vectorise those that read what a lambda captured.
template <class A>
inline void step_block(int64_t n, const A* x, const A* total, const A* eps, A log_mean, A log_std, A low, A high, A* mu,
                       A* x_next) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const A limited = transport_clamp(total[i], low, high);
    mu[i] = limited;
    x_next[i] = lognormal_step(x[i], limited, log_mean, log_std, eps[i]);
  }
}

// Task: eight chunks of one sample. Scratch: the assembly's, streams, a chunk, 7 blocks.
template <class A>
void forward(const TransportArgs& a, A* scratch, int64_t begin, int64_t end) {
  const Walk& walk = a.walk();
  const int64_t size = walk.block_elements(), tasks = a.tasks();
  auto* const streams = reinterpret_cast<Stream*>(scratch + a.assembly_scratch);
  A* const chunk_buffer = scratch + a.assembly_scratch + a.stream_elements();
  A* const blocks = chunk_buffer + a.chunk_elements();
  const Stream assembled = chunk_stream(a, chunk_buffer, a.assembled, 0);
  const A low = static_cast<A>(a.low), high = static_cast<A>(a.high);
  const bool large = is_large(walk, a.mu) && is_large(walk, a.x_next);
  for (int64_t task = begin; task < end; ++task) {
    const int64_t b = task / tasks, first = task % tasks * TransportArgs::kTaskChunks;
    const A log_mean = static_cast<A>(a.log_mean.at(b, 0, 0)), log_std = static_cast<A>(a.log_std.at(b, 0, 0));
    for (int64_t i = first; i < smaller(first + TransportArgs::kTaskChunks, a.chunks()); ++i) {
      const Chunk chunk(a, i);
      F2D_LEVEL::expert_assembly(chunk.of(a.assembly, b, 1, assembled, streams), reinterpret_cast<char*>(scratch), 0, 1);
      for (int64_t plane = 0; plane < walk.planes(); ++plane)
        each_block(walk, b, b, chunk, plane, [&](const Block& block, const Block& local) {
          prefetch_next(a, block);
          const int64_t n = block.size();
          const A* x = read(a.x, block, blocks);
          const A* anchor = a.anchor.data ? read(a.anchor, block, blocks + size) : x;
          const A* sum = read(assembled, local, blocks + 2 * size);
          const A* eps = noise_of(a.noise, walk.width, block, blocks + 3 * size);
          const A* total = add_anchor(a, anchor, sum, n, blocks + 2 * size, blocks + 6 * size);
          const Result<A> mu(a.mu, block, blocks + 4 * size, large), x_next(a.x_next, block, blocks + 5 * size, large);
          step_block(n, x, total, eps, log_mean, log_std, low, high, mu.values, x_next.values);
          mu.finish();
          x_next.finish();
        });
    }
  }
  fence();
}

template <class A>
struct Gradients {
  A *x, *mu, *noise, *log_mean, *log_std;
};

template <bool kAnchorIsX, class A>
inline void gradient_block(int64_t n, const A* grad_x, const A* grad_mu, const A* x, const A* total, const A* eps,
                           A log_mean, A log_std, A low, A high, const Gradients<A>& out) {
  A *d_x = out.x, *d_mu = out.mu, *d_noise = out.noise, *mean_terms = out.log_mean, *std_terms = out.log_std;
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const LognormalGradient<A> d =
        transport_gradient(grad_x[i], grad_mu[i], x[i], total[i], low, high, log_mean, log_std, eps[i]);
    d_x[i] = kAnchorIsX ? d.x + d.mu : d.x;
    d_mu[i] = d.mu;
    d_noise[i] = d.noise;
    mean_terms[i] = d.log_mean;
    std_terms[i] = d.log_std;
  }
}

// What one task of the backward pass works on.
template <class A>
struct Work {
  Stream assembled, v;  // chunks in scratch; v.data null where no expert's gradient is wanted
  A* blocks;
  bool large;
  double mean_lanes[kLaneCount], std_lanes[kLaneCount];  // of the sample at hand
};

// Everything but the experts' gradients of one plane of a chunk. Scratch: 10 blocks.
template <class A>
void backward_plane(const TransportArgs& a, Work<A>& work, int64_t b, int64_t b0, const Chunk& chunk, int64_t plane) {
  const Walk& walk = a.walk();
  const int64_t size = walk.block_elements();
  const A low = static_cast<A>(a.low), high = static_cast<A>(a.high);
  const A log_mean = static_cast<A>(a.log_mean.at(b, 0, 0)), log_std = static_cast<A>(a.log_std.at(b, 0, 0));
  const auto buffer = [&](int64_t i) { return work.blocks + i * size; };
  each_block(walk, b, b0, chunk, plane, [&](const Block& block, const Block& local) {
    prefetch_next(a, block);
    const int64_t n = block.size();
    const auto zeros = [&](A* to) {
      for (int64_t i = 0; i < n; ++i) to[i] = A(0);
      return to;
    };
    const A* x = read(a.x, block, buffer(0));
    const A* total = buffer(1);
    if (a.needs_total) {
      const A* anchor = a.anchor.data ? read(a.anchor, block, buffer(2)) : x;
      add_anchor(a, anchor, read(work.assembled, local, buffer(3)), n, buffer(1), buffer(4));
    } else {
      zeros(buffer(1));
    }
    const A* grad_mu = a.grad_mu.data ? read(a.grad_mu, block, buffer(2)) : zeros(buffer(2));
    const A* grad_x = a.grad_x.data ? read(a.grad_x, block, buffer(3)) : zeros(buffer(3));
    const A* eps = a.grad_x.data ? noise_of(a.noise, walk.width, block, buffer(4)) : zeros(buffer(4));
    const Result<A> d_x(a.d_x, block, buffer(5), work.large), d_mu(a.d_mu, block, buffer(6), work.large);
    const Result<A> d_noise(a.d_noise, block, buffer(7), work.large);
    A *mean_terms = buffer(8), *std_terms = buffer(9);
    const Gradients<A> out{d_x.values, d_mu.values, d_noise.values, mean_terms, std_terms};
    if (a.anchor.data) {
      gradient_block<false>(n, grad_x, grad_mu, x, total, eps, log_mean, log_std, low, high, out);
    } else {
      gradient_block<true>(n, grad_x, grad_mu, x, total, eps, log_mean, log_std, low, high, out);
    }
    d_x.finish();
    d_mu.finish();
    d_noise.finish();
    if (work.v.data) write(work.v, local, static_cast<const A*>(d_mu.values));
    if (!a.log_mean_parts) return;
    add_to_lanes(mean_terms, n, work.mean_lanes);
    add_to_lanes(std_terms, n, work.std_lanes);
  });
}

// Task: eight chunks of one sample, or of all samples where they share the deltas. Scratch: the assembly's, streams, the
// gates' sums, a chunk, v of each sample, 10 blocks.
template <class A>
void backward(const TransportArgs& a, A* scratch, int64_t begin, int64_t end) {
  const Walk& walk = a.walk();
  const int64_t tasks = a.tasks(), group = a.group(), gates = group * a.gate_sums();
  auto* const streams = reinterpret_cast<Stream*>(scratch + a.assembly_scratch);
  auto* const gate_parts = reinterpret_cast<double*>(scratch + a.assembly_scratch + a.stream_elements());
  A* const chunk_buffer = reinterpret_cast<A*>(gate_parts + (gates + kLaneCount - 1) / kLaneCount * kLaneCount);
  A* const v_buffer = chunk_buffer + a.chunk_elements();
  const int64_t samples = a.chunk_elements() * static_cast<int64_t>(sizeof(A)) / size_of(a.assembled);
  const auto small = [&](const Stream& s) { return s.data && !is_large(walk, s); };
  Work<A> work;
  work.assembled = chunk_stream(a, chunk_buffer, a.assembled, 0);
  if (a.has_experts()) work.v = chunk_stream(a, v_buffer, a.assembled, samples);
  work.blocks = v_buffer + group * a.chunk_elements();
  work.large = !small(a.d_x) && !small(a.d_mu) && !small(a.d_noise);
  AssemblyArgs gradients = a.gradients;
  gradients.gate_parts = a.gate_parts ? gate_parts : nullptr;

  for (int64_t task = begin; task < end; ++task) {
    const int64_t b0 = task / tasks * group, part = task % tasks, first = part * TransportArgs::kTaskChunks;
    for (int64_t i = first; i < smaller(first + TransportArgs::kTaskChunks, a.chunks()); ++i) {
      const Chunk chunk(a, i);
      for (int64_t b = b0; b < b0 + group; ++b) {
        if (a.needs_total)
          F2D_LEVEL::expert_assembly(chunk.of(a.assembly, b, 1, work.assembled, streams), reinterpret_cast<char*>(scratch),
                                     0, 1);
        for (int l = 0; l < kLaneCount; ++l) work.mean_lanes[l] = work.std_lanes[l] = 0.0;
        for (int64_t plane = 0; plane < walk.planes(); ++plane) backward_plane(a, work, b, b0, chunk, plane);
        if (!a.log_mean_parts) continue;
        double* const mean = a.log_mean_parts + part * walk.batch + b;
        double* const std = a.log_std_parts + part * walk.batch + b;
        *mean = sum_lanes(work.mean_lanes) + (i == first ? 0.0 : *mean);
        *std = sum_lanes(work.std_lanes) + (i == first ? 0.0 : *std);
      }
      if (!a.has_experts()) continue;
      const int64_t alike = group > 1 ? group : walk.batch * a.chunks();
      F2D_LEVEL::expert_assembly_backward(chunk.of(gradients, b0, alike, work.v, streams), reinterpret_cast<char*>(scratch),
                                          0, 1);
      double* const sums = a.gate_parts + (part * walk.batch + b0) * a.gate_sums();
      for (int64_t k = 0; a.gate_parts && k < gates; ++k) sums[k] = gate_parts[k] + (i == first ? 0.0 : sums[k]);
    }
  }
  fence();
}

}  // namespace

namespace F2D_LEVEL {

void transport_step(const TransportArgs& a, char* scratch, int64_t begin, int64_t end) {
  if (a.is_double) return forward(a, reinterpret_cast<double*>(scratch), begin, end);
  forward(a, reinterpret_cast<float*>(scratch), begin, end);
}

void transport_step_backward(const TransportArgs& a, char* scratch, int64_t begin, int64_t end) {
  if (a.is_double) return backward(a, reinterpret_cast<double*>(scratch), begin, end);
  backward(a, reinterpret_cast<float*>(scratch), begin, end);
}

}  // namespace F2D_LEVEL

}  // namespace f2d
