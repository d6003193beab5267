// Strided tensors of any dtype as the CUDA kernels see them, and the ways to read and write four neighbours of one: one
// raw access of 16 bytes (8 at 16 bits) where they lie together, element by element where not. Compiles for the host too, where the tests
// run every kernel's body thread by thread.
//
// The dtype is a run-time value: it is the same for all threads, so its branch costs a few instructions per access, and
// one kernel serves every mix of dtypes. Loads stay raw until all of a group are under way.
#pragma once

#include "../portable.h"

namespace f2d {

// Elements per thread and stream. Eight, in two accesses of 16 bytes, touched every sector of 32 bytes of a float32
// tensor twice, since the lanes of each access lay 32 bytes apart (bench/results/ptx-counts.md).
constexpr int kVector = 4;

// Four raw elements, widths up to 4 bytes.
struct alignas(16) Raw {
  uint32_t word[4];
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

F2D_FN Raw load_raw(const View& s, int64_t offset) {
  const char* p = s.data + offset * size_of(s.dtype);
  Raw raw{};
#if defined(__CUDA_ARCH__)
  if (s.dtype == DType::f32) {
    const uint4 v = __ldg(reinterpret_cast<const uint4*>(p));
    raw = {{v.x, v.y, v.z, v.w}};
  } else {
    const uint2 v = __ldg(reinterpret_cast<const uint2*>(p));
    raw = {{v.x, v.y}};
  }
#else
  memcpy(&raw, p, static_cast<size_t>(kVector * size_of(s.dtype)));
#endif
  return raw;
}

// By __stwb, an ordinary store: of two assignments nvcc makes one store of 8 bytes and two of 4.
F2D_FN void store_raw(const View& s, int64_t offset, const Raw& raw) {
  char* p = s.data + offset * size_of(s.dtype);
#if defined(__CUDA_ARCH__)
  if (s.dtype == DType::f32) {
    __stwb(reinterpret_cast<uint4*>(p), make_uint4(raw.word[0], raw.word[1], raw.word[2], raw.word[3]));
  } else {
    __stwb(reinterpret_cast<uint2*>(p), make_uint2(raw.word[0], raw.word[1]));
  }
#else
  memcpy(p, &raw, static_cast<size_t>(kVector * size_of(s.dtype)));
#endif
}

F2D_FN void unpack(const Raw& raw, DType dtype, float value[kVector]) {
  F2D_UNROLL
  for (int i = 0; i < kVector; ++i) {
    const uint16_t half = static_cast<uint16_t>(raw.word[i / 2] >> 16 * (i % 2));
    value[i] = dtype == DType::f32    ? bit_cast<float>(raw.word[i])
               : dtype == DType::bf16 ? to_float(bf16{half})
                                      : to_float(f16{half});
  }
}

F2D_FN void store_vector(const View& s, int64_t offset, const float value[kVector]) {
  Raw raw{};
  if (s.dtype == DType::f32) {
    F2D_UNROLL
    for (int i = 0; i < kVector; ++i) raw.word[i] = bit_cast<uint32_t>(value[i]);
  } else {
    F2D_UNROLL
    for (int i = 0; i < kVector / 2; ++i) {
      const float a = value[2 * i], b = value[2 * i + 1];
      const uint32_t low = s.dtype == DType::bf16 ? to_bf16(a).bits : to_f16(a).bits;
      const uint32_t high = s.dtype == DType::bf16 ? to_bf16(b).bits : to_f16(b).bits;
      raw.word[i] = low | high << 16;
    }
  }
  store_raw(s, offset, raw);
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
