"""base + Σ_k gates · maps · deltas and its gradients in Triton: forward kernel, backward kernels, launchers.

One program owns a block of channels × pixels. K stacked deltas are passed as K views, so that the kernels receive both
forms of `deltas` as a tuple of K pointers, each with its own strides. A launch takes at most 8 experts.
"""

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from f2d_kernels.triton._blocks import addresses, block_of, pixels_of, plane_of, read
from f2d_kernels.triton._groups import experts_of, groups_of, select, targets_of
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
from f2d_kernels.triton._reduce import partials_of, sum_rows, tree_sum

TILE = 128  # pixels per partial sum of the gates' gradient; every block is a multiple of it
FILLED = 256  # programs, about two per multiprocessor of a large GPU; with fewer, blocks shrink to TILE pixels


@triton.jit
def gate_of(gates, stride, b, k, c, inside, PER_CHANNEL: tl.constexpr, COMPUTE: tl.constexpr):
    """Load gates[b,k] as a scalar, or gates[b,k,c] as [BLOCK_C, 1]."""
    place = plane_of(gates, stride, b, k)
    if PER_CHANNEL:
        return tl.load(place + c.to(tl.int64) * stride[2], mask=inside, other=0.0).to(COMPUTE)[:, None]
    else:
        return tl.load(place).to(COMPUTE)


@triton.jit
def _forward_kernel(
    out, deltas, gates, maps, base,
    channels, pixels, width,
    out_stride, delta_strides, gate_stride, map_stride, base_stride,
    K: tl.constexpr, PER_CHANNEL: tl.constexpr, FLAT: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr, INDEX: tl.constexpr, COMPUTE: tl.constexpr,
):  # fmt: skip
    b, c, p, inside = block_of(channels, pixels, BLOCK_C, BLOCK_P, INDEX)
    if base is None:
        total = tl.zeros([BLOCK_C, BLOCK_P], COMPUTE)
    else:
        total = read(base, base_stride, b, c, p, width, inside, FLAT, COMPUTE)
    for k in tl.static_range(K):
        weight = gate_of(gates, gate_stride, b, k, c, c < channels, PER_CHANNEL, COMPUTE)
        if maps is not None:
            weight = weight * pixels_of(maps, map_stride, b, k, p, width, p < pixels, FLAT, COMPUTE)[None, :]
        delta = read(deltas[k], delta_strides[k], b, c, p, width, inside, FLAT, COMPUTE)
        total = tl.fma(tl.broadcast_to(weight, [BLOCK_C, BLOCK_P]), delta, total)
    tl.store(addresses(out, out_stride, b, c, p, width, FLAT), rounded(total, out), mask=inside)


@triton.jit
def sums_of_channels(partials, stride, b, k, c, t):
    """Return the addresses [BLOCK_C, BLOCK_P / TILE] of the tiles' sums of expert k and channels c."""
    row = plane_of(partials, stride, b, k) + c.to(tl.int64) * stride[2]
    return row[:, None] + t[None, :]


