"""transport_step's gradients in Triton: backward kernel and launcher.

The kernel recomputes the sum before the clamp, because the gradients need the same inputs anyway.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from f2d_kernels.arguments import TransportStep, TransportStepGradients
from f2d_kernels.triton import expert_assembly
from f2d_kernels.triton._blocks import plane_of
from f2d_kernels.triton._groups import GROUP, experts_of
from f2d_kernels.triton._launch import compute_type, launch, strides
from f2d_kernels.triton._quads import POSITION, per_sample
from f2d_kernels.triton._reduce import partials_of, sum_rows, tree_sum
from f2d_kernels.triton._transport import (
    TILE,
    block_sizes,
    constants_of,
    grid_of,
    image_at,
    last_experts,
    limited,
    locate,
    map_at,
    noise_of,
    read,
    total_of,
    write,
)
from f2d_kernels.triton.expert_assembly import (
    finish_expert,
    gate_of,
    gate_strides,
    gradients_of_expert,
    sums_of_channels,
)
from f2d_kernels.triton.exponential import exponential
from f2d_kernels.triton.lognormal_transition import clamped


@triton.jit(do_not_specialize=POSITION)
def _backward_kernel(
    grad_x, grad_mu, x, deltas, gates, maps, base, anchor, log_mean, log_std, noise, seed,
    stream, top, first_quad, shift,
    d_x, d_deltas, d_maps, d_mu, d_noise, partials, mean_partials, std_partials,
    size, sums, grad_strides, image_strides, delta_strides, gate_stride, map_stride, mean_stride, std_stride,
    d_strides, d_delta_strides, d_map_stride, partial_stride,
    K: tl.constexpr, PER_CHANNEL: tl.constexpr, PER_SAMPLE: tl.constexpr, LOW: tl.constexpr, HIGH: tl.constexpr,
    NEEDS_MU: tl.constexpr, FLAT: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr, TILE: tl.constexpr,
    KEPT: tl.constexpr, INDEX: tl.constexpr, COMPUTE: tl.constexpr, ASSEMBLED: tl.constexpr, TARGET: tl.constexpr,
):  # fmt: skip
    """Compute v = g_mu + g_x (1 - f) inside the clamp, once per element, then all gradients that follow from it."""
    b, tile, c, quad, place, on_image = locate(size, shift, BLOCK_C, BLOCK_P, FLAT, INDEX)
    c_inside = c < size[0]
    inside = c_inside[:, None] & on_image[None, :]
    t = tile * (BLOCK_P // TILE) + tl.arange(0, BLOCK_P // TILE)
    on_sums = t < sums
    inside_sums = c_inside[:, None] & on_sums[None, :]
    v = tl.zeros([BLOCK_C, BLOCK_P], COMPUTE)
    through_x = v
    if NEEDS_MU:
        total, state, seen, charts = total_of(
            x, deltas, gates, maps, base, anchor, image_strides, delta_strides, gate_stride, map_stride, b, c, place,
            c_inside, on_image, K, PER_CHANNEL, FLAT, COMPUTE, ASSEMBLED, TARGET,
        )  # fmt: skip
        target, unclamped = limited(total, LOW, HIGH)
    if grad_mu is not None:
        v = read(grad_mu, grad_strides[1], b, c, place, inside, FLAT, COMPUTE)
    if grad_x is not None:
        g = read(grad_x, grad_strides[0], b, c, place, inside, FLAT, COMPUTE)
        eps = noise_of(
            noise, seed, image_strides[3], stream, top, first_quad, b, c, quad, place, inside, PER_SAMPLE, FLAT, COMPUTE
        )
        std = per_sample(log_std, std_stride, b, [BLOCK_C, BLOCK_P], COMPUTE)
        raw = tl.fma(std, eps, per_sample(log_mean, mean_stride, b, [BLOCK_C, BLOCK_P], COMPUTE))
        exp, expm1, _ = exponential(clamped(raw))
        through_x = g * exp
        v = v - g * expm1
        if d_noise is not None or mean_partials is not None or std_partials is not None:
            slope = tl.where((raw < -20.0) | (raw > 20.0), 0.0, g * (state.to(COMPUTE) - target) * exp)
            if d_noise is not None:
                write(d_noise, d_strides[2], b, c, place, inside, slope * std, FLAT)
            # masked elements hold g = 0 and add nothing
            row = (b * size[0] + c.to(tl.int64)) * sums
            sums_at = row[:, None] + t[None, :]
            if mean_partials is not None:
                tl.store(mean_partials + sums_at, tree_sum(slope, TILE), mask=inside_sums)
            if std_partials is not None:
                tl.store(std_partials + sums_at, tree_sum(slope * eps, TILE), mask=inside_sums)
    if NEEDS_MU:
        v = tl.where(unclamped & inside, v, 0.0)
    if d_x is not None:
        if anchor is None:
            through_x += v
        write(d_x, d_strides[0], b, c, place, inside, through_x, FLAT)
    if d_mu is not None:
        write(d_mu, d_strides[1], b, c, place, inside, v, FLAT)
    if d_deltas is not None or d_maps is not None or partials is not None:
        for k in tl.static_range(K):
            chart, delta, d_delta_at, channel_sums_at, d_map_at, sums_at = None, None, None, None, None, None
            gate = gate_of(gates, gate_stride, b, k, c, c_inside, PER_CHANNEL, COMPUTE)
            if maps is not None:
                if k < KEPT:
                    chart = charts[k].to(COMPUTE)
                else:
                    chart = tl.load(map_at(maps, map_stride, b, k, place, FLAT), mask=on_image, other=0.0).to(COMPUTE)
            if d_maps is not None or partials is not None:
                if k < KEPT:
                    delta = seen[k]
                else:
                    delta = tl.load(image_at(deltas[k], delta_strides[k], b, c, place, FLAT), mask=inside, other=0.0)
            if d_deltas is not None:
                d_delta_at = image_at(d_deltas[k], d_delta_strides[k], b, c, place, FLAT)
            if d_maps is not None:
                d_map_at = map_at(d_maps, d_map_stride, b, k, place, FLAT)
            if partials is not None:
                if PER_CHANNEL:
                    channel_sums_at = sums_of_channels(partials, partial_stride, b, k, c, t)
                else:
                    sums_at = plane_of(partials, partial_stride, b, k) + t
            products = gradients_of_expert(
                v, delta, d_delta_at, channel_sums_at, gate, chart, inside, inside_sums, PER_CHANNEL, TILE
            )
            finish_expert(products, d_map_at, sums_at, gate, chart, on_image, on_sums, PER_CHANNEL, TILE)


def kept(experts: tuple[Tensor, ...], compute: tl.dtype) -> int:
    """Return of how many experts the deltas stay in registers, as far as these last; others are read twice."""
    if len(experts) > GROUP // 2 or compute == tl.float64:
        return 0
    # with pixels of 16 bits, four would spill 8 bytes on sm_90
    return 3 if any(t.element_size() == 2 and t.stride(1) == 1 < t.shape[1] for t in experts) else 4


def backward(grad_x: Tensor | None, grad_mu: Tensor | None, *arguments: Any) -> None:
    """Fill the gradients that are not None. One pass suffices if a program holds all channels and experts of its
    pixels. Otherwise (more than 8 experts, deltas shared by the batch, many channels) v is written to memory, from
    which the assembly's backward kernel reads it."""
    count = len(TransportStepGradients._fields)
    a, d = TransportStep(*arguments[:-count]), TransportStepGradients(*arguments[-count:])
    batch, channels = a.x.shape[:2]
    torch_type, compute = compute_type(grad_x, grad_mu, a.x, *a.deltas, *a[2:8], a.noise)
    constants = constants_of(a, compute)
    of_assembly = bool(d.deltas) or d.gates is not None or d.maps is not None
    d_experts = experts_of(d.deltas, d.deltas[0].shape[0]) if d.deltas else ()
    like = next(t for t in (d.x, d.mu, d.noise, *d_experts, grad_x, grad_mu) if t is not None and len(t) == batch)
    experts = experts_of(a.deltas, batch)
    shared = any(len(t) < batch for t in d_experts)
    fused = of_assembly and len(experts) <= GROUP and channels <= block_sizes(like)["BLOCK_C"] and not shared
    v = torch.empty_like(like, dtype=torch_type) if of_assembly and not fused else d.mu
    experts, gates, maps, base = last_experts(experts, a.gates, a.maps, a.base, torch_type, like)
    results, d_charts = (d_experts or None, d.maps) if fused else (None, None)

    image_strides = tuple(strides(t) for t in (a.x, base, a.anchor, a.noise))
    grad_strides = strides(grad_x), strides(grad_mu)
    d_strides = strides(d.x), strides(v), strides(d.noise)
    delta_strides, d_delta_strides = (tuple(strides(t) for t in group or ()) for group in (experts, results))
    maps_strides = strides(maps), strides(d_charts)
    every = [*image_strides, *grad_strides, *d_strides, *delta_strides, *d_delta_strides, *maps_strides]
    # with 16 bytes of 16-bit deltas a thread, the kept ones would spill
    light = len(experts) <= GROUP // 2 and like.element_size() > 2
    shift, programs, grid = grid_of(like, a.seed is not None, a.left, light, every)
    sums = triton.cdiv(4 * grid["size"][3], TILE)

    mean_partials, std_partials = (
        partials_of(result, (batch, channels, sums), torch_type, like) for result in (d.log_mean, d.log_std)
    )
    gate_shape = (batch, len(experts), *(gates.shape[2:] or (1,)), sums)
    gate_partials = partials_of(d.gates if fused else None, gate_shape, torch_type, like)
    of_exponent = any(t is not None for t in (d.log_mean, d.log_std, d.noise))
    launch(
        _backward_kernel, programs, like.device,
        grad_x, grad_mu, a.x, experts, gates, maps, base, a.anchor, a.log_mean, a.log_std, a.noise, a.seed,
        a.stream, a.top, a.left // 4, shift,
        d.x, results, d_charts, v, d.noise, gate_partials, mean_partials, std_partials,
        sums=sums, grad_strides=grad_strides, image_strides=image_strides, delta_strides=delta_strides,
        gate_stride=gate_strides(gates), map_stride=maps_strides[0],
        mean_stride=a.log_mean.stride(0), std_stride=a.log_std.stride(0),
        d_strides=d_strides, d_delta_strides=d_delta_strides, d_map_stride=maps_strides[1],
        partial_stride=(0, 0, 0) if gate_partials is None else gate_partials.stride()[:3],
        K=len(experts), KEPT=kept(experts, compute), TILE=TILE,
        NEEDS_MU=of_exponent or of_assembly or v is not None or a.anchor is None,
        **constants, **grid,
    )  # fmt: skip
    for partials, result in ((mean_partials, d.log_mean), (std_partials, d.log_std)):
        sum_rows(None if partials is None else partials.view(batch, -1), result)
    sum_rows(gate_partials, d.gates)
    if of_assembly and not fused and v is not None:
        if d.mu is not None:
            d.mu.copy_(v)
        expert_assembly.backward(v, *a[1:4], *d[1:4])
