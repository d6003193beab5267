// Operands in one memory format. The kernels read any strides, but an image with channels innermost among planes (or the
// reverse) element by element, which takes 3 ns each and keeps them from their fast walks; a copy takes 0.5 to 1.
#pragma once

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

// Copies pixels [begin, end) of one sample from planes to channels innermost (kToPixels), or back.
template <bool kToPixels, class T>
inline void copy_pixels(const T* from, T* to, int64_t channels, int64_t plane, int64_t begin, int64_t end) {
  for (int64_t p = begin; p < end; p += kCopiedPixels) {
    const int64_t n = end - p < kCopiedPixels ? end - p : kCopiedPixels;
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t i = 0; i < n; ++i) {
        const int64_t pixel = (p + i) * channels + c, planar = c * plane + p + i;
        if (kToPixels) to[pixel] = from[planar];
        else to[planar] = from[pixel];
      }
  }
}

template <class T>
inline void copy_format(const Stream& from, const Stream& to, int64_t batch, int64_t channels, int64_t pixels) {
  const bool to_pixels = format_of(to, channels) == Format::interleaved;
  const int64_t plane = to_pixels ? from.c : to.c, tiles = (pixels + kTilePixels - 1) / kTilePixels;
  torch::stable::parallel_for(0, batch * tiles, 1, [&](int64_t first, int64_t last) {
    for (int64_t task = first; task < last; ++task) {
      const int64_t b = task / tiles, begin = task % tiles * kTilePixels;
      const int64_t end = begin + kTilePixels < pixels ? begin + kTilePixels : pixels;
      const T* source = reinterpret_cast<const T*>(from.data) + b * from.b;
      T* target = reinterpret_cast<T*>(to.data) + b * to.b;
      if (to_pixels) copy_pixels<true>(source, target, channels, plane, begin, end);
      else copy_pixels<false>(source, target, channels, plane, begin, end);
    }
  });
}

// Replaces `image` [B, C, H, W] by a copy in `format` if it is dense in the other one.
inline void bring_to(Format format, Tensor& image) {
  const int64_t channels = image.size(1);
  if (format == Format::other || channels == 1 || image.numel() < kFewElements) return;
  const Stream from = image_stream(image);
  const Format given = format_of(from, channels);
  if (given == format || given == Format::other) return;
  const ImageShape shape{image.size(0), channels, image.size(2), image.size(3)};
  const Tensor copy = new_image(shape, dtype_of(image), format == Format::interleaved);
  use_huge_pages(copy);
  const Stream to = image_stream(copy);
  const int64_t pixels = shape.height * shape.width;
  switch (size_of(from.dtype)) {
    case 2: copy_format<uint16_t>(from, to, shape.batch, channels, pixels); break;
    case 4: copy_format<uint32_t>(from, to, shape.batch, channels, pixels); break;
    default: copy_format<uint64_t>(from, to, shape.batch, channels, pixels);
  }
  image = copy;
}

inline void bring_to(Format format, OptionalTensor& image) {
  if (image) bring_to(format, *image);
}

// A stacked tensor stays as it is: its copy would cost as much as the rest of the pass.
inline void bring_to(Format format, std::vector<Tensor>& images) {
  if (is_stacked(images)) return;
  for (Tensor& image : images) bring_to(format, image);
}

template <class... Images>
inline void bring_all_to(Format format, Images&... images) {
  (bring_to(format, images), ...);
}

inline Format format_of(const Tensor& image) { return format_of(image_stream(image), image.size(1)); }

// The format of the first image that has one: absent ones have none, nor have those of which only the shape was kept.
inline Format first_format(int64_t channels, std::initializer_list<Stream> images) {
  for (const Stream& image : images)
    if (format_of(image, channels) != Format::other) return format_of(image, channels);
  return Format::other;
}

}  // namespace f2d
