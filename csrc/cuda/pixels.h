// The pixels of a warp's tile that one lane owns, and the channels that it reads and writes of them at once. A tile belongs to
// one sample, and every lane of the warp calls each of these functions, whether its pixels are inside the image or not.
//
//   kCount pixels, kChannels channels; fetch, decode, write: of an image, from its channel at offset `start` on;
//   fetch_plane, decode_plane, write_plane: of a map. What is fetched stays raw until all of a group are under way.
#pragma once

#include "views.h"

namespace f2d {

constexpr int kWarp = 32;  // lanes

// Neighbours of dense planes, one channel at a time.
template <class Of>
struct VectorPixels {
  using Access = Of;
  using Index = typename Of::Index;
  using Value = float;
  using Fetched = Raw;
  using FetchedPlane = Raw;
  static constexpr int kCount = Of::kVector, kChannels = 1;

  Index first;
  bool inside;

  F2D_MEMBER VectorPixels(const Shape& shape, Index tile, int lane)
      : first((tile * kWarp + lane) * kCount), inside(first < static_cast<Index>(shape.pixels())) {}
  F2D_MEMBER Raw fetch(const View& v, Index start) const { return inside ? load_raw<Of>(v, start + first) : Raw{}; }
  F2D_MEMBER void decode(const Raw& raw, const View& v, float (&value)[1][kCount]) const {
    unpack<Of>(raw, v.dtype, value[0]);
  }
  F2D_MEMBER void write(const View& v, Index start, const float (&value)[1][kCount]) const {
    write_plane(v, start, value[0]);
  }
  F2D_MEMBER Raw fetch_plane(const View& v, Index start) const { return fetch(v, start); }
  F2D_MEMBER void decode_plane(const Raw& raw, const View& v, float (&value)[kCount]) const {
    unpack<Of>(raw, v.dtype, value);
  }
  F2D_MEMBER void write_plane(const View& v, Index start, const float (&value)[kCount]) const {
    if (inside) store_vector<Of>(v, start + first, value);
  }
};

struct Raws {
  Raw part[3];
};

// Neighbours of dense images [h, w, 3], all channels at once; the pixels of maps are equidistant. A lane's elements are three vectors. If
// each lane loaded its own, an access would touch every sector that the other two touch too. So the warp loads 96 neighbouring
// vectors in three rounds, and the lanes exchange them: vector 3 l + j belongs to lane l. For each j these lie in 32 different
// lanes, since 3 has the inverse 11 modulo 32, and so one shuffle a word suffices.
template <class Of>
struct TriplePixels {
  using Access = Of;
  using Index = typename Of::Index;
  using Value = float;
  using Fetched = Raws;
  using FetchedPlane = Raw;
  static constexpr int kCount = Of::kVector, kChannels = 3;

  VectorPixels<Of> plane;
  Index begin, count, first;  // elements: of the tile, of the image; the first pixel
  int lane;

  F2D_MEMBER TriplePixels(const Shape& shape, Index tile, int of_lane)
      : plane(shape, tile, of_lane), begin(tile * kWarp * kCount * 3), count(static_cast<Index>(shape.pixels()) * 3),
        first(plane.first), lane(of_lane) {}

