// Shared by the forward and backward kernels of group_norm_silu: sums of a piece per channel, the affine functions
// ("lines") that transform it, and the order in which pieces are visited.
#pragma once

#include "../group_norm_silu.h"

#include "group_norm_silu.h"
#include "stream.h"

namespace f2d {
namespace {

// sums[c] += sum over rows of x[row][c] - centre[c], and squares[c] += of its square: a few rows in A, then in double.
// kCount = 0: `count` < 32 columns.
template <int kCount, bool kMoments, class A, class T>
inline void add_strip(const T* x, int64_t rows, int64_t width, int64_t count, const A* centre, double* sums,
                      double* squares) {
  const int64_t n = kCount ? kCount : count;
  A sum[kCount ? kCount : 32] = {}, square[kCount ? kCount : 32] = {};
  for (int64_t row = 0; row < rows; ++row) {
#pragma omp simd
    for (int64_t l = 0; l < n; ++l) {
      const A value = load_as<A>(x + row * width + l), d = kMoments ? value - centre[l] : value;
      sum[l] += d;
      if (kMoments) square[l] += d * d;
    }
  }
  for (int64_t l = 0; l < n; ++l) {
    sums[l] += static_cast<double>(sum[l]);
    if (kMoments) squares[l] += static_cast<double>(square[l]);
  }
}

// n values as rows of `width` columns: channels, or 32 lanes of one channel (then the last row may be short). Sums in
// only 16 lanes would wait for each other.
template <bool kMoments, class A, class T>
inline void add_columns(const T* x, int64_t n, int64_t width, const A* centre, double* sums, double* squares) {
  const int64_t rows = n / width, rest = n % width;
  int64_t c = 0;
  for (; c + 32 <= width; c += 32)
    add_strip<32, kMoments>(x + c, rows, width, 32, centre + c, sums + c, squares + c);
  for (; c + 16 <= width; c += 16)
    add_strip<16, kMoments>(x + c, rows, width, 16, centre + c, sums + c, squares + c);
  if (c < width) add_strip<0, kMoments>(x + c, rows, width, width - c, centre + c, sums + c, squares + c);
  if (rest) add_strip<0, kMoments>(x + rows * width, 1, width, rest, centre, sums, squares);
}

// The memory of one thread. Lines are scalars for a plane, and arrays, repeated over a few pixels, for interleaved
// channels.
template <class A>
struct Work {
  static constexpr int kLines = 6;  // centre, gain, offset; backward: share of the mean's gradient, slope, level
  const GroupNormArgs& a;
  double *sums, *squares;  // per column
  A* centre;
  A* lines[kLines];
  A line[kLines];
  A* blocks[5];
  int64_t prepared = -1;  // the unit to which the lines belong

  F2D_MEMBER Work(const GroupNormArgs& args, A* scratch) : a(args) {
    sums = reinterpret_cast<double*>(scratch);
    squares = sums + a.columns();
    A* p = scratch + 2 * a.columns() * sizeof(double) / sizeof(A);
    for (A*& block : blocks) block = p, p += a.block_elements();
    for (A*& values : lines) values = p, p += a.period();
    centre = p;
  }

