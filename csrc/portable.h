// Basics for the host and the device: inlining, an exactly rounded fma, bit casts, storage types.
//
// Everything has internal linkage (static). The CPU kernels compile these headers once per instruction set; with one
// shared copy, the linker could give AVX-512 code to a machine without it.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#define F2D_FN static __host__ __device__ __forceinline__
#elif defined(__GNUC__)
#define F2D_FN static inline __attribute__((always_inline))
#else
#define F2D_FN static inline
#endif

// Member functions cannot have internal linkage; always inlining them avoids a shared copy too.
#if defined(__CUDACC__)
#define F2D_MEMBER __host__ __device__ __forceinline__
#define F2D_UNROLL _Pragma("unroll")
#define F2D_ROLLED _Pragma("unroll 1")
#elif defined(__GNUC__)
#define F2D_MEMBER inline __attribute__((always_inline))
#define F2D_INLINED __attribute__((always_inline))  // for a lambda, after its parameters
#define F2D_UNROLL
#define F2D_ROLLED
#else
#define F2D_MEMBER inline
#define F2D_INLINED
#define F2D_UNROLL
#define F2D_ROLLED
#endif

namespace f2d {

enum class DType : int32_t { f32 = 0, f64 = 1, f16 = 2, bf16 = 3 };

F2D_FN int64_t size_of(DType dtype) { return dtype == DType::f64 ? 8 : dtype == DType::f32 ? 4 : 2; }

// PyTorch's type promotion.
F2D_FN DType promoted(DType a, DType b) {
  if (a == DType::f64 || b == DType::f64) return DType::f64;
  return a == b ? a : DType::f32;
}

template <class To, class From>
F2D_FN To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From), "bit_cast keeps the size");
  To to;
  memcpy(&to, &from, sizeof(to));
  return to;
}

F2D_FN double fma(double a, double b, double c) { return ::fma(a, b, c); }

// a * b + c rounded once. Without the instruction, round the exact double product plus c to odd (53 bits, two more than
// 2 * 24 + 2 needs), then to float. Unlike libm's fmaf, which is one call per element, this vectorises.
F2D_FN float fma(float a, float b, float c) {
#if defined(__CUDA_ARCH__) || defined(__FP_FAST_FMAF) || defined(__FMA__)
  return ::fmaf(a, b, c);
#else
  const double product = static_cast<double>(a) * b;
  const double sum = product + c;
  const double part = sum - product;
  const double lost = (product - (sum - part)) + (c - part);
  // Truncate (one step back if the lost part points towards zero), then set the last bit if anything was lost.
  const int64_t inexact = (lost > 0.0 ? 1 : 0) | (lost < 0.0 ? 1 : 0);
  const int64_t opposite = static_cast<int64_t>(bit_cast<uint64_t>(lost) >> 63 ^ bit_cast<uint64_t>(sum) >> 63);
  return static_cast<float>(bit_cast<double>((bit_cast<int64_t>(sum) - (inexact & opposite)) | inexact));
#endif
}

// The 16-bit storage types hold raw bits; all arithmetic is in float or double.
struct bf16 {
  uint16_t bits;
};
struct f16 {
  uint16_t bits;
};

F2D_FN float to_float(bf16 value) { return bit_cast<float>(static_cast<uint32_t>(value.bits) << 16); }

// Also correct for subnormals: shift exponent and mantissa into place, then rescale by 2^112.
F2D_FN float to_float(f16 value) {
#if defined(__CUDA_ARCH__)
  return __half2float(__ushort_as_half(value.bits));
#else
  const uint32_t magnitude = (value.bits & 0x7fffu) << 13;
  const uint32_t scaled = bit_cast<uint32_t>(bit_cast<float>(magnitude) * 0x1p112f);
  const uint32_t bits = magnitude >= 0x0f800000u ? magnitude | 0x7f800000u : scaled;
  return bit_cast<float>(bits | (value.bits & 0x8000u) << 16);
#endif
}

F2D_FN bf16 to_bf16(float value) {
#if defined(__CUDA_ARCH__)
  return {__bfloat16_as_ushort(__float2bfloat16_rn(value))};
#else
  const uint32_t bits = bit_cast<uint32_t>(value);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1)) >> 16;
  const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
  return {static_cast<uint16_t>(nan ? 0x7fc0u : rounded)};
#endif
}

// Below 2^-14 an addition aligns the mantissa and rounds it. Above, rounding is an integer carry, which also overflows
// to infinity correctly.
F2D_FN f16 to_f16(float value) {
#if defined(__CUDA_ARCH__)
  return {__half_as_ushort(__float2half_rn(value))};
#else
  const uint32_t bits = bit_cast<uint32_t>(value), magnitude = bits & 0x7fffffffu;
  const uint32_t small = bit_cast<uint32_t>(bit_cast<float>(magnitude) + 0.5f) - 0x3f000000u;
  const uint32_t normal = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1)) >> 13;
  const uint32_t huge = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;
  const uint32_t result = magnitude >= 0x47800000u ? huge : magnitude < 0x38800000u ? small : normal;
  return {static_cast<uint16_t>(result | (bits >> 16 & 0x8000u))};
#endif
}

template <class A> F2D_FN A load_as(const float* p) { return static_cast<A>(*p); }
template <class A> F2D_FN A load_as(const double* p) { return static_cast<A>(*p); }
template <class A> F2D_FN A load_as(const bf16* p) { return static_cast<A>(to_float(*p)); }
template <class A> F2D_FN A load_as(const f16* p) { return static_cast<A>(to_float(*p)); }

template <class A> F2D_FN void store_as(float* p, A value) { *p = static_cast<float>(value); }
template <class A> F2D_FN void store_as(double* p, A value) { *p = static_cast<double>(value); }
template <class A> F2D_FN void store_as(bf16* p, A value) { *p = to_bf16(static_cast<float>(value)); }
template <class A> F2D_FN void store_as(f16* p, A value) { *p = to_f16(static_cast<float>(value)); }

}  // namespace f2d
