"""base + Σ_k gates · maps · (W_k (s_k ⊙ F_k) + b_k) and its gradients in Triton: forward, backward, launchers.

A program owns a block of pixels and up to 32 channels of the result, and walks the experts' features one by one.
Stacked features are passed as K views: a tuple of K pointers, each with its own strides. A launch takes at most 8
experts.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from f2d_kernels.triton._groups import groups_of, select, targets_of
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

UNROLL = 4  # features that are loaded at the same time


@triton.jit
def _plane(pointer, stride, b, k):
    """Return the address of channel or expert k of sample b, in 64 bits, as k image sizes can exceed 2^31."""
    return pointer + b * stride[0] + tl.cast(k, tl.int64) * stride[1]


@triton.jit
def _pixels(pointer, stride, b, k, p, width, inside, FLAT: tl.constexpr, COMPUTE: tl.constexpr):
    """Load plane k of sample b [BLOCK_P] at pixels p."""
    place = _plane(pointer, stride, b, k) + pixel_offsets(p, width, stride, FLAT)
    return tl.load(place, mask=inside, other=0.0).to(COMPUTE)


@triton.jit
def _image(pointer, stride, b, c, p, width, FLAT: tl.constexpr):
    """Return the addresses [BLOCK_C, BLOCK_P] of channels c and pixels p of image b."""
    channel = pointer + b * stride[0] + c.to(tl.int64) * stride[1]
    return channel[:, None] + pixel_offsets(p, width, stride, FLAT)[None, :]


@triton.jit
def _weights(weight, scale, weight_stride, scale_stride, b, k: tl.constexpr, c, f, on, COMPUTE: tl.constexpr):
    """weight[k,c,f] · scale[b,k,f] [BLOCK_C, 1] of channels c."""
    expert, feature = tl.cast(k, tl.int64), tl.cast(f, tl.int64)
    place = weight + expert * weight_stride[0] + c.to(tl.int64) * weight_stride[1] + feature * weight_stride[2]
    weights = tl.load(place, mask=on, other=0.0).to(COMPUTE)
    if scale is not None:
        scale_at = scale + b * scale_stride[0] + expert * scale_stride[1] + feature * scale_stride[2]
        weights = weights * tl.load(scale_at).to(COMPUTE)
    return weights[:, None]


@triton.jit
def _bias(bias, stride, k: tl.constexpr, c, on, COMPUTE: tl.constexpr):
    """Load bias[k,c] [BLOCK_C, 1] of channels c."""
    place = bias + tl.cast(k, tl.int64) * stride[0] + c.to(tl.int64) * stride[1]
    return tl.load(place, mask=on, other=0.0).to(COMPUTE)[:, None]


@triton.jit
def _forward_kernel(
    out, features, weight, bias, scale, gates, maps, base,
    channels, pixels, width, feature_count,
    out_stride, feature_strides, weight_stride, bias_stride, scale_stride, gate_stride, map_stride, base_stride,
    K: tl.constexpr, FLAT: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr, UNROLL: tl.constexpr,
    INDEX: tl.constexpr, COMPUTE: tl.constexpr,
):  # fmt: skip
    tiles, chunks = block_count(pixels, BLOCK_P, INDEX), block_count(channels, BLOCK_C, INDEX)
    program = tl.program_id(0)
    b = (program // (tiles * chunks)).to(tl.int64)
    c = (program // tiles) % chunks * BLOCK_C + tl.arange(0, BLOCK_C)
    p = (program % tiles).to(INDEX) * BLOCK_P + tl.arange(0, BLOCK_P)
    on, on_image = c < channels, p < pixels
    inside = on[:, None] & on_image[None, :]

    if base is None:
        total = tl.zeros([BLOCK_C, BLOCK_P], COMPUTE)
    else:
        total = tl.load(_image(base, base_stride, b, c, p, width, FLAT), mask=inside, other=0.0).to(COMPUTE)
    for k in tl.static_range(K):
        a = tl.full([BLOCK_P], 1.0, COMPUTE) * tl.load(_plane(gates, gate_stride, b, k)).to(COMPUTE)
        if maps is not None:
            a = a * _pixels(maps, map_stride, b, k, p, width, on_image, FLAT, COMPUTE)
        if bias is not None:
            w, x = tl.broadcast(_bias(bias, bias_stride, k, c, on, COMPUTE), a[None, :])
            total = tl.fma(w, x, total)
        for f in tl.range(0, feature_count, loop_unroll_factor=UNROLL):
            x = _pixels(features[k], feature_strides[k], b, f, p, width, on_image, FLAT, COMPUTE)
            w = _weights(weight, scale, weight_stride, scale_stride, b, k, c, f, on, COMPUTE)
            w, x = tl.broadcast(w, (a * x)[None, :])  # weighted here: one sum for all experts
            total = tl.fma(w, x, total)
    tl.store(_image(out, out_stride, b, c, p, width, FLAT), rounded(total, out), mask=inside)


@triton.jit
def _backward_kernel(
    grad, features, weight, bias, scale, gates, maps, d_features, d_maps, partials,
    channels, pixels, width, feature_count,
    grad_stride, feature_strides, weight_stride, bias_stride, scale_stride, gate_stride, map_stride,
    d_feature_strides, d_map_stride, partial_stride,
    K: tl.constexpr, FLAT: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr, UNROLL: tl.constexpr,
    INDEX: tl.constexpr, COMPUTE: tl.constexpr,
):  # fmt: skip
    """d_feature = a q, with q_f = Σ_c W_cf g_c and a = gate · map. If other gradients are needed, also
    d_map = gate (Σ_f x q + Σ_c bias g) and the moments Σ_p map g x of every channel and feature, then Σ_p map g."""
    tiles = block_count(pixels, BLOCK_P, INDEX)
    b = (tl.program_id(0) // tiles).to(tl.int64)
    tile = (tl.program_id(0) % tiles).to(INDEX)
    p = tile * BLOCK_P + tl.arange(0, BLOCK_P)
    c = tl.arange(0, BLOCK_C)
    on, on_image = c < channels, p < pixels
    inside = on[:, None] & on_image[None, :]
    g = tl.load(_image(grad, grad_stride, b, c, p, width, FLAT), mask=inside, other=0.0).to(COMPUTE)
    for k in tl.static_range(K):
        gate = tl.load(_plane(gates, gate_stride, b, k)).to(COMPUTE)
        chart = tl.full([BLOCK_P], 1.0, COMPUTE)
        if maps is not None:
            chart = _pixels(maps, map_stride, b, k, p, width, on_image, FLAT, COMPUTE)
        s = tl.zeros([BLOCK_P], COMPUTE)
        if partials is not None:
            moments = _plane(partials, partial_stride, b, k) + tl.cast(tile, tl.int64) * partial_stride[4]
            moments += c.to(tl.int64) * partial_stride[2]
        for f in tl.range(0, feature_count, loop_unroll_factor=UNROLL):
            w = _weights(weight, scale, weight_stride, scale_stride, b, k, c, f, on, COMPUTE)
            q = tl.sum(w * g, axis=0)
            if d_features is not None:
                place = _plane(d_features[k], d_feature_strides[k], b, f)
                place += pixel_offsets(p, width, d_feature_strides[k], FLAT)
                tl.store(place, rounded(gate * chart * q, d_features[k]), mask=on_image)
            if d_maps is not None or partials is not None:
                x = _pixels(features[k], feature_strides[k], b, f, p, width, on_image, FLAT, COMPUTE)
                s = tl.fma(x, q, s)
                if partials is not None:
                    moment_at = moments + tl.cast(f, tl.int64) * partial_stride[3]
                    tl.store(moment_at, tl.sum(g * (chart * x)[None, :], axis=1), mask=on)
        if partials is not None:
            sum_at = moments + tl.cast(feature_count, tl.int64) * partial_stride[3]
            tl.store(sum_at, tl.sum(g * chart[None, :], axis=1), mask=on)
        if d_maps is not None:
            if bias is not None:
                s += tl.sum(_bias(bias, bias_stride, k, c, on, COMPUTE) * g, axis=0)
            place = _plane(d_maps, d_map_stride, b, k) + pixel_offsets(p, width, d_map_stride, FLAT)
            tl.store(place, rounded(gate * s, d_maps), mask=on_image)


def forward_blocks(out: Tensor, features: Tensor) -> dict[str, Any]:
    """Return channels and pixels per forward program and its warps.

    NCHW: one warp with 16 bytes of every feature per thread, or 2 pixels if more would spill. With more warps, the
    weights would change layout through shared memory at every feature. channels_last: a thread walks its pixel's
    features, and 128 pixels of 128 float32 features fit the L1 cache, so that a line is fetched once.
    """
    block_c = min(triton.next_power_of_2(out.shape[1]), 32)
    if out.stride(1) == 1 and out.shape[1] > 1:
        return {"BLOCK_C": block_c, "BLOCK_P": 128, "num_warps": 4}
    return {"BLOCK_C": block_c, "BLOCK_P": 512 // features.element_size() if block_c <= 8 else 64, "num_warps": 1}


def backward_blocks(channels: int) -> dict[str, Any]:
    """Return channels and pixels per backward program and its warps. The pixels are those of one partial sum, and the
    warps set the order of its additions. Both therefore depend only on C and are not tuned, so that every sum has one
    order. Sums in pairs, which no number of warps changes, take 1.5 times the instructions for 24 channels and spill;
    so does bfloat16 with 8 warps for 24 channels."""
    block_c = triton.next_power_of_2(channels)
    return {
        "BLOCK_C": block_c,
        "BLOCK_P": 256 if block_c <= 8 else 128,
        "num_warps": 16 if block_c > 16 else max(1, block_c // 4),
    }


def _experts(features: list[Tensor]) -> tuple[Tensor, ...]:
    return tuple(features[0].unbind(1)) if features[0].dim() == 5 else tuple(features)


def _parameters(
    weight: Tensor, bias: Tensor | None, scale: Tensor | None, gates: Tensor, group: slice
) -> tuple[tuple[Tensor | None, ...], tuple[tuple[int, ...], ...]]:
    """Return weight, bias, scale and gates of a group of experts, and their strides."""
    chosen = weight[group], None if bias is None else bias[group], select(scale, group), gates[:, group]
    return chosen, tuple((0, 0, 0) if t is None else t.stride() for t in chosen)


def forward(
    out: Tensor,
    features: list[Tensor],
    weight: Tensor,
    bias: Tensor | None,
    channel_scale: Tensor | None,
    gates: Tensor,
    maps: Tensor | None,
    base: Tensor | None,
) -> None:
    """Fill out [B,C,H,W]. More than 8 experts pass through an unrounded workspace in the compute type."""
    batch, channels, height, width = out.shape
    torch_type, compute = compute_type(*features, weight, bias, channel_scale, gates, maps, base)
    experts = _experts(features)
    groups = groups_of(len(experts))
    for group, target in zip(groups, targets_of(out, len(groups), torch_type), strict=True):
        chosen, chart = experts[group], select(maps, group)
        small, small_strides = _parameters(weight, bias, channel_scale, gates, group)
        feature_strides = tuple(strides(feature) for feature in chosen)
        others = strides(target), strides(chart), strides(base)
        blocks = forward_blocks(target, chosen[0])
        tiles, chunks = triton.cdiv(height * width, blocks["BLOCK_P"]), triton.cdiv(channels, blocks["BLOCK_C"])
        launch(
            _forward_kernel, batch * tiles * chunks, out.device,
            target, chosen, *small, chart, base,
            channels, height * width, width, weight.shape[2],
            others[0], feature_strides, *small_strides, others[1], others[2],
            K=len(chosen), FLAT=flat_pixels(width, (*feature_strides, *others)), UNROLL=UNROLL,
            INDEX=index_type(height * width, channels), COMPUTE=compute, **blocks,
        )  # fmt: skip
        base = target


def backward(
    grad: Tensor,
    features: list[Tensor],
    weight: Tensor,
    bias: Tensor | None,
    channel_scale: Tensor | None,
    gates: Tensor,
    maps: Tensor | None,
    d_features: list[Tensor],
    d_weight: Tensor | None,
    d_bias: Tensor | None,
    d_channel_scale: Tensor | None,
    d_gates: Tensor | None,
    d_maps: Tensor | None,
) -> None:
    """Fill the gradients that are not None: those of images in the kernel, those of parameters from its moments."""
    batch, channels, height, width = grad.shape
    count, pixels = weight.shape[2], height * width
    torch_type, compute = compute_type(grad, *features, weight, bias, channel_scale, gates, maps)
    experts, d_experts = _experts(features), _experts(d_features) if d_features else ()
    blocks = backward_blocks(channels)
    tiles = triton.cdiv(pixels, blocks["BLOCK_P"])
    wanted = any(t is not None for t in (d_weight, d_bias, d_channel_scale, d_gates))
    partials = None
    if wanted:  # [B,K,C,F+1,tiles], in memory with the channels innermost, since a program writes all of them together
        shape = (batch, len(experts), tiles, count + 1, channels)
        partials = empty_partials(shape, torch_type, grad).permute(0, 1, 4, 3, 2)
    for group in groups_of(len(experts)):
        chosen, chart, d_chart = experts[group], select(maps, group), select(d_maps, group)
        small, small_strides = _parameters(weight, bias, channel_scale, gates, group)
        results, partial = d_experts[group] or None, select(partials, group)
        feature_strides = tuple(strides(feature) for feature in chosen)
        result_strides = tuple(strides(result) for result in results or ())
        grad_stride, map_stride, d_map_stride = strides(grad), strides(chart), strides(d_chart)
        launch(
            _backward_kernel, batch * tiles, grad.device,
            grad, chosen, *small, chart, results, d_chart, partial,
            channels, pixels, width, count,
            grad_stride, feature_strides, *small_strides, map_stride,
            result_strides, d_map_stride, (0,) * 5 if partial is None else partial.stride(),
            tuned=False, K=len(chosen), UNROLL=1, INDEX=index_type(pixels), COMPUTE=compute, **blocks,
            FLAT=flat_pixels(width, (grad_stride, map_stride, d_map_stride, *feature_strides, *result_strides)),
        )  # fmt: skip
    if partials is None:
        return
    parameters = d_weight, d_bias, d_channel_scale, d_gates
    _parameter_gradients(partials.sum(-1), weight, bias, channel_scale, gates, *parameters)


def _parameter_gradients(
    moments: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    channel_scale: Tensor | None,
    gates: Tensor,
    d_weight: Tensor | None,
    d_bias: Tensor | None,
    d_channel_scale: Tensor | None,
    d_gates: Tensor | None,
) -> None:
    """Fill the parameters' gradients from moments [B,K,C,F+1]: M = Σ_hw map·g·F and, after it, N = Σ_hw map·g.

    d_W = Σ_b gate·scale·M;  d_b = Σ_b gate·N;  d_scale = gate Σ_c W M;  d_gate = Σ_cf W·scale·M + Σ_c b N.
    """
    product, plain = moments[..., :-1], moments[..., -1]
    scale = torch.ones_like(product[:, :, 0]) if channel_scale is None else channel_scale.to(moments.dtype)
    gates, weight = gates.to(moments.dtype), weight.to(moments.dtype)
    if d_weight is not None:
        d_weight.copy_((gates[..., None, None] * scale[:, :, None] * product).sum(0))
    if d_bias is not None:
        d_bias.copy_((gates[..., None] * plain).sum(0))
    if d_channel_scale is None and d_gates is None:
        return
    correlation = (weight * product).sum(2)
    if d_channel_scale is not None:
        d_channel_scale.copy_(gates[..., None] * correlation)
    if d_gates is not None:
        total = (scale * correlation).sum(2)
        d_gates.copy_(total if bias is None else total + (bias.to(moments.dtype) * plain).sum(2))
