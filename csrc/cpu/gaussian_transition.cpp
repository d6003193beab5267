// The Gaussian transition for one instruction set: compiled once per level with F2D_LEVEL naming it.
#include "gaussian_transition.h"

#include "noise.h"
#include "stream.h"

namespace f2d {
namespace {

template <int kTerms, class A>
inline void combine(const A* const* terms, const A* coefficients, A std, const A* eps, A* out, int64_t n) {
  if (eps) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) out[i] = gaussian_step(gaussian_mean<kTerms>(terms, coefficients, i), std, eps[i]);
  } else {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) out[i] = gaussian_mean<kTerms>(terms, coefficients, i);
  }
}

// Task: one block of one plane. Scratch: 6 blocks.
template <class A>
void forward(const GaussianArgs& a, A* scratch, int64_t begin, int64_t end) {
  const Walk& walk = a.walk;
  const int64_t size = walk.block_elements(), blocks = walk.blocks(), planes = walk.planes();
  for (int64_t task = begin; task < end; ++task) {
    const int64_t pixel = task % blocks * walk.block_pixels();
    const Block block{task / blocks / planes, task / blocks % planes, walk.block_channels(), pixel,
                      smaller(walk.block_pixels(), walk.pixels() - pixel)};
    const A* terms[kMaxTerms];
    A coefficients[kMaxTerms];
    for (int j = 0; j < a.count; ++j) {
      terms[j] = read(a.terms[j], block, scratch + j * size);
      coefficients[j] = static_cast<A>(a.coefficients.at(block.b, j, 0));
    }
    const A std = a.std.data ? static_cast<A>(a.std.at(block.b, 0, 0)) : A(0);
    const A* eps = a.std.data ? noise_of(a.noise, walk.width, block, scratch + 4 * size) : nullptr;
    A* out = target(a.image, block, scratch + 5 * size);
    switch (a.count) {
      case 1: combine<1>(terms, coefficients, std, eps, out, block.size()); break;
      case 2: combine<2>(terms, coefficients, std, eps, out, block.size()); break;
      case 3: combine<3>(terms, coefficients, std, eps, out, block.size()); break;
      default: combine<4>(terms, coefficients, std, eps, out, block.size());
    }
    write(a.image, block, out);
  }
}

// d = factor * grad over a block, straight into the tensor where it allows.
template <class A>
inline void scaled(A factor, const A* grad, const Stream& d, const Block& block, A* buffer) {
  A* out = target(d, block, buffer);
  const int64_t n = block.size();
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) out[i] = factor * grad[i];
  write(d, block, out);
}

// lanes[i % 16] += a[i] * b[i] in double, where a product of floats is exact.
template <class A>
inline void add_products(const A* a, const A* b, int64_t n, double* lanes) {
  int64_t i = 0;
  for (; i + kLaneCount <= n; i += kLaneCount)
#pragma omp simd
    for (int l = 0; l < kLaneCount; ++l) lanes[l] += static_cast<double>(a[i + l]) * static_cast<double>(b[i + l]);
  for (int l = 0; i < n; ++i, ++l) lanes[l] += static_cast<double>(a[i]) * static_cast<double>(b[i]);
}

// Task: one tile of one plane. Scratch: 3 blocks.
template <class A>
void backward(const GaussianArgs& a, A* scratch, int64_t begin, int64_t end) {
  const Walk& walk = a.walk;
  const int64_t size = walk.block_elements(), tiles = walk.tiles(), planes = walk.planes(), step = walk.block_pixels();
  A *const buffer = scratch + size, *const d_buffer = scratch + 2 * size;
  for (int64_t task = begin; task < end; ++task) {
    const int64_t b = task / tiles / planes, plane = task / tiles % planes, tile = task % tiles;
    const int64_t tile_end = smaller((tile + 1) * walk.tile_pixels(), walk.pixels());
    double term_lanes[kMaxTerms][kLaneCount] = {}, std_lanes[kLaneCount] = {};
    for (int64_t pixel = tile * walk.tile_pixels(); pixel < tile_end; pixel += step) {
      const Block block{b, plane, walk.block_channels(), pixel, smaller(step, tile_end - pixel)};
      const A* grad = read(a.image, block, scratch);
      for (int j = 0; j < a.count; ++j) {
        if (a.d_terms[j].data)
          scaled(static_cast<A>(a.coefficients.at(b, j, 0)), grad, a.d_terms[j], block, d_buffer);
        if (a.coefficient_parts) add_products(grad, read(a.terms[j], block, buffer), block.size(), term_lanes[j]);
      }
      if (a.d_noise.data) scaled(static_cast<A>(a.std.at(b, 0, 0)), grad, a.d_noise, block, d_buffer);
      if (a.std_parts) add_products(grad, noise_of(a.noise, walk.width, block, buffer), block.size(), std_lanes);
    }
    const int64_t part = (tile * planes + plane) * walk.batch + b;
    for (int j = 0; a.coefficient_parts && j < a.count; ++j)
      a.coefficient_parts[part * a.count + j] = sum_lanes(term_lanes[j]);
    if (a.std_parts) a.std_parts[part] = sum_lanes(std_lanes);
  }
}

}  // namespace

namespace F2D_LEVEL {

void gaussian_transition(const GaussianArgs& a, char* scratch, int64_t begin, int64_t end) {
  if (a.is_double) return forward(a, reinterpret_cast<double*>(scratch), begin, end);
  forward(a, reinterpret_cast<float*>(scratch), begin, end);
}

void gaussian_transition_backward(const GaussianArgs& a, char* scratch, int64_t begin, int64_t end) {
  if (a.is_double) return backward(a, reinterpret_cast<double*>(scratch), begin, end);
  backward(a, reinterpret_cast<float*>(scratch), begin, end);
}

}  // namespace F2D_LEVEL

}  // namespace f2d
