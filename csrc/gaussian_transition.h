// out = sum_j c_j t_j + std * eps for one element, A = float or double.
//
// The first product is rounded alone; every further term is one fma, the noise last. Therefore std = 0 adds exactly
// nothing, and a single term with c = 1 is returned unchanged. With g = d loss / d out:
//   d_t_j = c_j g,  d_c_j = sum g t_j,  d_std = sum g eps,  d_noise = std g.
#pragma once

#include "portable.h"

namespace f2d {

constexpr int kMaxTerms = 4;

// sum_j c_j t_j of element i; kTerms is a compile-time constant so that the loop over elements vectorises.
template <int kTerms, class A, class T>
F2D_FN A gaussian_mean(const T* const* terms, const A* coefficients, int64_t i) {
  A sum = coefficients[0] * load_as<A>(terms[0] + i);
  F2D_UNROLL
  for (int j = 1; j < kTerms; ++j) sum = fma(coefficients[j], load_as<A>(terms[j] + i), sum);
  return sum;
}

template <class A>
F2D_FN A gaussian_step(A mean, A std, A eps) {
  return fma(std, eps, mean);
}

}  // namespace f2d
