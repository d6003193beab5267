// group_norm_silu's backward kernel for one instruction set: the sums of the gradients, then the gradient of the input.
#include "group_norm_pieces.h"

namespace f2d {
namespace {

struct Backward {
  // d_u, including the gradient of the returned mean.
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
    each_channel(w, piece, [&](int64_t c, int64_t column) {
      double* part = a.part(piece.b, piece.tile, c);
      part[0] = channel_sum(w, w.sums, column);
      part[1] = channel_sum(w, w.squares, column);
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

}  // namespace

F2D_DEFINE_KERNEL(group_norm_silu_backward, GroupNormArgs, run<Backward>)

}  // namespace f2d
