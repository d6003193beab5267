// out[b,c,y,x] = base + sum_k gates[b,k(,c)] * maps[b,k] * deltas[b,k,c], one element at a time, A = float or double.
//
// A gate with its map is one weight; a missing map is no multiplication (weight = gate). With g = d loss / d out:
//   d_delta = weight * g,   s = sum_c delta * g (times its gate where gates are per channel),
//   d_map = gate * s (s where gates are per channel),   d_gate = sum_hw map * s.
#pragma once

#include "portable.h"

namespace f2d {

template <class A>
F2D_FN A assembly_weight(A gate, A map) {
  return gate * map;
}

template <class A>
F2D_FN A assembly_add(A sum, A weight, A delta) {
  return fma(weight, delta, sum);
}

template <class A>
F2D_FN A assembly_delta_gradient(A weight, A grad) {
  return weight * grad;
}

// One channel's share of s, gates per expert.
template <class A>
F2D_FN A assembly_correlate(A sum, A delta, A grad) {
  return fma(delta, grad, sum);
}

// One channel's share of s, gates per channel; product = delta * grad.
template <class A>
F2D_FN A assembly_correlate_gated(A sum, A product, A gate) {
  return fma(product, gate, sum);
}

}  // namespace f2d
