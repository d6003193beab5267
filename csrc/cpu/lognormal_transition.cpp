// The lognormal transition for one instruction set: compiled once per level with F2D_LEVEL naming it.
#include "../lognormal_transition.h"

#include "lognormal_transition.h"
#include "noise.h"
#include "stream.h"

namespace f2d {
namespace {

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
    const A* x = read(a.x, block, scratch);
    const A* mu = read(a.mu, block, scratch + size);
    const A* eps = noise_of(a.noise, walk.width, block, scratch + 2 * size);
    A* out = target(a.image, block, scratch + 3 * size);
    const int64_t n = block.size();
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) out[i] = lognormal_step(x[i], mu[i], log_mean, log_std, eps[i]);
    write(a.image, block, out);
  }
}

// Task: one tile of one plane. Scratch: 9 blocks.
template <class A>
void backward(const LognormalArgs& a, A* scratch, int64_t begin, int64_t end) {
  const Walk& walk = a.walk;
  const int64_t size = walk.block_elements(), tiles = walk.tiles(), planes = walk.planes();
  for (int64_t task = begin; task < end; ++task) {
    const int64_t b = task / tiles / planes, plane = task / tiles % planes, tile = task % tiles;
    const int64_t tile_begin = tile * walk.tile_pixels(), tile_stop = tile_begin + walk.tile_pixels();
    const int64_t tile_end = tile_stop < walk.pixels() ? tile_stop : walk.pixels();
    const A log_mean = static_cast<A>(a.log_mean.at(b, 0, 0)), log_std = static_cast<A>(a.log_std.at(b, 0, 0));
    double mean_lanes[kLaneCount] = {}, std_lanes[kLaneCount] = {};
    for (int64_t pixel = tile_begin; pixel < tile_end; pixel += walk.block_pixels()) {
      const int64_t rest = tile_end - pixel;
      const Block block{b, plane, walk.block_channels(), pixel, rest < walk.block_pixels() ? rest : walk.block_pixels()};
      const A* grad = read(a.image, block, scratch);
      const A* x = read(a.x, block, scratch + size);
      const A* mu = read(a.mu, block, scratch + 2 * size);
      const A* eps = noise_of(a.noise, walk.width, block, scratch + 3 * size);
      A* d_x = a.d_x.data ? target(a.d_x, block, scratch + 4 * size) : scratch + 4 * size;
      A* d_mu = a.d_mu.data ? target(a.d_mu, block, scratch + 5 * size) : scratch + 5 * size;
      A* d_noise = a.d_noise.data ? target(a.d_noise, block, scratch + 6 * size) : scratch + 6 * size;
      A* mean_terms = scratch + 7 * size;
      A* std_terms = scratch + 8 * size;
      const int64_t n = block.size();
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

namespace F2D_LEVEL {

void lognormal_transition(const LognormalArgs& a, char* scratch, int64_t begin, int64_t end) {
  if (a.is_double) return forward(a, reinterpret_cast<double*>(scratch), begin, end);
  forward(a, reinterpret_cast<float*>(scratch), begin, end);
}

void lognormal_transition_backward(const LognormalArgs& a, char* scratch, int64_t begin, int64_t end) {
  if (a.is_double) return backward(a, reinterpret_cast<double*>(scratch), begin, end);
  backward(a, reinterpret_cast<float*>(scratch), begin, end);
}

}  // namespace F2D_LEVEL

}  // namespace f2d
