// The Gaussian transition for one instruction set: compiled once per level with F2D_LEVEL naming it.
#include "gaussian_transition.h"

#include "noise.h"
#include "stream.h"

namespace f2d {
namespace {

// eps null: no noise.
template <int kTerms, class A, class T, class N>
inline void combine(const T* const* terms, const A* coefficients, A std, const N* eps, T* out, int64_t n) {
  if (eps) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i)
      store_as<A>(out + i, gaussian_step(gaussian_mean<kTerms>(terms, coefficients, i), std, load_as<A>(eps + i)));
  } else {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) store_as<A>(out + i, gaussian_mean<kTerms>(terms, coefficients, i));
  }
}

template <class A, class T, class N>
inline void combine(int count, const T* const* terms, const A* coefficients, A std, const N* eps, T* out, int64_t n) {
  switch (count) {
    case 1: return combine<1>(terms, coefficients, std, eps, out, n);
    case 2: return combine<2>(terms, coefficients, std, eps, out, n);
    case 3: return combine<3>(terms, coefficients, std, eps, out, n);
    default: return combine<4>(terms, coefficients, std, eps, out, n);
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
    A coefficients[kMaxTerms];
    for (int j = 0; j < a.count; ++j) coefficients[j] = static_cast<A>(a.coefficients.at(block.b, j, 0));
    const A std = a.std.data ? static_cast<A>(a.std.at(block.b, 0, 0)) : A(0);
    const int64_t n = block.size();
    const auto combine_in_place = [&](auto type) {
      using T = decltype(type);
      const T* terms[kMaxTerms];
      for (int j = 0; j < a.count; ++j) terms[j] = in_place<T>(a.terms[j], block);
      T* out = in_place<T>(a.image, block);
      const auto with = [&](auto* eps) { combine(a.count, terms, coefficients, std, eps, out, n); };
      if (!a.std.data) return with(static_cast<const A*>(nullptr));
      with_noise<A, T>(a.noise, walk.width, block, scratch + 4 * size, with);
    };
    // an absent term has no data, which is harmless here
    if (fused<A>(combine_in_place, block, a.image, a.terms[0], a.terms[1], a.terms[2], a.terms[3])) continue;
    const A* terms[kMaxTerms];
    for (int j = 0; j < a.count; ++j) terms[j] = read(a.terms[j], block, scratch + j * size);
    const A* eps = a.std.data ? noise_of(a.noise, walk.width, block, scratch + 4 * size) : nullptr;
    A* out = target(a.image, block, scratch + 5 * size);
    combine(a.count, terms, coefficients, std, eps, out, n);
    write(a.image, block, out);
  }
}

// d = factor * grad over a block, written directly into the tensor if possible.
template <class A>
inline void scaled(A factor, const A* grad, const Stream& d, const Block& block, A* buffer) {
  const int64_t n = block.size();
  const auto scale = [&](auto* out) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) store_as<A>(out + i, factor * grad[i]);
  };
  if (fused<A>([&](auto type) { scale(in_place<decltype(type)>(d, block)); }, block, d)) return;
  A* out = target(d, block, buffer);
  scale(out);
  write(d, block, out);
}

// lanes[i % 16] += a[i] * b[i] in double, in which the product of two floats is exact.
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

F2D_DEFINE_KERNEL(gaussian_transition, GaussianArgs, forward)
F2D_DEFINE_KERNEL(gaussian_transition_backward, GaussianArgs, backward)

}  // namespace f2d
