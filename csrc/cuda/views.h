// Strided tensors of any dtype as the CUDA kernels see them, and the ways to read and write eight neighbours of one:
// raw 16-byte accesses where they lie together, element by element where not. Compiles for the host too, where the tests
// run every kernel's body thread by thread.
//
// The dtype is a run-time value: it is the same for all threads, so its branch costs a few instructions per 16 bytes, and
// one kernel serves every mix of dtypes. Loads stay raw until all of a group are under way.
#pragma once

#include "../portable.h"

namespace f2d {

constexpr int kVector = 8;  // elements per thread and stream: one 16-byte access at 16 bits, two at 32

struct alignas(16) Chunk {
  uint32_t word[4];
};

// Eight raw elements, widths up to 4 bytes.
struct Raw {
  Chunk chunk[2];
};

// Strides in elements of dimensions b, k (expert), c, h, w; 0 where the tensor does not vary. data null: absent.
struct View {
  char* data;
  int64_t b, k, c, h, w;
  DType dtype;
};

struct Shape {
  int64_t batch, channels, height, width;

  F2D_MEMBER int64_t pixels() const { return height * width; }
};

// Offsets need 64 bits, but rarely use them: dividing 32 bits costs a quarter.
F2D_FN int64_t quotient(int64_t a, int64_t b) {
  if (((a | b) >> 32) == 0) return static_cast<uint32_t>(a) / static_cast<uint32_t>(b);
  return a / b;
}

F2D_FN Chunk load_chunk(const void* p) {
#if defined(__CUDA_ARCH__)
  const uint4 v = __ldg(static_cast<const uint4*>(p));
  return {{v.x, v.y, v.z, v.w}};
#else
  Chunk chunk;
  memcpy(&chunk, p, sizeof(chunk));
  return chunk;
#endif
}

F2D_FN void store_chunk(void* p, Chunk chunk) {
#if defined(__CUDA_ARCH__)
  *static_cast<uint4*>(p) = make_uint4(chunk.word[0], chunk.word[1], chunk.word[2], chunk.word[3]);
#else
  memcpy(p, &chunk, sizeof(chunk));
#endif
}

F2D_FN Raw load_raw(const View& s, int64_t offset) {
  const char* p = s.data + offset * size_of(s.dtype);
  Raw raw;
  raw.chunk[0] = load_chunk(p);
  if (s.dtype == DType::f32) raw.chunk[1] = load_chunk(p + 16);
  return raw;
}

F2D_FN void unpack(const Raw& raw, DType dtype, float value[kVector]) {
  if (dtype == DType::f32) {
    F2D_UNROLL
    for (int i = 0; i < kVector; ++i) value[i] = bit_cast<float>(raw.chunk[i / 4].word[i % 4]);
  } else if (dtype == DType::bf16) {
    F2D_UNROLL
    for (int i = 0; i < kVector; ++i)
      value[i] = to_float(bf16{static_cast<uint16_t>(raw.chunk[0].word[i / 2] >> 16 * (i % 2))});
  } else {
    F2D_UNROLL
    for (int i = 0; i < kVector; ++i)
      value[i] = to_float(f16{static_cast<uint16_t>(raw.chunk[0].word[i / 2] >> 16 * (i % 2))});
  }
}

F2D_FN void store_vector(const View& s, int64_t offset, const float value[kVector]) {
  char* p = s.data + offset * size_of(s.dtype);
  Raw raw;
  if (s.dtype == DType::f32) {
    F2D_UNROLL
    for (int i = 0; i < kVector; ++i) raw.chunk[i / 4].word[i % 4] = bit_cast<uint32_t>(value[i]);
    store_chunk(p + 16, raw.chunk[1]);
  } else {
    F2D_UNROLL
    for (int i = 0; i < kVector / 2; ++i) {
      const float a = value[2 * i], b = value[2 * i + 1];
      const uint32_t low = s.dtype == DType::bf16 ? to_bf16(a).bits : to_f16(a).bits;
      const uint32_t high = s.dtype == DType::bf16 ? to_bf16(b).bits : to_f16(b).bits;
      raw.chunk[0].word[i] = low | high << 16;
    }
  }
  store_chunk(p, raw.chunk[0]);
}

template <class A>
F2D_FN A load_one(const View& s, int64_t offset) {
  switch (s.dtype) {
    case DType::f32: return load_as<A>(reinterpret_cast<const float*>(s.data) + offset);
    case DType::f64: return load_as<A>(reinterpret_cast<const double*>(s.data) + offset);
    case DType::f16: return load_as<A>(reinterpret_cast<const f16*>(s.data) + offset);
    default: return load_as<A>(reinterpret_cast<const bf16*>(s.data) + offset);
  }
}

template <class A>
F2D_FN void store_one(const View& s, int64_t offset, A value) {
  switch (s.dtype) {
    case DType::f32: return store_as<A>(reinterpret_cast<float*>(s.data) + offset, value);
    case DType::f64: return store_as<A>(reinterpret_cast<double*>(s.data) + offset, value);
    case DType::f16: return store_as<A>(reinterpret_cast<f16*>(s.data) + offset, value);
    default: return store_as<A>(reinterpret_cast<bf16*>(s.data) + offset, value);
  }
}

}  // namespace f2d
