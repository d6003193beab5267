// silu(u) = u * sigmoid(u), u = (x - centre) * gain + offset, for one element, A = float or double.
//
// (x - mean) * rstd * weight + bias, then * (1 + scale) + shift, is an affine function of x per channel. It is centred
// at the mean rounded to A, not at x = 0: x - centre is nearly exact, while x * gain would cancel digits if the mean is
// many standard deviations. `offset` contains the rounding error of the mean.
// With g = d loss / d out and q = sigmoid(u): d_u = g q (1 + u (1 - q)), 1 - q as sigmoid(-u), without cancellation.
#pragma once

#include "exponential.h"

namespace f2d {

// Beyond this bound exp(-|u|) is set to 0, since sigmoid is 0 or 1 to the last bit there. At the bound exp(-|u|) is
// still a normal number.
F2D_FN float silu_limit(float) { return 87.0f; }
F2D_FN double silu_limit(double) { return 700.0; }

F2D_FN float minus_size(float u) { return bit_cast<float>(bit_cast<uint32_t>(u) | 0x80000000u); }
F2D_FN double minus_size(double u) { return bit_cast<double>(bit_cast<uint64_t>(u) | 0x8000000000000000u); }

// t = exp(-|u|) never overflows: sigmoid(u) = 1 / (1 + t) or t / (1 + t), depending on the sign. A NaN passes through.
template <class A>
F2D_FN A silu_decay(A u) {
  const A z = minus_size(u);
  const A t = exponential(z).exp;
  return z < -silu_limit(z) ? A(0) : t;
}

template <class A>
F2D_FN A silu(A u) {
  const A t = silu_decay(u);
  return (u < A(0) ? u * t : u) / (A(1) + t);
}

template <class A>
F2D_FN A silu_gradient(A grad, A u) {
  const A t = silu_decay(u), inverse = A(1) / (A(1) + t), other = t * inverse;
  const A q = u < A(0) ? other : inverse, rest = u < A(0) ? inverse : other;
  return grad * fma(u * q, rest, q);
}

template <class A>
F2D_FN A group_norm_line(A x, A centre, A gain, A offset) {
  return fma(x - centre, gain, offset);
}

// slope and level: the terms in the group that come from the gradients of its mean and variance.
template <class A>
F2D_FN A group_norm_input_gradient(A d_u, A x, A centre, A gain, A slope, A level) {
  return fma(d_u, gain, -fma(x - centre, slope, level));
}

}  // namespace f2d
