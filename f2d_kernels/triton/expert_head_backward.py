"""expert_head's gradients in Triton: backward kernel and its launchers.

A program owns a block of pixels and up to 64 channels of the gradient, and walks the experts' features in blocks. More
channels take several launches, each of which adds to what the one before has made of the images' gradients.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from f2d_kernels.arguments import ExpertHead, ExpertHeadGradients
from f2d_kernels.triton._blocks import addresses, pixels_of, plane_of, read
from f2d_kernels.triton._groups import experts_of, groups_of, select, targets_of
from f2d_kernels.triton._head import bias_of, folded_weights, parameters_of
from f2d_kernels.triton._launch import (
    block_count,
    compute_type,
    flat_pixels,
    index_type,
    launch,
    pixel_offsets,
    rounded,
    strides,
)
from f2d_kernels.triton._reduce import empty_partials

# Channels of a launch. Partial sums take (1 + 1/F) / 2 times as many elements as the features.
CHUNK = 64


@triton.jit
def _projected(w, g):
    """Return w [F, C] · g [C, P]; of several features as a product of matrices, whose terms are added one by one."""
    if w.shape[0] == 1:
        return tl.sum(tl.trans(w) * g, axis=0)[None, :]
    else:
        return tl.dot(w, g, input_precision="ieee")


@triton.jit
def _correlated(x, g):
    """Return x [F, P] · gᵀ [P, C], likewise."""
    if x.shape[0] == 1:
        return tl.sum(x * g, axis=1)[None, :]
    else:
        return tl.dot(x, tl.trans(g), input_precision="ieee")


@triton.jit
def _backward_kernel(
    grad, features, weight, bias, gates, maps, d_features, d_maps, partials, before, map_before,
    channels, pixels, width, feature_count,
    grad_stride, feature_strides, weight_stride, bias_stride, gate_stride, map_stride,
    d_feature_strides, d_map_stride, partial_stride, before_strides, map_before_stride,
    K: tl.constexpr, FLAT: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_F: tl.constexpr,
    INDEX: tl.constexpr, COMPUTE: tl.constexpr,
):  # fmt: skip
    """d_feature = a q, with q_f = Σ_c W_cf g_c and a = gate · map. If other gradients are needed, also
    d_map = gate (Σ_f x q + Σ_c bias g) and the moments Σ_p map g x of every channel and feature, then Σ_p map g.
    `before` and `map_before` hold what earlier launches added to d_feature and d_map from other channels."""
    tiles = block_count(pixels, BLOCK_P, INDEX)
    b = (tl.program_id(0) // tiles).to(tl.int64)
    tile = (tl.program_id(0) % tiles).to(INDEX)
    p = tile * BLOCK_P + tl.arange(0, BLOCK_P)
    c = tl.arange(0, BLOCK_C)
    on, on_image = c < channels, p < pixels
    inside = on[:, None] & on_image[None, :]
    g = read(grad, grad_stride, b, c, p, width, inside, FLAT, COMPUTE)
    for k in tl.static_range(K):
        gate = tl.load(plane_of(gates, gate_stride, b, k)).to(COMPUTE)
        chart = tl.full([BLOCK_P], 1.0, COMPUTE)
        if maps is not None:
            chart = pixels_of(maps, map_stride, b, k, p, width, on_image, FLAT, COMPUTE)
        s = tl.zeros([BLOCK_P], COMPUTE)
        if partials is not None:
            moments = plane_of(partials, partial_stride, b, k) + tl.cast(tile, tl.int64) * partial_stride[4]
            moments += c.to(tl.int64) * partial_stride[2]
        for first in tl.range(0, feature_count, BLOCK_F, num_stages=1):
            f = first + tl.arange(0, BLOCK_F)
            on_feature = f < feature_count
            of_feature, of_channel = on_feature[:, None] & on_image[None, :], on_feature[:, None] & on[None, :]
            w = plane_of(weight, weight_stride, b, k) + f.to(tl.int64)[:, None] * weight_stride[2]
            w = tl.load(w + c.to(tl.int64)[None, :] * weight_stride[3], mask=of_channel, other=0.0)
            q = _projected(w, g)
            if d_features is not None:
                slope = (gate * chart)[None, :] * q
                if before is not None:
                    at = addresses(before[k], before_strides[k], b, f, p, width, FLAT)
                    slope += tl.load(at, mask=of_feature, other=0.0)
                at = addresses(d_features[k], d_feature_strides[k], b, f, p, width, FLAT)
                tl.store(at, rounded(slope, d_features[k]), mask=of_feature)
            if d_maps is not None or partials is not None:
                x = read(features[k], feature_strides[k], b, f, p, width, of_feature, FLAT, COMPUTE)
                s += tl.sum(x * q, axis=0)
                if partials is not None:
                    moment_at = moments[None, :] + f.to(tl.int64)[:, None] * partial_stride[3]
                    tl.store(moment_at, _correlated(chart[None, :] * x, g), mask=of_channel)
        if partials is not None:
            sum_at = moments + tl.cast(feature_count, tl.int64) * partial_stride[3]
            tl.store(sum_at, tl.sum(g * chart[None, :], axis=1), mask=on)
        if d_maps is not None:
            if bias is not None:
                s += tl.sum(bias_of(bias, bias_stride, k, c, on, COMPUTE) * g, axis=0)
            s = gate * s
            if map_before is not None:
                s += pixels_of(map_before, map_before_stride, b, k, p, width, on_image, FLAT, COMPUTE)
            place = plane_of(d_maps, d_map_stride, b, k) + pixel_offsets(p, width, d_map_stride, FLAT)
            tl.store(place, rounded(s, d_maps), mask=on_image)


def backward_blocks(channels: int, compute: tl.dtype) -> dict[str, Any]:
    """Return channels, pixels and features per block of a backward program, and its warps.

    From 16 channels on, features are multiplied in blocks, as products of matrices on the vector units: a warp then
    loads its own features, where one by one every warp would load all of them (8 times the least traffic, and 3 to 4
    times the instructions, for 24 channels). A thread holds one moment of a block; with more it spills in bfloat16.
    float64 would go to tensor cores, whose order of additions is theirs. The pixels are those of one partial sum, and
    the warps set the order of its additions. All of this depends on C and the type alone and is not tuned, so that
    every sum has one order."""
    block_c = triton.next_power_of_2(channels)
    matrices = block_c >= 16 and compute != tl.float64
    return {
        "BLOCK_C": block_c,
        "BLOCK_P": 256 if block_c <= 8 else 128,
        "BLOCK_F": min(16, 512 // block_c) if matrices else 1,
        "num_warps": 16 if matrices or block_c > 16 else max(1, block_c // 4),
    }


def backward(grad: Tensor, *arguments: Any) -> None:
    """Fill the gradients that are not None: those of images in the kernel, those of parameters from its moments."""
    batch, channels, height, width = grad.shape
    a, d = ExpertHead(*arguments[:6]), ExpertHeadGradients(*arguments[6:])
    count, pixels = a.weight.shape[2], height * width
    torch_type, compute = compute_type(grad, *a.features, *a[1:])
    experts, folded = experts_of(a.features, batch), folded_weights(a.weight, a.channel_scale, torch_type)
    blocks = backward_blocks(min(channels, CHUNK), compute)
    tiles = triton.cdiv(pixels, blocks["BLOCK_P"])
    moments = None
    if any(t is not None for t in d[1:5]):
        moments = empty_partials((batch, len(experts), channels, count + 1), torch_type, grad)
    chunks = [slice(first, min(first + CHUNK, channels)) for first in range(0, channels, CHUNK)]
    d_targets = [targets_of(t, len(chunks), torch_type) for t in d.features]
    map_targets = None if d.maps is None else targets_of(d.maps, len(chunks), torch_type)
    before: tuple[Tensor, ...] | None = None
    map_before: Tensor | None = None
    for i, chunk in enumerate(chunks):
        partials = None
        if moments is not None:  # in memory with the channels innermost, since a program writes all of them together
            size = chunk.stop - chunk.start
            shape = (batch, len(experts), tiles, count + 1, size)
            partials = empty_partials(shape, torch_type, grad).permute(0, 1, 4, 3, 2)
        d_experts = experts_of([t[i] for t in d_targets], batch) if d_targets else None
        d_chart = None if map_targets is None else map_targets[i]
        chunk_grad, chunk_weight = grad[:, chunk], folded[..., chunk]
        chunk_bias = None if a.bias is None else a.bias[:, chunk]
        for group in groups_of(len(experts)):
            features = experts[group]
            results, earlier = (None if t is None else t[group] for t in (d_experts, before))
            chart, d_group, partial, chart_before = (select(t, group) for t in (a.maps, d_chart, partials, map_before))
            small, small_strides = parameters_of(chunk_weight, chunk_bias, a.gates, batch, group)
            feature_strides, result_strides, before_strides = (
                tuple(strides(t) for t in tensors or ()) for tensors in (features, results, earlier)
            )
            others = tuple(strides(t) for t in (chunk_grad, chart, d_group, chart_before))
            launch(
                _backward_kernel, batch * tiles, grad.device,
                chunk_grad, features, *small, chart, results, d_group, partial, earlier, chart_before,
                chunk_grad.shape[1], pixels, width, count,
                others[0], feature_strides, *small_strides, others[1],
                result_strides, others[2], (0,) * 5 if partial is None else partial.stride(),
                before_strides, others[3],
                tuned=False, K=len(features), INDEX=index_type(pixels), COMPUTE=compute, **blocks,
                FLAT=flat_pixels(width, (*others, *feature_strides, *result_strides, *before_strides)),
            )  # fmt: skip
        if moments is not None and partials is not None:
            torch.sum(partials, -1, out=moments[:, :, chunk])
        before, map_before = d_experts, d_chart
    if moments is not None:
        _parameter_gradients(moments, a, d)


def _parameter_gradients(moments: Tensor, a: ExpertHead, d: ExpertHeadGradients) -> None:
    """Fill the parameters' gradients from moments [B,K,C,F+1]: M = Σ_hw map·g·F and, after it, N = Σ_hw map·g.

    d_W = Σ_b gate·scale·M;  d_b = Σ_b gate·N;  d_scale = gate Σ_c W M;  d_gate = Σ_cf W·scale·M + Σ_c b N.
    """
    product, plain = moments[..., :-1], moments[..., -1]
    scale = torch.ones_like(product[:, :, 0]) if a.channel_scale is None else a.channel_scale.to(moments.dtype)
    gates, weight = a.gates.to(moments.dtype), a.weight.to(moments.dtype)
    if d.weight is not None:
        d.weight.copy_((gates[..., None, None] * scale[:, :, None] * product).sum(0))
    if d.bias is not None:
        d.bias.copy_((gates[..., None] * plain).sum(0))
    if d.channel_scale is None and d.gates is None:
        return
    correlation = (weight * product).sum(2)
    if d.channel_scale is not None:
        d.channel_scale.copy_(gates[..., None] * correlation)
    if d.gates is not None:
        total = (scale * correlation).sum(2)
        d.gates.copy_(total if a.bias is None else total + (a.bias.to(moments.dtype) * plain).sum(2))
