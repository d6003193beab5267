// out = mu + (x - mu) * exp(z), z = clamp(log_mean + log_std * eps, -20, 20), A = float or double.
//
// With d = x - mu, mu + d * exp(z) = x + d * expm1(z). The second form is used for small z: it loses no digits of x,
// and z = 0 returns x itself. With f = exp(z), g = d loss / d out:
//   d_x = g f,  d_mu = g (1 - f),  d_log_mean = sum g d f,  d_log_std = sum g d f eps,  d_noise = g d f log_std,
// the last three zero where z was clamped (but not at the bounds themselves, as in torch.clamp).
#pragma once

#include "exponential.h"

namespace f2d {

template <class A>
F2D_FN A lognormal_clamp(A raw) {  // comparisons instead of fmin let a NaN pass through
  return raw < A(-20) ? A(-20) : raw > A(20) ? A(20) : raw;
}

template <class A>
F2D_FN A lognormal_step(A x, A mu, A log_mean, A log_std, A eps) {
  const Exponential<A> e = exponential(lognormal_clamp(fma(log_std, eps, log_mean)));
  const A d = x - mu;
  const A near = fma(d, e.expm1, x), far = fma(d, e.exp, mu);
  return e.octave == A(0) ? near : far;
}

template <class A>
struct LognormalGradient {
  A x, mu;
  A log_mean;  // this element's terms of the two sums over the sample
  A log_std;
  A noise;
};

template <class A>
F2D_FN LognormalGradient<A> lognormal_gradient(A grad, A x, A mu, A log_mean, A log_std, A eps) {
  const A raw = fma(log_std, eps, log_mean);
  const Exponential<A> e = exponential(lognormal_clamp(raw));
  const bool clamped = (raw < A(-20)) | (raw > A(20));
  const A slope = clamped ? A(0) : grad * (x - mu) * e.exp;
  return {grad * e.exp, -(grad * e.expm1), slope, slope * eps, slope * log_std};
}

}  // namespace f2d