@triton.jit
def gradients_of_expert(
    g, delta, d_delta_at, channel_sums_at, gate, chart, inside, inside_sums,
    PER_CHANNEL: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Store d_delta = gate·map·g [BLOCK_C, BLOCK_P] and, for gates per channel, their tiles' sums. Return Σ_c delta·g
    [BLOCK_P], weighted by the gates if these are per channel. A gradient without an address is not computed."""
    products = tl.zeros([g.shape[1]], g.dtype)
    if delta is not None:
        product = delta.to(g.dtype) * g
        if channel_sums_at is not None:
            term = product
            if chart is not None:
                term = product * chart[None, :]
            tl.store(channel_sums_at, tree_sum(term, TILE), mask=inside_sums)
        if PER_CHANNEL:
            product = product * gate
        products = tl.reshape(tree_sum(tl.trans(product), g.shape[0]), [g.shape[1]])
    if d_delta_at is not None:
        weight = gate
        if chart is not None:
            weight = gate * chart[None, :]
        tl.store(d_delta_at, rounded(weight * g, d_delta_at), mask=inside)
    return products


@triton.jit
def finish_expert(
    products, d_map_at, sums_at, gate, chart, on_image, on_sums, PER_CHANNEL: tl.constexpr, TILE: tl.constexpr
):
    """Store the gradients from sums over channels: d_map [BLOCK_P], and the tiles' sums of a shared gate."""
    if d_map_at is not None:
        d_map = products
        if not PER_CHANNEL:
            d_map = products * gate
        tl.store(d_map_at, rounded(d_map, d_map_at), mask=on_image)
    if sums_at is not None:
        term = products
        if chart is not None:
            term = products * chart
        tl.store(sums_at, tree_sum(term, TILE), mask=on_sums)


@triton.jit
def _backward_kernel(
    grad, deltas, gates, maps, d_deltas, d_maps, partials,
    channels, pixels, width, sums,
    grad_stride, delta_strides, gate_stride, map_stride, d_delta_strides, d_map_stride, partial_stride,
    K: tl.constexpr, CHUNKS: tl.constexpr, PER_CHANNEL: tl.constexpr, FLAT: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr, TILE: tl.constexpr, INDEX: tl.constexpr, COMPUTE: tl.constexpr,
):  # fmt: skip
    """Process all channels and experts of BLOCK_P pixels in one program, so that memory is read once."""
    tiles = block_count(pixels, BLOCK_P, INDEX)
    b = (tl.program_id(0) // tiles).to(tl.int64)
    first_p = (tl.program_id(0) % tiles).to(INDEX) * BLOCK_P
    p = first_p + tl.arange(0, BLOCK_P)
    on_image = p < pixels
    c = tl.arange(0, BLOCK_C).to(INDEX)
    t = first_p // TILE + tl.arange(0, BLOCK_P // TILE)  # the tiles of partial sums of these pixels
    if CHUNKS == 1:
        inside = (c < channels)[:, None] & on_image[None, :]
        g = read(grad, grad_stride, b, c, p, width, inside, FLAT, COMPUTE)
    on_sums = t < sums
    for k in tl.static_range(K):
        chart, shared_gate, d_map_at, sums_at = None, None, None, None
        if maps is not None:
            chart = pixels_of(maps, map_stride, b, k, p, width, on_image, FLAT, COMPUTE)
        if not PER_CHANNEL:
            shared_gate = gate_of(gates, gate_stride, b, k, c, c < channels, PER_CHANNEL, COMPUTE)
        products = tl.zeros([BLOCK_P], COMPUTE)
        for chunk in range(CHUNKS):
            c = tl.cast(chunk, INDEX) * BLOCK_C + tl.arange(0, BLOCK_C)
            inside = (c < channels)[:, None] & on_image[None, :]
            delta, d_delta_at, channel_sums_at = None, None, None
            if CHUNKS > 1:
                g = read(grad, grad_stride, b, c, p, width, inside, FLAT, COMPUTE)
            gate = shared_gate  # its own name, because a variable carried through a loop cannot change its type
            if PER_CHANNEL:
                gate = gate_of(gates, gate_stride, b, k, c, c < channels, PER_CHANNEL, COMPUTE)
            if d_maps is not None or partials is not None:
                delta = tl.load(addresses(deltas[k], delta_strides[k], b, c, p, width, FLAT), mask=inside, other=0.0)
            if d_deltas is not None:
                d_delta_at = addresses(d_deltas[k], d_delta_strides[k], b, c, p, width, FLAT)
            if PER_CHANNEL and partials is not None:
                channel_sums_at = sums_of_channels(partials, partial_stride, b, k, c, t)
            products += gradients_of_expert(
                g, delta, d_delta_at, channel_sums_at, gate, chart, inside,
                (c < channels)[:, None] & on_sums[None, :], PER_CHANNEL, TILE,
            )  # fmt: skip
        if d_maps is not None:
            d_map_at = plane_of(d_maps, d_map_stride, b, k) + pixel_offsets(p, width, d_map_stride, FLAT)
        if partials is not None and not PER_CHANNEL:
            sums_at = plane_of(partials, partial_stride, b, k) + t
        finish_expert(products, d_map_at, sums_at, shared_gate, chart, on_image, on_sums, PER_CHANNEL, TILE)


@triton.jit
def _shared_deltas_kernel(
    grad, gates, maps, d_deltas,
    batch, channels, pixels, width,
    grad_stride, gate_stride, map_stride, d_delta_strides,
    K: tl.constexpr, PER_CHANNEL: tl.constexpr, FLAT: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr, INDEX: tl.constexpr, COMPUTE: tl.constexpr,
):  # fmt: skip
    """d_delta[k] = Σ_b gate·map·g, for deltas that the batch shares, summed sample by sample."""
    tiles = block_count(pixels, BLOCK_P, INDEX)
    c = tl.program_id(0) // tiles * BLOCK_C + tl.arange(0, BLOCK_C)
    p = (tl.program_id(0) % tiles).to(INDEX) * BLOCK_P + tl.arange(0, BLOCK_P)
    inside = (c < channels)[:, None] & (p < pixels)[None, :]
    for k in tl.static_range(K):
        total = tl.zeros([BLOCK_C, BLOCK_P], COMPUTE)
        for sample in range(batch):
            b = tl.cast(sample, tl.int64)
            g = read(grad, grad_stride, b, c, p, width, inside, FLAT, COMPUTE)
            weight = gate_of(gates, gate_stride, b, k, c, c < channels, PER_CHANNEL, COMPUTE)
            if maps is not None:
                weight = weight * pixels_of(maps, map_stride, b, k, p, width, p < pixels, FLAT, COMPUTE)[None, :]
            total = tl.fma(tl.broadcast_to(weight, [BLOCK_C, BLOCK_P]), g, total)
        place = addresses(d_deltas[k], d_delta_strides[k], 0, c, p, width, FLAT)
        tl.store(place, rounded(total, d_deltas[k]), mask=inside)


def block_sizes(image: Tensor) -> dict[str, Any]:
    """Return channels and pixels per program and its warps, for 16-byte accesses along the contiguous axis of `image`.

    NCHW: a warp owns 512 bytes of pixels in every channel of the block, so that sums over channels stay in a thread
    (63 -> 7 barriers in the backward kernel of 4 experts). Small problems get small blocks, which fill the GPU.
    """
    batch, channels, height, width = image.shape
    if image.stride(1) == 1 and channels > 1:
        block_c = min(triton.next_power_of_2(channels), 16)
        return {"BLOCK_C": block_c, "BLOCK_P": max(TILE, 1024 // block_c), "num_warps": 4}
    block_c = min(triton.next_power_of_2(channels), 4)
    programs = batch * triton.cdiv(channels, block_c) * triton.cdiv(height * width, 512)
    block_p = 512 if programs >= FILLED else TILE
    return {"BLOCK_C": block_c, "BLOCK_P": block_p, "num_warps": max(1, block_p * image.element_size() // 512)}


def gate_strides(gates: Tensor) -> tuple[int, int, int]:
    batch, expert, *channel = gates.stride()
    return batch, expert, channel[0] if channel else 0


def forward(out: Tensor, deltas: list[Tensor], gates: Tensor, maps: Tensor | None, base: Tensor | None) -> None:
    """Fill out [B,C,H,W]. More than 8 experts pass through an unrounded workspace in the compute type."""
    batch, channels, height, width = out.shape
    torch_type, compute = compute_type(*deltas, gates, maps, base)
    experts = experts_of(deltas, batch)
    groups = groups_of(len(experts))
    for group, target in zip(groups, targets_of(out, len(groups), torch_type), strict=True):
        chosen, gate, chart = experts[group], gates[:, group], select(maps, group)
        delta_strides = tuple(strides(delta) for delta in chosen)
        others = strides(target), strides(chart), strides(base)
        blocks = block_sizes(target)
        tiles, chunks = triton.cdiv(height * width, blocks["BLOCK_P"]), triton.cdiv(channels, blocks["BLOCK_C"])
        launch(
            _forward_kernel, batch * tiles * chunks, out.device,
            target, chosen, gate, chart, base,
            channels, height * width, width,
            others[0], delta_strides, gate_strides(gate), others[1], others[2],
            K=len(chosen), PER_CHANNEL=gates.dim() == 3, FLAT=flat_pixels(width, (*delta_strides, *others)),
            INDEX=index_type(height * width, channels), COMPUTE=compute, **blocks,
        )  # fmt: skip
        base = target


def backward(
    grad: Tensor,
    deltas: list[Tensor],
    gates: Tensor,
    maps: Tensor | None,
    d_deltas: list[Tensor],
    d_gates: Tensor | None,
    d_maps: Tensor | None,
) -> None:
    """Fill d_deltas [like deltas, or empty], d_gates, d_maps: d_delta = gate·map·g, d_map = gate Σ_c delta·g,
    d_gate = Σ_hw map Σ_c delta·g (per channel: without the sum over c, and the gate inside it)."""
    batch, channels, height, width = grad.shape
    pixels, per_channel = height * width, gates.dim() == 3
    torch_type, compute = compute_type(grad, *deltas, gates, maps)
    experts, d_experts = experts_of(deltas, batch), experts_of(d_deltas, d_deltas[0].shape[0]) if d_deltas else ()
    shared = bool(d_experts) and d_experts[0].shape[0] < batch
    blocks = block_sizes(d_experts[0] if d_experts else grad)
    tiles, chunks = triton.cdiv(pixels, blocks["BLOCK_P"]), triton.cdiv(channels, blocks["BLOCK_C"])
    sums = triton.cdiv(pixels, TILE)
    shape = (batch, len(experts), channels if per_channel else 1, sums)
    partials = partials_of(d_gates, shape, torch_type, grad)
    for group in groups_of(len(experts)):
        chosen, gate, chart, d_chart = experts[group], gates[:, group], select(maps, group), select(d_maps, group)
        results = d_experts[group] or None
        partial = select(partials, group)
        gate_stride = gate_strides(gate)
        grad_stride, map_stride, d_map_stride = strides(grad), strides(chart), strides(d_chart)
        delta_strides = tuple(strides(delta) for delta in chosen)
        result_strides = tuple(strides(result) for result in results or ())
        constants = {
            "K": len(chosen),
            "PER_CHANNEL": per_channel,
            "FLAT": flat_pixels(width, (grad_stride, map_stride, d_map_stride, *delta_strides, *result_strides)),
            "INDEX": index_type(pixels, channels),
            "COMPUTE": compute,
            **blocks,
        }
        if shared:
            launch(
                _shared_deltas_kernel, tiles * chunks, grad.device,
                grad, gate, chart, results,
                batch, channels, pixels, width,
                grad_stride, gate_stride, map_stride, result_strides,
                **constants,
            )  # fmt: skip
            results, result_strides = None, ()
        if results is None and partial is None and d_chart is None:
            continue
        launch(
            _backward_kernel, batch * tiles, grad.device,
            grad, chosen, gate, chart, results, d_chart, partial,
            channels, pixels, width, sums,
            grad_stride, delta_strides, gate_stride, map_stride, result_strides, d_map_stride,
            (0, 0, 0) if partial is None else partial.stride()[:3],
            CHUNKS=chunks, TILE=TILE, **constants,
        )  # fmt: skip
    sum_rows(partials, d_gates)
