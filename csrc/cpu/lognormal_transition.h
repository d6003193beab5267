// Arguments of the CPU kernels of the log-normal transition.
#pragma once

#include "args.h"

namespace f2d {

struct LognormalArgs {
  Walk walk;
  bool is_double;
  Stream x, mu;
  NoiseSource noise;
  Table log_mean, log_std;
  Stream image;                            // forward: out; backward: grad
  Stream d_x, d_mu, d_noise;               // backward; data null if not needed
  double *log_mean_parts, *log_std_parts;  // [tile][plane][b] sums over one tile; both or neither
};

F2D_DECLARE_KERNEL(lognormal_transition, LognormalArgs)
F2D_DECLARE_KERNEL(lognormal_transition_backward, LognormalArgs)

}  // namespace f2d
