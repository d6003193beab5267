// Arguments of the CPU kernels of the Gaussian transition.
#pragma once

#include "../gaussian_transition.h"
#include "args.h"

namespace f2d {

struct GaussianArgs {
  Walk walk;
  bool is_double;
  int count;  // number of terms
  Stream terms[kMaxTerms];
  Table coefficients;
  NoiseSource noise;
  Table std;                  // data null: no noise
  Stream image;               // forward: out; backward: grad
  Stream d_terms[kMaxTerms];  // backward; data null if not needed
  Stream d_noise;
  double *coefficient_parts, *std_parts;  // [tile][plane][b][j] and [tile][plane][b] sums over one tile, or null
};

F2D_DECLARE_KERNEL(gaussian_transition, GaussianArgs)
F2D_DECLARE_KERNEL(gaussian_transition_backward, GaussianArgs)

}  // namespace f2d
