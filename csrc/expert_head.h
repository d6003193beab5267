// out[b,c,p] = base + sum_k a[k,p] * (sum_f W'[k,c,f] * features[b,k,f,p] + bias[k,c]), a = gates[b,k] * maps[b,k,p].
//
// The channel scale is folded into the weights of one sample, W'[k,c,f] = weight[k,c,f] * channel_scale[b,k,f]. With
// g = d loss / d out and q[f] = sum_c W'[c,f] * g[c], one pass over the features gives
//   d_feature = a * q,   s = sum_f feature * q + sum_c bias[c] * g[c],   d_map = gate * s
// and, per sample and expert, the moments M[c,f] = sum_p map * g[c] * feature[f] and N[c] = sum_p map * g[c]. The
// gradients of all parameters follow from them without another pass over the image:
//   d_weight = sum_b gate * scale * M,   d_bias = sum_b gate * N,   d_scale = gate * sum_c weight * M,
//   d_gate = sum_cf weight * scale * M + sum_c bias * N.
//
// A is float, double, or any type with an fma, such as the 16 lanes of the CPU kernels.
#pragma once

#include "portable.h"

namespace f2d {

template <class A>
F2D_FN A head_weight(A weight, A scale) {
  return weight * scale;
}

// The term of one feature in an expert's delta.
template <class A>
F2D_FN A head_project(A delta, A weight, A feature) {
  return fma(weight, feature, delta);
}

// The term of one expert in the result, weight = gate * map.
template <class A>
F2D_FN A head_add(A out, A weight, A delta) {
  return fma(weight, delta, out);
}

// The term of one channel in q.
template <class A>
F2D_FN A head_project_back(A q, A weight, A grad) {
  return fma(weight, grad, q);
}

// The term of one feature in s.
template <class A>
F2D_FN A head_correlate(A s, A feature, A q) {
  return fma(feature, q, s);
}

// The term of one pixel in M, masked = map * feature.
template <class A>
F2D_FN A head_moment(A moment, A grad, A masked) {
  return fma(grad, masked, moment);
}

}  // namespace f2d
