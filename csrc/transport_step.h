// total = anchor + base + sum_k gates * maps * deltas,  mu = clamp(total, low, high),  x_next = transition of x to mu,
// for one element, A = float or double. `total` is rounded to the dtype of mu, as the two separate ops would store it.
//
// With g, h = d loss / d x_next, d mu and f = exp(z):
//   v = h + g (1 - f) if low <= total <= high, else 0: the gradient of anchor, base and the experts' sum,
//   d_x = g f (+ v if x is the anchor); the gradients of the exponent are those of the log-normal transition.
#pragma once

#include "lognormal_transition.h"

namespace f2d {

// `value` after a round trip through memory of `dtype`.
template <class A>
F2D_FN A as_stored(A value, DType dtype) {
  if (dtype == DType::f64) return value;
  const float single = static_cast<float>(value);
  if (dtype == DType::f32) return single;
  return dtype == DType::bf16 ? to_float(to_bf16(single)) : to_float(to_f16(single));
}

template <class A>
F2D_FN A transport_clamp(A total, A low, A high) {  // comparisons instead of fmin let a NaN pass through
  return total < low ? low : total > high ? high : total;
}

// d.mu becomes v.
template <class A>
F2D_FN LognormalGradient<A> transport_gradient(A grad_x, A grad_mu, A x, A total, A low, A high, A log_mean, A log_std,
                                               A eps) {
  LognormalGradient<A> d = lognormal_gradient(grad_x, x, transport_clamp(total, low, high), log_mean, log_std, eps);
  d.mu = (total >= low) & (total <= high) ? grad_mu + d.mu : A(0);
  return d;
}

}  // namespace f2d