  F2D_MEMBER Raws fetch(const View& v, Index start) const {
    Raws own{};
#if defined(__CUDA_ARCH__)
    Raws loaded{};
    F2D_UNROLL
    for (int round = 0; round < 3; ++round) {
      const Index at = begin + (kWarp * round + lane) * kCount;
      if (at < count) loaded.part[round] = load_raw<Of>(v, start + at);
    }
    F2D_UNROLL
    for (int j = 0; j < 3; ++j) {
      const int round = round_of(owner(j), j), from = (3 * lane + j) % kWarp;
      F2D_UNROLL
      for (int i = 0; i < Of::kWords; ++i) {
        const uint32_t given = round == 0   ? loaded.part[0].word[i]
                               : round == 1 ? loaded.part[1].word[i]
                                            : loaded.part[2].word[i];
        own.part[j].word[i] = __shfl_sync(0xffffffffu, given, from);
      }
    }
#else
    for (int j = 0; j < 3; ++j)
      if (plane.inside) own.part[j] = load_raw<Of>(v, start + 3 * first + j * kCount);
#endif
    return own;
  }
  F2D_MEMBER void decode(const Raws& raws, const View& v, float (&value)[3][kCount]) const {
    float flat[3 * kCount];
    F2D_UNROLL
    for (int j = 0; j < 3; ++j) unpack<Of>(raws.part[j], v.dtype, flat + j * kCount);
    F2D_UNROLL
    for (int e = 0; e < 3 * kCount; ++e) value[e % 3][e / 3] = flat[e];
  }
  F2D_MEMBER void write(const View& v, Index start, const float (&value)[3][kCount]) const {
    float flat[3 * kCount];
    F2D_UNROLL
    for (int e = 0; e < 3 * kCount; ++e) flat[e] = value[e % 3][e / 3];
#if defined(__CUDA_ARCH__)
    Raws got{};
    F2D_UNROLL
    for (int j = 0; j < 3; ++j) {
      const Raw own = pack<Of>(v.dtype, flat + j * kCount);
      F2D_UNROLL
      for (int i = 0; i < Of::kWords; ++i) got.part[j].word[i] = __shfl_sync(0xffffffffu, own.word[i], owner(j));
    }
    F2D_UNROLL
    for (int round = 0; round < 3; ++round) {
      Raw out = got.part[2];
      F2D_UNROLL
      for (int j = 0; j < 2; ++j) {
        F2D_UNROLL
        for (int i = 0; i < Of::kWords; ++i)
          out.word[i] = round_of(owner(j), j) == round ? got.part[j].word[i] : out.word[i];
      }
      const Index at = begin + (kWarp * round + lane) * kCount;
      if (at < count) store_raw<Of>(v, start + at, out);
    }
#else
    for (int j = 0; j < 3; ++j)
      if (plane.inside) store_vector<Of>(v, start + 3 * first + j * kCount, flat + j * kCount);
#endif
  }
  F2D_MEMBER Raw fetch_plane(const View& v, Index start) const {
    if (v.w == 1) return plane.fetch(v, start);
    float value[kCount] = {};
    F2D_UNROLL
    for (int i = 0; i < kCount; ++i)
      if (plane.inside) value[i] = load_one<float>(v, start + (first + i) * static_cast<Index>(v.w));
    return pack<Of>(v.dtype, value);
  }
  F2D_MEMBER void decode_plane(const Raw& raw, const View& v, float (&value)[kCount]) const {
    plane.decode_plane(raw, v, value);
  }
  F2D_MEMBER void write_plane(const View& v, Index start, const float (&value)[kCount]) const {
    if (v.w == 1) return plane.write_plane(v, start, value);
    F2D_UNROLL
    for (int i = 0; i < kCount; ++i)
      if (plane.inside) store_one(v, start + (first + i) * static_cast<Index>(v.w), value[i]);
  }

  // The lane whose vector j this lane loads, and the round in which that lane's is loaded.
  F2D_MEMBER int owner(int j) const { return (lane + kWarp - j) * 11 % kWarp; }
  F2D_MEMBER static int round_of(int of_lane, int j) { return (3 * of_lane + j) / kWarp; }
};

// One pixel, any strides and dtypes, one channel at a time.
template <class A>
struct ElementPixels {
  using Index = int64_t;
  using Value = A;
  using Fetched = A;
  using FetchedPlane = A;
  static constexpr int kCount = 1, kChannels = 1;

  int64_t y, x;
  bool inside;

  F2D_MEMBER ElementPixels(const Shape& shape, int64_t tile, int lane) {
    const int64_t pixel = tile * kWarp + lane;
    y = quotient(pixel, shape.width);
    x = pixel - y * shape.width;
    inside = pixel < shape.pixels();
  }
  F2D_MEMBER A fetch(const View& v, int64_t start) const {
    return inside ? load_one<A>(v, start + y * v.h + x * v.w) : A(0);
  }
  F2D_MEMBER void decode(A fetched, const View&, A (&value)[1][1]) const { value[0][0] = fetched; }
  F2D_MEMBER void write(const View& v, int64_t start, const A (&value)[1][1]) const { write_plane(v, start, value[0]); }
  F2D_MEMBER A fetch_plane(const View& v, int64_t start) const { return fetch(v, start); }
  F2D_MEMBER void decode_plane(A fetched, const View&, A (&value)[1]) const { value[0] = fetched; }
  F2D_MEMBER void write_plane(const View& v, int64_t start, const A (&value)[1]) const {
    if (inside) store_one(v, start + y * v.h + x * v.w, value[0]);
  }
};

}  // namespace f2d
