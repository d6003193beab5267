// Strided tensors as the CUDA kernels see them, and the ways to read and write neighbours of one: one raw access of up to
// 16 bytes where they lie together, element by element where not. Compiles for the host too, where the tests run every
// kernel's body thread by thread.
#pragma once

#include "../portable.h"

namespace f2d {

// Raw neighbours, as many as lie in 16 bytes or fewer.
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

// Access to tensors of any mix of 16- and 32-bit dtypes and of any size: four elements at a time, of a dtype that is known
// at run time, in 64-bit arithmetic. Eight, in two accesses of 16 bytes, would touch every sector of 32 bytes of a float32
// tensor twice, since the lanes of each access lay 32 bytes apart.
struct AnyType {
  using Index = int64_t;
  static constexpr int kVector = 4, kWords = 4;

  F2D_MEMBER static DType known(DType dtype) { return dtype; }
};

// Access to tensors that all have one dtype and fewer than 2^31 elements, in 32-bit arithmetic. The branches for other dtypes
// and 64-bit offsets made up most of a kernel's instructions (bench/results/ptx-counts.md).
template <DType kType, int kCount>
struct OneType {
  using Index = int32_t;
  static constexpr int kVector = kCount, kWords = kType == DType::f32 ? kCount : kCount / 2;

  F2D_MEMBER static constexpr DType known(DType) { return kType; }
};

using Floats = OneType<DType::f32, 4>;
using BFloats = OneType<DType::bf16, 8>;
using HalfBFloats = OneType<DType::bf16, 4>;  // of kernels that would have no registers for eight

// Offsets need 64 bits, but rarely use them: dividing 32 bits costs a quarter.
F2D_FN int64_t quotient(int64_t a, int64_t b) {
  if (((a | b) >> 32) == 0) return static_cast<uint32_t>(a) / static_cast<uint32_t>(b);
  return a / b;
}

F2D_FN int32_t quotient(int32_t a, int32_t b) {
  return static_cast<int32_t>(static_cast<uint32_t>(a) / static_cast<uint32_t>(b));
}

template <class Index>
F2D_FN Index place(const View& v, Index b, Index k, Index c) {
  return b * static_cast<Index>(v.b) + k * static_cast<Index>(v.k) + c * static_cast<Index>(v.c);
}

template <class Access>
F2D_FN Raw load_raw(const View& s, typename Access::Index offset) {
  const DType dtype = Access::known(s.dtype);
  const char* p = s.data + offset * size_of(dtype);
  Raw raw{};
#if defined(__CUDA_ARCH__)
  if (Access::kVector * size_of(dtype) == 16) {
    const uint4 v = __ldg(reinterpret_cast<const uint4*>(p));
    raw = {{v.x, v.y, v.z, v.w}};
  } else {
    const uint2 v = __ldg(reinterpret_cast<const uint2*>(p));
    raw = {{v.x, v.y}};
  }
#else
  memcpy(&raw, p, static_cast<size_t>(Access::kVector * size_of(dtype)));
#endif
  return raw;
}

// Uses __stwb, an ordinary store: nvcc compiles two assignments to one store of 8 bytes and two of 4.
template <class Access>
F2D_FN void store_raw(const View& s, typename Access::Index offset, const Raw& raw) {
  const DType dtype = Access::known(s.dtype);
  char* p = s.data + offset * size_of(dtype);
#if defined(__CUDA_ARCH__)
  if (Access::kVector * size_of(dtype) == 16) {
    __stwb(reinterpret_cast<uint4*>(p), make_uint4(raw.word[0], raw.word[1], raw.word[2], raw.word[3]));
  } else {
    __stwb(reinterpret_cast<uint2*>(p), make_uint2(raw.word[0], raw.word[1]));
  }
#else
  memcpy(p, &raw, static_cast<size_t>(Access::kVector * size_of(dtype)));
#endif
}

template <class Access>
F2D_FN void unpack(const Raw& raw, DType stored, float value[Access::kVector]) {
  const DType dtype = Access::known(stored);
  F2D_UNROLL
  for (int i = 0; i < Access::kVector; ++i) {
    const uint32_t pair = raw.word[i / 2];
    if (dtype == DType::f32) {
      value[i] = bit_cast<float>(raw.word[i % 4]);
    } else if (dtype == DType::bf16) {
      value[i] = bit_cast<float>(i % 2 ? pair & 0xffff0000u : pair << 16);
    } else {
      value[i] = to_float(f16{static_cast<uint16_t>(pair >> 16 * (i % 2))});
    }
  }
}

// Two 16-bit numbers in one word, the first in its low half.
F2D_FN uint32_t packed(DType dtype, float low, float high) {
#if defined(__CUDA_ARCH__)
  if (dtype == DType::bf16) return bit_cast<uint32_t>(__floats2bfloat162_rn(low, high));
  return bit_cast<uint32_t>(__floats2half2_rn(low, high));
#else
  const bool is_bf16 = dtype == DType::bf16;
  const uint32_t a = is_bf16 ? to_bf16(low).bits : to_f16(low).bits, b = is_bf16 ? to_bf16(high).bits : to_f16(high).bits;
  return a | b << 16;
#endif
}

template <class Access>
F2D_FN Raw pack(DType stored, const float value[Access::kVector]) {
  const DType dtype = Access::known(stored);
  Raw raw{};
  if (dtype == DType::f32) {
    F2D_UNROLL
    for (int i = 0; i < 4; ++i) raw.word[i] = bit_cast<uint32_t>(value[i]);
  } else {
    F2D_UNROLL
    for (int i = 0; i < Access::kVector / 2; ++i) raw.word[i] = packed(dtype, value[2 * i], value[2 * i + 1]);
  }
  return raw;
}

template <class Access>
F2D_FN void store_vector(const View& s, typename Access::Index offset, const float value[Access::kVector]) {
  store_raw<Access>(s, offset, pack<Access>(s.dtype, value));
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
