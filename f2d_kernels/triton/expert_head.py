"""base + Σ_k gates · maps · (W_k (s_k ⊙ F_k) + b_k) in Triton: forward kernel and its launcher.

A program owns a block of pixels and up to 32 channels of the result, and walks the experts' features one by one.
Stacked features are passed as K views: a tuple of K pointers, each with its own strides. A launch takes at most 8
experts.
"""

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from f2d_kernels.arguments import ExpertHead
from f2d_kernels.triton._blocks import addresses, block_of, pixels_of, plane_of, read
from f2d_kernels.triton._groups import experts_of, groups_of, select, targets_of
from f2d_kernels.triton._head import bias_of, folded_weights, parameters_of, weights_of
from f2d_kernels.triton._launch import compute_type, flat_pixels, index_type, launch, rounded, strides
from f2d_kernels.triton.expert_head_backward import backward

__all__ = ["backward", "forward"]


@triton.jit
def _forward_kernel(
    out, features, weight, bias, gates, maps, base,
    channels, pixels, width, feature_count,
    out_stride, feature_strides, weight_stride, bias_stride, gate_stride, map_stride, base_stride,
    K: tl.constexpr, FLAT: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr, UNROLL: tl.constexpr,
    INDEX: tl.constexpr, COMPUTE: tl.constexpr,
):  # fmt: skip
    b, c, p, inside = block_of(channels, pixels, BLOCK_C, BLOCK_P, INDEX)
    on, on_image = c < channels, p < pixels
    if base is None:
        total = tl.zeros([BLOCK_C, BLOCK_P], COMPUTE)
    else:
        total = read(base, base_stride, b, c, p, width, inside, FLAT, COMPUTE)
    for k in tl.static_range(K):
        a = tl.full([BLOCK_P], 1.0, COMPUTE) * tl.load(plane_of(gates, gate_stride, b, k)).to(COMPUTE)
        if maps is not None:
            a = a * pixels_of(maps, map_stride, b, k, p, width, on_image, FLAT, COMPUTE)
        if bias is not None:
            w, x = tl.broadcast(bias_of(bias, bias_stride, k, c, on, COMPUTE), a[None, :])
            total = tl.fma(w, x, total)
        for f in tl.range(0, feature_count, loop_unroll_factor=UNROLL):
            x = pixels_of(features[k], feature_strides[k], b, f, p, width, on_image, FLAT, COMPUTE)
            w = weights_of(weight, weight_stride, b, k, c, f, on)
            w, x = tl.broadcast(w, (a * x)[None, :])  # weighted here: one sum for all experts
            total = tl.fma(w, x, total)
    tl.store(addresses(out, out_stride, b, c, p, width, FLAT), rounded(total, out), mask=inside)


def forward_blocks(out: Tensor, features: Tensor) -> dict[str, Any]:
    """Return channels and pixels per forward program, its warps, and the features that are loaded at the same time.

    NCHW: one warp with 16 bytes of every feature per thread, or 2 pixels if more would spill. With more warps, the
    weights would change layout through shared memory at every feature. channels_last: a thread walks its pixel's
    features, and 128 pixels of 128 float32 features fit the L1 cache, so that a line is fetched once; with many
    channels, four features at a time would spill 16 bytes on sm_100.
    """
    block_c = min(triton.next_power_of_2(out.shape[1]), 32)
    if out.stride(1) == 1 and out.shape[1] > 1:
        return {"BLOCK_C": block_c, "BLOCK_P": 128, "num_warps": 4, "UNROLL": 4 if block_c <= 8 else 2}
    pixels = 512 // features.element_size() if block_c <= 8 else 64
    return {"BLOCK_C": block_c, "BLOCK_P": pixels, "num_warps": 1, "UNROLL": 4}


def forward(out: Tensor, *arguments: Any) -> None:
    """Fill out [B,C,H,W]. More than 8 experts pass through an unrounded workspace in the compute type."""
    batch, channels, height, width = out.shape
    a = ExpertHead(*arguments)
    torch_type, compute = compute_type(*a.features, *a[1:])
    experts, base = experts_of(a.features, batch), a.base
    groups, folded = groups_of(len(experts)), folded_weights(a.weight, a.channel_scale, torch_type)
    for group, target in zip(groups, targets_of(out, len(groups), torch_type), strict=True):
        chosen, chart = experts[group], select(a.maps, group)
        small, small_strides = parameters_of(folded, a.bias, a.gates, batch, group)
        feature_strides = tuple(strides(feature) for feature in chosen)
        others = strides(target), strides(chart), strides(base)
        blocks = forward_blocks(target, chosen[0])
        tiles, chunks = triton.cdiv(height * width, blocks["BLOCK_P"]), triton.cdiv(channels, blocks["BLOCK_C"])
        launch(
            _forward_kernel, batch * tiles * chunks, out.device,
            target, chosen, *small, chart, base,
            channels, height * width, width, a.weight.shape[2],
            others[0], feature_strides, *small_strides, others[1], others[2],
            K=len(chosen), FLAT=flat_pixels(width, (*feature_strides, *others)),
            INDEX=index_type(height * width, channels), COMPUTE=compute, **blocks,
        )  # fmt: skip
        base = target
