// group_norm_silu for one instruction set: compiled once per level with F2D_LEVEL naming it.
#include "../group_norm_silu.h"

#include "group_norm_silu.h"
#include "stream.h"

namespace f2d {
namespace {

// sums[c] += sum over rows of x[row][c] - centre[c], and squares[c] += of its square: few rows in A, then in double.
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

// n values as rows of `width` columns: channels, or twice 16 lanes of one channel (then the last row may be short). Twice,
// since the sums of 16 lanes wait for each other.
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

// One thread's memory. The lines of a plane are scalars; of interleaved channels arrays, repeated over a few pixels.
template <class A>
struct Work {
  static constexpr int kLines = 6;  // centre, gain, offset; backward: share of the mean's gradient, slope, level
  const GroupNormArgs& a;
  double *sums, *squares;  // per column
  A* centre;
  A* lines[kLines];
  A line[kLines];
  A* blocks[5];
  int64_t prepared = -1;  // whose lines these are

  F2D_MEMBER Work(const GroupNormArgs& args, char* scratch) : a(args) {
    sums = reinterpret_cast<double*>(scratch);
    squares = sums + a.columns();
    A* p = reinterpret_cast<A*>(scratch) + 2 * a.columns() * sizeof(double) / sizeof(A);
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

// visit(channel, its first column, its two sums) once the columns hold a piece.
template <class A, class Visit>
inline void each_channel(const Work<A>& w, const Piece& piece, Visit visit) {
  const auto lanes = [](const double* sums) { return sum_lanes(sums) + sum_lanes(sums + kLaneCount); };
  if (!w.a.walk.pixel_major) return visit(piece.channel, int64_t(0), lanes(w.sums), lanes(w.squares));
  for (int64_t c = 0; c < w.a.walk.channels; ++c) visit(c, c, w.sums[c], w.squares[c]);
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

// compute(index in the block, the lines there), vectorised: 10x slower where GCC 12 does not inline it.
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

struct Forward {
  // Mean and sum of squared deviations of each channel, about the mean of the tile's first pixels: as these are part of
  // the data, the squares about it exceed those about the tile's own mean by a bounded factor, and few digits cancel.
  template <class A>
  static inline void gather(Work<A>& w, const Piece& piece) {
    const GroupNormArgs& a = w.a;
    const int64_t width = a.columns();
    const Block first{piece.b, piece.channel, a.walk.block_channels(), piece.begin,
                      smaller(a.first_pixels(), piece.end - piece.begin)};
    w.clear();
    with_block(a.x, first, w.blocks[0], [&](auto* x) {
      add_columns<false>(x, first.size(), width, w.centre, w.sums, w.squares);
    });
    each_channel(w, piece, [&](int64_t, int64_t column, double sum, double) {
      const int64_t count = a.walk.pixel_major ? 1 : width;
      for (int64_t i = 0; i < count; ++i) w.centre[column + i] = static_cast<A>(sum / static_cast<double>(first.pixels));
    });
    w.clear();
    each_block(a, piece, [&](const Block& block) {
      with_block(a.x, block, w.blocks[0], [&](auto* x) {
        add_columns<true>(x, block.size(), width, w.centre, w.sums, w.squares);
      });
    });
    const double count = static_cast<double>(piece.end - piece.begin);
    each_channel(w, piece, [&](int64_t c, int64_t column, double sum, double square) {
      double* part = a.part(piece.b, piece.tile, c);
      const double deviation = square - sum * sum / count;
      part[0] = static_cast<double>(w.centre[column]) + sum / count;
      part[1] = deviation < 0.0 ? 0.0 : deviation;
    });
  }

  static inline void combine(const GroupNormArgs& a, int64_t b, int64_t group) {
    const int64_t first = group * a.group_channels(), tiles = a.tiles();
    const auto each_part = [&](auto visit) {
      for (int64_t tile = 0; tile < tiles; ++tile) {
        const int64_t rest = a.walk.pixels() - tile * a.tile_pixels();
        const double count = static_cast<double>(smaller(rest, a.tile_pixels()));
        const double* part = a.part(b, tile, first);
        for (int64_t c = 0; c < a.group_channels(); ++c) visit(count, part[2 * c], part[2 * c + 1]);
      }
    };
    const double count = static_cast<double>(a.group_channels() * a.walk.pixels());
    double sum = 0.0, squares = 0.0;
    each_part([&](double n, double mean, double) { sum += n * mean; });
    const double mean = sum / count;
    each_part([&](double n, double m, double deviation) { squares += deviation + n * (m - mean) * (m - mean); });
    a.mean[b * a.groups + group] = mean;
    a.rstd[b * a.groups + group] = 1.0 / __builtin_sqrt(squares / count + a.eps);
  }

  template <class A>
  static inline void apply(Work<A>& w, const Piece& piece) {
    const GroupNormArgs& a = w.a;
    prepare(w, piece);
    w.clear();
    const auto transform = [&](const auto* x, auto* out, int64_t n) {
      each_element(w, n, [=](int64_t i, A centre, A gain, A offset, A, A, A) F2D_INLINED {
        store_as<A>(out + i, silu(group_norm_line(load_as<A>(x + i), centre, gain, offset)));
      });
    };
    const Block all = block_of(a, piece);
    const auto transform_in_place = [&](auto type) {
      using T = decltype(type);
      transform(in_place<T>(a.x, all), in_place<T>(a.image, all), all.size());
    };
    if (!a.sums_result && fused<A>(transform_in_place, all, a.x, a.image)) return;
    each_block(a, piece, [&](const Block& block) {
      A* out = target(a.image, block, w.blocks[1]);
      with_block(a.x, block, w.blocks[0], [&](auto* x) { transform(x, out, block.size()); });
      if (a.sums_result) add_columns<false>(out, block.size(), a.columns(), w.centre, w.sums, w.squares);
      write(a.image, block, out);
    });
    if (!a.sums_result) return;
    each_channel(w, piece, [&](int64_t c, int64_t, double sum, double) { *a.part(piece.b, piece.tile, c) = sum; });
  }
};

struct Backward {
  // d_u, and the gradient's share of the returned mean in it.
  template <class A>
  static F2D_MEMBER A slope_of(A grad, A x, A centre, A gain, A offset, A share) {
    return silu_gradient(grad + share, group_norm_line(x, centre, gain, offset));
  }

  template <class A>
  static inline void gather(Work<A>& w, const Piece& piece) {
    const GroupNormArgs& a = w.a;
    prepare(w, piece);
    w.clear();
    each_block(a, piece, [&](const Block& block) {
      A *d_u = w.blocks[2], *products = w.blocks[3];
      const auto multiply = [&](const auto* values, const auto* grad) {
        each_element(w, block.size(), [=](int64_t i, A centre, A gain, A offset, A share, A, A) F2D_INLINED {
          const A x = load_as<A>(values + i), d = slope_of(load_as<A>(grad + i), x, centre, gain, offset, share);
          d_u[i] = d;
          products[i] = d * (x - centre);
        });
      };
      const auto multiply_in_place = [&](auto type) {
        using T = decltype(type);
        multiply(in_place<T>(a.x, block), in_place<T>(a.image, block));
      };
      if (!fused<A>(multiply_in_place, block, a.x, a.image))
        multiply(read(a.x, block, w.blocks[0]), read(a.image, block, w.blocks[1]));
      add_columns<false>(d_u, block.size(), a.columns(), w.centre, w.sums, w.squares);
      add_columns<false>(products, block.size(), a.columns(), w.centre, w.squares, w.squares);
    });
    each_channel(w, piece, [&](int64_t c, int64_t, double sum, double product) {
      double* part = a.part(piece.b, piece.tile, c);
      part[0] = sum;
      part[1] = product;
    });
  }

  static inline void combine(const GroupNormArgs& a, int64_t b, int64_t group) {
    const int64_t index = b * a.groups + group, first = group * a.group_channels();
    const double mean = a.mean[index], rstd = a.rstd[index];
    const double lost = mean - (a.is_double ? mean : static_cast<double>(static_cast<float>(mean)));
    double plain = 0.0, normalised = 0.0;
    for (int64_t c = first; c < first + a.group_channels(); ++c) {
      double sum = 0.0, product = 0.0;
      for (int64_t tile = 0; tile < a.tiles(); ++tile) {
        sum += a.part(b, tile, c)[0];
        product += a.part(b, tile, c)[1];
      }
      double* sums = a.sums + 2 * (b * a.walk.channels + c);
      sums[0] = sum;
      sums[1] = rstd * (product - lost * sum);
      const double factor = (1.0 + at(a.scale, b, c, 0.0)) * at(a.weight, c, 0, 1.0);
      plain += factor * sums[0];
      normalised += factor * sums[1];
    }
    const double count = static_cast<double>(a.group_channels() * a.walk.pixels());
    const double slope = rstd * rstd * normalised / count;
    a.terms[2 * index] = slope;
    a.terms[2 * index + 1] = rstd * plain / count - lost * slope;
  }

  template <class A>
  static inline void apply(Work<A>& w, const Piece& piece) {
    const GroupNormArgs& a = w.a;
    if (!a.d_x.data) return;
    prepare(w, piece);
    const auto transform = [&](const auto* values, const auto* grad, auto* d_x, int64_t n) {
      each_element(w, n, [=](int64_t i, A centre, A gain, A offset, A share, A slope, A level) F2D_INLINED {
        const A x = load_as<A>(values + i), d = slope_of(load_as<A>(grad + i), x, centre, gain, offset, share);
        store_as<A>(d_x + i, group_norm_input_gradient(d, x, centre, gain, slope, level));
      });
    };
    const Block all = block_of(a, piece);
    const auto transform_in_place = [&](auto type) {
      using T = decltype(type);
      transform(in_place<T>(a.x, all), in_place<T>(a.image, all), in_place<T>(a.d_x, all), all.size());
    };
    if (fused<A>(transform_in_place, all, a.x, a.image, a.d_x)) return;
    each_block(a, piece, [&](const Block& block) {
      A* d_x = target(a.d_x, block, w.blocks[2]);
      transform(read(a.x, block, w.blocks[0]), read(a.image, block, w.blocks[1]), d_x, block.size());
      write(a.d_x, block, d_x);
    });
  }
};

// Backwards through the pieces when applying: the last ones read are still in cache.
template <class Pass, class A>
void run(const GroupNormArgs& a, char* scratch, int64_t begin, int64_t end) {
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
    w.prepared = -1;  // the lines of a unit depend on what was combined
    if (a.phase == Phase::whole) apply(unit * pieces, (unit + 1) * pieces);
  }
}

}  // namespace

namespace F2D_LEVEL {

void group_norm_silu(const GroupNormArgs& a, char* scratch, int64_t begin, int64_t end) {
  if (a.is_double) return run<Forward, double>(a, scratch, begin, end);
  run<Forward, float>(a, scratch, begin, end);
}

void group_norm_silu_backward(const GroupNormArgs& a, char* scratch, int64_t begin, int64_t end) {
  if (a.is_double) return run<Backward, double>(a, scratch, begin, end);
  run<Backward, float>(a, scratch, begin, end);
}

}  // namespace F2D_LEVEL

}  // namespace f2d
