// out[b,c,y,x] = base + sum_k gates[b,k(,c)] * maps[b,k] * deltas[b,k,c], for one element, A = float or double.
//
// weight = gate * map, or weight = gate if there is no map. With g = d loss / d out:
//   d_delta = weight * g,   s = sum_c delta * g (with per-channel gates: sum_c gate * delta * g),
//   d_map = gate * s (with per-channel gates: s),   d_gate = sum_hw map * s.
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

// The term of one channel in s, gates per expert.
template <class A>
F2D_FN A assembly_correlate(A sum, A delta, A grad) {
  return fma(delta, grad, sum);
}

// The term of one channel in s, gates per channel; product = delta * grad.
template <class A>
F2D_FN A assembly_correlate_gated(A sum, A product, A gate) {
  return fma(product, gate, sum);
}

}  // namespace f2d
