// Operands in one memory format. The kernels read any strides, but an image whose planes and channels lie the other way
// round than in the results, or that has no dense runs at all, element by element: that takes 3 ns each, and a single
// such image keeps the fast walks from all others. A copy takes 0.5 to 1 ns, and 0.2 of dense runs.
#pragma once

#include <algorithm>
#include <type_traits>

#include "direct.h"
#include "pages.h"

namespace f2d {

enum class Format { other, planar, interleaved };

inline Format format_of(const Stream& s, int64_t channels) {
  if (!s.linear) return Format::other;
  if (channels > 1 && s.c == 1 && s.w == channels) return Format::interleaved;
  return s.w == 1 ? Format::planar : Format::other;
}

constexpr int64_t kFewElements = 4096;  // of which a copy takes longer than it saves
constexpr int64_t kCopiedPixels = 32;   // per channel and step: a line of 16-bit values, and all channels fit into L1

// A stride of One is known to the compiler; copies between planes and pixels then take two thirds of the time.
using One = std::integral_constant<int64_t, 1>;

template <class T, class FromC, class FromW, class ToC, class ToW>
inline void copy_strided(const T* from, FromC from_c, FromW from_w, T* to, ToC to_c, ToW to_w, int64_t channels,
                         int64_t n) {
  for (int64_t p = 0; p < n; p += kCopiedPixels) {
    const int64_t end = std::min(p + kCopiedPixels, n);
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t i = p; i < end; ++i) to[c * to_c + i * to_w] = from[c * from_c + i * from_w];
  }
}

// Copies n pixels of all channels; c and w are the strides of channels and pixels. Either to_c or to_w is 1.
template <class T>
inline void copy_run(const T* from, int64_t from_c, int64_t from_w, T* to, int64_t to_c, int64_t to_w, int64_t channels,
                     int64_t n) {
  constexpr int64_t kManyChannels = 8;  // with fewer, a call per pixel costs more than a loop: 0.5 instead of 0.27 ns
  const bool pixels = from_c == 1 && to_c == 1;
  if (from_w == 1 && to_w == 1) {
    for (int64_t c = 0; c < channels; ++c) std::copy_n(from + c * from_c, n, to + c * to_c);
  } else if (pixels && from_w == to_w) {
    std::copy_n(from, n * channels, to);
  } else if (pixels && channels >= kManyChannels) {
    for (int64_t i = 0; i < n; ++i) std::copy_n(from + i * from_w, channels, to + i * to_w);
  } else if (pixels) {
    copy_strided(from, One(), from_w, to, One(), to_w, channels, n);
  } else if (from_w == 1) {
    copy_strided(from, from_c, One(), to, One(), to_w, channels, n);
  } else if (from_c == 1) {
    copy_strided(from, One(), from_w, to, to_c, One(), channels, n);
  } else {
    copy_strided(from, from_c, from_w, to, to_c, to_w, channels, n);
  }
}

// Copies pixels [begin, end) of one sample to dense memory, row by row if the pixels of `from` are not in one line.
template <class T>
inline void copy_pixels(const Stream& from, const Stream& to, int64_t b, int64_t channels, int64_t begin, int64_t end) {
  const T* source = reinterpret_cast<const T*>(from.data) + b * from.b;
  T* target = reinterpret_cast<T*>(to.data) + b * to.b;
  for (int64_t pixel = begin; pixel < end;) {
    const int64_t y = pixel / from.width, x = pixel % from.width, rest = end - pixel;
    const int64_t n = from.linear || rest < from.width - x ? rest : from.width - x;
    const int64_t offset = from.linear ? pixel * from.w : y * from.h + x * from.w;
    copy_run(source + offset, from.c, from.w, target + pixel * to.w, to.c, to.w, channels, n);
    pixel += n;
  }
}

template <class T>
inline void copy_image(const Stream& from, const Stream& to, const ImageShape& s) {
  const int64_t pixels = s.height * s.width, tiles = (pixels + kTilePixels - 1) / kTilePixels;
  torch::stable::parallel_for(0, s.batch * tiles, 1, [&](int64_t first, int64_t last) {
    for (int64_t task = first; task < last; ++task) {
      const int64_t begin = task % tiles * kTilePixels, end = std::min(begin + kTilePixels, pixels);
      copy_pixels<T>(from, to, task / tiles, s.channels, begin, end);
    }
  });
}