  F2D_MEMBER void clear() {
    for (int64_t i = 0; i < 2 * a.columns(); ++i) sums[i] = 0.0;
  }
};

struct Piece {
  int64_t plane, b, channel, tile, begin, end;
};

inline Piece piece_of(const GroupNormArgs& a, int64_t index) {
  const int64_t plane = index / a.tiles(), tile = index % a.tiles(), begin = tile * a.tile_pixels();
  return {plane, plane / a.walk.planes(), plane % a.walk.planes(), tile, begin,
          smaller(begin + a.tile_pixels(), a.walk.pixels())};
}

inline Block block_of(const GroupNormArgs& a, const Piece& piece) {
  return {piece.b, piece.channel, a.walk.block_channels(), piece.begin, piece.end - piece.begin};
}

template <class Visit>
inline void each_block(const GroupNormArgs& a, const Piece& piece, Visit visit) {
  const int64_t step = a.block_pixels();
  for (int64_t pixel = piece.begin; pixel < piece.end; pixel += step)
    visit(Block{piece.b, piece.channel, a.walk.block_channels(), pixel, smaller(step, piece.end - pixel)});
}

// Calls visit(channel, its first column) when the columns contain a piece.
template <class A, class Visit>
inline void each_channel(const Work<A>& w, const Piece& piece, Visit visit) {
  if (!w.a.walk.pixel_major) return visit(piece.channel, int64_t(0));
  for (int64_t c = 0; c < w.a.walk.channels; ++c) visit(c, c);
}

// The sum of a channel whose first column is `column`.
template <class A>
inline double channel_sum(const Work<A>& w, const double* sums, int64_t column) {
  return w.a.walk.pixel_major ? sums[column] : sum_lanes(sums) + sum_lanes(sums + kLaneCount);
}

inline double at(const Table& table, int64_t i, int64_t k, double otherwise) {
  return table.data ? table.at(i, k, 0) : otherwise;
}

// The lines of channel c of sample b.
template <class A>
inline void make_lines(const GroupNormArgs& a, int64_t b, int64_t c, A* line) {
  const int64_t group = b * a.groups + c / a.group_channels();
  const double factor = 1.0 + at(a.scale, b, c, 0.0), gain = a.rstd[group] * at(a.weight, c, 0, 1.0) * factor;
  line[0] = static_cast<A>(a.mean[group]);
  line[1] = static_cast<A>(gain);
  line[2] = static_cast<A>(at(a.bias, c, 0, 0.0) * factor + at(a.shift, b, c, 0.0) -
                           (a.mean[group] - static_cast<double>(line[0])) * gain);
  line[3] = static_cast<A>(at(a.grad_mean, b, c, 0.0) / static_cast<double>(a.walk.pixels()));
  line[4] = static_cast<A>(a.terms ? a.terms[2 * group] : 0.0);
  line[5] = static_cast<A>(a.terms ? a.terms[2 * group + 1] : 0.0);
}

template <class A>
inline void prepare(Work<A>& w, const Piece& piece) {
  if (w.prepared == piece.plane) return;
  w.prepared = piece.plane;
  const GroupNormArgs& a = w.a;
  if (!a.walk.pixel_major) return make_lines(a, piece.b, piece.channel, w.line);
  for (int64_t c = 0; c < a.walk.channels; ++c) {
    A line[Work<A>::kLines];
    make_lines(a, piece.b, c, line);
    for (int i = 0; i < Work<A>::kLines; ++i)
      for (int64_t at = c; at < a.period(); at += a.walk.channels) w.lines[i][at] = line[i];
  }
}

// Calls compute(index in the block, the lines there), vectorised; 10x slower if GCC 12 does not inline it.
template <class A, class Compute>
F2D_FN void each_element(const Work<A>& w, int64_t n, Compute compute) {
  if (!w.a.walk.pixel_major) {
    const A l0 = w.line[0], l1 = w.line[1], l2 = w.line[2], l3 = w.line[3], l4 = w.line[4], l5 = w.line[5];
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) compute(i, l0, l1, l2, l3, l4, l5);
    return;
  }
  const A *l0 = w.lines[0], *l1 = w.lines[1], *l2 = w.lines[2], *l3 = w.lines[3], *l4 = w.lines[4], *l5 = w.lines[5];
  const int64_t period = w.a.period();
  for (int64_t start = 0; start < n; start += period) {
    const int64_t length = smaller(period, n - start);
#pragma omp simd
    for (int64_t i = 0; i < length; ++i) compute(start + i, l0[i], l1[i], l2[i], l3[i], l4[i], l5[i]);
  }
}

// A Pass gathers the sums of each piece, combines them, and applies the result. It applies in reverse order, because
// the pieces read last are still in the cache.
template <class Pass, class A>
void run(const GroupNormArgs& a, A* scratch, int64_t begin, int64_t end) {
  Work<A> w(a, scratch);
  const auto gather = [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; ++i) Pass::gather(w, piece_of(a, i));
  };
  const auto combine = [&](int64_t unit) {
    if (!a.walk.pixel_major) return Pass::combine(a, unit / a.groups, unit % a.groups);
    for (int64_t group = 0; group < a.groups; ++group) Pass::combine(a, unit, group);
  };
  const auto apply = [&](int64_t from, int64_t to) {
    for (int64_t i = to - 1; i >= from; --i) Pass::apply(w, piece_of(a, i));
  };
  if (a.phase == Phase::gather) return gather(begin, end);
  if (a.phase == Phase::apply) return apply(begin, end);
  const int64_t pieces = a.pieces() / a.units();
  for (int64_t unit = begin; unit < end; ++unit) {
    if (a.phase == Phase::whole) gather(unit * pieces, (unit + 1) * pieces);
    combine(unit);
    w.prepared = -1;  // the lines of a unit depend on the combined sums
    if (a.phase == Phase::whole) apply(unit * pieces, (unit + 1) * pieces);
  }
}

}  // namespace
}  // namespace f2d
