// group_norm_silu's forward kernel for one instruction set: compiled once per level with F2D_LEVEL naming it.
#include "group_norm_pieces.h"

namespace f2d {
namespace {

struct Forward {
  // Mean and sum of squared deviations of each channel, about the mean of the tile's first pixels. These are part of
  // the data, so the squares exceed those about the tile's own mean by a bounded factor only, and few digits cancel.
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
    each_channel(w, piece, [&](int64_t, int64_t column) {
      const A mean = static_cast<A>(channel_sum(w, w.sums, column) / static_cast<double>(first.pixels));
      const int64_t count = a.walk.pixel_major ? 1 : width;
      for (int64_t i = 0; i < count; ++i) w.centre[column + i] = mean;
    });
    w.clear();
    each_block(a, piece, [&](const Block& block) {
      with_block(a.x, block, w.blocks[0], [&](auto* x) {
        add_columns<true>(x, block.size(), width, w.centre, w.sums, w.squares);
      });
    });
    const double count = static_cast<double>(piece.end - piece.begin);
    each_channel(w, piece, [&](int64_t c, int64_t column) {
      double* part = a.part(piece.b, piece.tile, c);
      const double sum = channel_sum(w, w.sums, column);
      const double deviation = channel_sum(w, w.squares, column) - sum * sum / count;
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
    if (a.sums_result) w.clear();
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
    each_channel(w, piece, [&](int64_t c, int64_t column) {
      *a.part(piece.b, piece.tile, c) = channel_sum(w, w.sums, column);
    });
  }
};

}  // namespace

F2D_DEFINE_KERNEL(group_norm_silu, GroupNormArgs, run<Forward>)

}  // namespace f2d