inline void copy_image(const Stream& from, const Stream& to, const ImageShape& shape) {
  switch (size_of(from.dtype)) {
    case 2: return copy_image<uint16_t>(from, to, shape);
    case 4: return copy_image<uint32_t>(from, to, shape);
    default: return copy_image<uint64_t>(from, to, shape);
  }
}

// Runs: rows of a plane, or the channels of a pixel, as in a crop or a slice. Kernels read dense runs as fast as a copy
// would, so that they are kept, except by the fast walks of the assembly and where they decide the order of the walk.
enum class Runs { kept, joined };

inline bool to_be_copied(Format format, Runs runs, const Tensor& tensor, const Stream& image, int64_t channels) {
  if (format == Format::other || tensor.numel() < kFewElements || format_of(image, channels) == format) return false;
  const bool dense = format == Format::planar ? image.w == 1 : image.c == 1 && image.w > 1;
  return runs == Runs::joined || !dense;
}

// Replaces `image` [B, C, H, W] by a dense copy in `format` if it is stored otherwise.
inline void bring_to(Format format, Tensor& image, Runs runs = Runs::kept) {
  const ImageShape shape{image.size(0), image.size(1), image.size(2), image.size(3)};
  const Stream from = image_stream(image);
  if (!to_be_copied(format, runs, image, from, shape.channels)) return;
  const Tensor copy = new_image(shape, dtype_of(image), format == Format::interleaved);
  use_huge_pages(copy);
  copy_image(from, image_stream(copy), shape);
  image = copy;
}

// For the image that decides the order of the walk, a gradient or the input of a norm: `walk_of` needs dense pixels.
inline void bring_walked_to(Format format, Tensor& image) {
  bring_to(format, image, format == Format::interleaved ? Runs::joined : Runs::kept);
}

inline void bring_walked_to(Format format, OptionalTensor& image) {
  if (image) bring_walked_to(format, *image);
}

// An operand that is one number stays as it is: it may stand for a tensor of which only the shape was kept (`stand_in`
// in f2d_kernels/ops/_allocate.py), whose values do not matter.
inline bool is_one_number(const Tensor& t) {
  for (int64_t d = 0; d < t.dim(); ++d)
    if (t.size(d) > 1 && t.stride(d) != 0) return false;
  return true;
}

inline void bring_operand_to(Format format, Runs runs, Tensor& image) {
  if (!is_one_number(image)) bring_to(format, image, runs);
}

inline void bring_operand_to(Format format, Runs runs, OptionalTensor& image) {
  if (image) bring_operand_to(format, runs, *image);
}

// The same for K images, or for one tensor [B, K, C, H, W] in which they are stacked.
inline void bring_operand_to(Format format, Runs runs, std::vector<Tensor>& images) {
  if (!is_stacked(images)) {
    for (Tensor& image : images) bring_operand_to(format, runs, image);
    return;
  }
  const Tensor& stack = images[0];
  const ImageShape shape{stack.size(0), stack.size(2), stack.size(3), stack.size(4)};
  const std::vector<Stream> from = expert_streams(images);
  if (is_one_number(stack) || !to_be_copied(format, runs, stack, from[0], shape.channels)) return;
  const int64_t experts = stack.size(1), pixels = shape.height * shape.width, size = shape.channels * pixels;
  const bool inside = format == Format::interleaved;
  const Tensor copy = new_tensor({shape.batch, experts, shape.channels, shape.height, shape.width},
                                 {experts * size, size, inside ? 1 : pixels, shape.width * (inside ? shape.channels : 1),
                                  inside ? shape.channels : 1},
                                 type_of(dtype_of(stack)));
  use_huge_pages(copy);
  const std::vector<Stream> to = expert_streams({copy});
  for (int64_t k = 0; k < experts; ++k) copy_image(from[k], to[k], shape);
  images = {copy};
}

template <class... Operands>
inline void bring_operands_to(Format format, Runs runs, Operands&... operands) {
  (bring_operand_to(format, runs, operands), ...);
}

inline Format format_of(const Tensor& image) { return format_of(image_stream(image), image.size(1)); }

// The format of the first image that has one: absent ones have none, nor have those of which only the shape was kept.
inline Format first_format(int64_t channels, std::initializer_list<Stream> images) {
  for (const Stream& image : images)
    if (format_of(image, channels) != Format::other) return format_of(image, channels);
  return Format::other;
}

}  // namespace f2d
