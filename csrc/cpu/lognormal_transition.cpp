// The log-normal transition for one instruction set: compiled once per level with F2D_LEVEL naming it.
#include "../lognormal_transition.h"

#include "lognormal_transition.h"
#include "noise.h"
#include "stream.h"

namespace f2d {
namespace {

template <class A, class T, class N>
inline void step(const T* x, const T* mu, A log_mean, A log_std, const N* eps, T* out, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const A state = load_as<A>(x + i), target = load_as<A>(mu + i);
    store_as<A>(out + i, lognormal_step(state, target, log_mean, log_std, load_as<A>(eps + i)));
  }
}

// Task: one block of one plane. Scratch: 4 blocks.
template <class A>
void forward(const LognormalArgs& a, A* scratch, int64_t begin, int64_t end) {
  const Walk& walk = a.walk;
  const int64_t size = walk.block_elements(), blocks = walk.blocks(), planes = walk.planes();
  for (int64_t task = begin; task < end; ++task) {
    const int64_t pixel = task % blocks * walk.block_pixels(), left = walk.pixels() - pixel;
    const Block block{task / blocks / planes, task / blocks % planes, walk.block_channels(), pixel,
                      left < walk.block_pixels() ? left : walk.block_pixels()};
    const A log_mean = static_cast<A>(a.log_mean.at(block.b, 0, 0));
    const A log_std = static_cast<A>(a.log_std.at(block.b, 0, 0));
    const int64_t n = block.size();
    const auto step_in_place = [&](auto type) {
      using T = decltype(type);
      const T *x = in_place<T>(a.x, block), *mu = in_place<T>(a.mu, block);
      with_noise<A, T>(a.noise, walk.width, block, scratch,
                       [&](auto* eps) { step(x, mu, log_mean, log_std, eps, in_place<T>(a.image, block), n); });
    };
    if (fused<A>(step_in_place, block, a.x, a.mu, a.image)) continue;
    const A* eps = noise_of(a.noise, walk.width, block, scratch);
    A* out = target(a.image, block, scratch + size);
    step(read(a.x, block, scratch + 2 * size), read(a.mu, block, scratch + 3 * size), log_mean, log_std, eps, out, n);
    write(a.image, block, out);
  }
}

// d_x and d_mu, neither of which depends on x and mu.
template <class A, class T, class N>
inline void input_gradients(const T* grad, A log_mean, A log_std, const N* eps, T* d_x, T* d_mu, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const A g = load_as<A>(grad + i);
    const LognormalGradient<A> d = lognormal_gradient(g, A(0), A(0), log_mean, log_std, load_as<A>(eps + i));
    store_as<A>(d_x + i, d.x);
    store_as<A>(d_mu + i, d.mu);
  }
}

// Task: one tile of one plane. Scratch: 9 blocks.
template <class A>
void backward(const LognormalArgs& a, A* scratch, int64_t begin, int64_t end) {
  const Walk& walk = a.walk;
  const int64_t size = walk.block_elements(), tiles = walk.tiles(), planes = walk.planes();
  const bool inputs_only = !a.log_mean_parts && !a.d_noise.data;
  for (int64_t task = begin; task < end; ++task) {
    const int64_t b = task / tiles / planes, plane = task / tiles % planes, tile = task % tiles;
    const int64_t tile_begin = tile * walk.tile_pixels(), tile_stop = tile_begin + walk.tile_pixels();
    const int64_t tile_end = tile_stop < walk.pixels() ? tile_stop : walk.pixels();
    const A log_mean = static_cast<A>(a.log_mean.at(b, 0, 0)), log_std = static_cast<A>(a.log_std.at(b, 0, 0));
    double mean_lanes[kLaneCount] = {}, std_lanes[kLaneCount] = {};
    for (int64_t pixel = tile_begin; pixel < tile_end; pixel += walk.block_pixels()) {
      const int64_t rest = tile_end - pixel;
      const Block block{b, plane, walk.block_channels(), pixel, rest < walk.block_pixels() ? rest : walk.block_pixels()};
      const int64_t n = block.size();
      const auto gradients_in_place = [&](auto type) {
        using T = decltype(type);
        const auto wanted = [&](const Stream& d) {
          return d.data ? in_place<T>(d, block) : reinterpret_cast<T*>(scratch + 4 * size);
        };
        with_noise<A, T>(a.noise, walk.width, block, scratch + 3 * size, [&](auto* eps) {
          input_gradients(in_place<T>(a.image, block), log_mean, log_std, eps, wanted(a.d_x), wanted(a.d_mu), n);
        });
      };
      if (inputs_only && fused<A>(gradients_in_place, block, a.image, a.d_x, a.d_mu)) continue;
      const A* eps = noise_of(a.noise, walk.width, block, scratch + 3 * size);
      const A* grad = read(a.image, block, scratch);
      A* d_x = a.d_x.data ? target(a.d_x, block, scratch + 4 * size) : scratch + 4 * size;
      A* d_mu = a.d_mu.data ? target(a.d_mu, block, scratch + 5 * size) : scratch + 5 * size;
      if (inputs_only) {
        input_gradients(grad, log_mean, log_std, eps, d_x, d_mu, n);
        if (a.d_x.data) write(a.d_x, block, d_x);
        if (a.d_mu.data) write(a.d_mu, block, d_mu);
        continue;
      }
      const A* x = read(a.x, block, scratch + size);
      const A* mu = read(a.mu, block, scratch + 2 * size);
      A* d_noise = a.d_noise.data ? target(a.d_noise, block, scratch + 6 * size) : scratch + 6 * size;
      A* mean_terms = scratch + 7 * size;
      A* std_terms = scratch + 8 * size;
#pragma omp simd
      for (int64_t i = 0; i < n; ++i) {
        const LognormalGradient<A> d = lognormal_gradient(grad[i], x[i], mu[i], log_mean, log_std, eps[i]);
        d_x[i] = d.x;
        d_mu[i] = d.mu;
        d_noise[i] = d.noise;
        mean_terms[i] = d.log_mean;
        std_terms[i] = d.log_std;
      }
      if (a.d_x.data) write(a.d_x, block, d_x);
      if (a.d_mu.data) write(a.d_mu, block, d_mu);
      if (a.d_noise.data) write(a.d_noise, block, d_noise);
      if (!a.log_mean_parts) continue;
      add_to_lanes(mean_terms, n, mean_lanes);
      add_to_lanes(std_terms, n, std_lanes);
    }
    if (!a.log_mean_parts) continue;
    const int64_t part = (tile * planes + plane) * walk.batch + b;
    a.log_mean_parts[part] = sum_lanes(mean_lanes);
    a.log_std_parts[part] = sum_lanes(std_lanes);
  }
}

}  // namespace

F2D_DEFINE_KERNEL(lognormal_transition, LognormalArgs, forward)
F2D_DEFINE_KERNEL(lognormal_transition_backward, LognormalArgs, backward)

}  // namespace f2d
