// The launching side of the expert assembly, shared by the ops that hold one.
#pragma once

#include "expert_assembly_body.h"
#include "launch.h"

namespace f2d {

inline void set_listed(View* views, const std::vector<Tensor>& list) {
  if (is_stacked(list)) {
    views[0] = view_of(list[0], 0, 1, 2);
  } else {
    for (size_t k = 0; k < list.size(); ++k) views[k] = image_view(list[k]);
  }
}

// `image` gives the shape.
inline void set_experts(Experts& a, const char* op, const Tensor& image, const std::vector<Tensor>& deltas,
                        const Tensor& gates, const OptionalTensor& maps, const OptionalTensor& base) {
  const bool stacked = is_stacked(deltas);
  STD_TORCH_CHECK(stacked || deltas.size() <= kMaxListed, op, ": the cuda backend takes at most ", kMaxListed,
                  " deltas in a sequence, got ", deltas.size(), "; stack them to [B,K,C,H,W]");
  a.shape = {image.size(0), image.size(1), image.size(2), image.size(3)};
  a.experts = stacked ? deltas[0].size(1) : static_cast<int64_t>(deltas.size());
  a.listed = !stacked;
  a.run = a.tiles = 1;
  a.channel_gates = gates.dim() == 3;
  a.gates = table_view(gates);
  if (maps) a.maps = view_of(*maps, 0, 1, -1);
  a.base = image_view(base);
  set_listed(a.deltas, deltas);
}

inline void add_views(std::vector<const View*>& to, const View* views, const Experts& a) {
  for (int64_t k = 0; k < (a.listed ? a.experts : 1); ++k) to.push_back(views + k);
}

// Tiles of Pixels, and for a forward pass all channels of a tile in one warp where there are few and warps are many.
template <class Pixels>
void set_tiles(Experts& a) {
  a.tiles = tiles_of<Pixels>(a.shape);
  a.run = Pixels::kChannels > 1 || (a.shape.channels <= 4 && a.shape.batch * a.tiles >= kFewWarps) ? a.shape.channels : 1;
}

// Warps of a pass over runs of channels and tiles.
inline int64_t units_of(const Experts& a) { return (a.shape.channels + a.run - 1) / a.run * a.tiles; }

// expert_assembly.cu
void expert_assembly_backward_out(const Tensor& grad, const std::vector<Tensor>& deltas, const Tensor& gates,
                                  const OptionalTensor& maps, const std::vector<Tensor>& d_deltas,
                                  const OptionalTensor& d_gates, const OptionalTensor& d_maps);

}  // namespace f2d
