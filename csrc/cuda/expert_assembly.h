// The launching side of the expert assembly, shared by the ops that hold one.
#pragma once

#include "expert_assembly_body.h"
#include "launch.h"

namespace f2d {

inline void set_listed(View* views, const std::vector<Tensor>& list) {
  if (list.size() == 1 && list[0].dim() == 5) {
    views[0] = view_of(list[0], 0, 1, 2);
  } else {
    for (size_t k = 0; k < list.size(); ++k) views[k] = image_view(list[k]);
  }
}

// `image` gives the shape.
inline void set_experts(Experts& a, const char* op, const Tensor& image, const std::vector<Tensor>& deltas,
                        const Tensor& gates, const OptionalTensor& maps, const OptionalTensor& base) {
  const bool stacked = deltas.size() == 1 && deltas[0].dim() == 5;
  STD_TORCH_CHECK(stacked || deltas.size() <= kMaxListed, op, ": the cuda backend takes at most ", kMaxListed,
                  " deltas in a sequence, got ", deltas.size(), "; stack them to [B,K,C,H,W]");
  a.shape = {image.size(0), image.size(1), image.size(2), image.size(3)};
  a.experts = stacked ? deltas[0].size(1) : static_cast<int64_t>(deltas.size());
  a.listed = !stacked;
  const int64_t vectors = a.shape.batch * a.shape.pixels() / kVector;
  a.run = a.shape.channels <= 4 && vectors / kWarp >= kFewWarps ? a.shape.channels : 1;
  a.channel_gates = gates.dim() == 3;
  a.gates = table_view(gates);
  if (maps) a.maps = view_of(*maps, 0, 1, -1);
  a.base = image_view(base);
  set_listed(a.deltas, deltas);
}

inline bool all_fit(const View* views, const Experts& a, bool channels_inside) {
  for (int64_t k = 0; k < (a.listed ? a.experts : 1); ++k)
    if (!fits_vectors(views[k], a.shape, channels_inside)) return false;
  return true;
}

// expert_assembly.cu
void expert_assembly_backward_out(const Tensor& grad, const std::vector<Tensor>& deltas, const Tensor& gates,
                                  const OptionalTensor& maps, const std::vector<Tensor>& d_deltas,
                                  const OptionalTensor& d_gates, const OptionalTensor& d_maps);

}  // namespace f2d
