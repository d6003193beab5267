"""mu = clamp(anchor + assembly), x_next = transition of x to mu, and the gradients of both, in Triton.

One program owns a block of channels × pixels, and the pixels come in quads, since one Philox call gives the noise of
four. The arithmetic is that of the two ops, operation by operation, with what they would store rounded as they would.
The backward kernel sums up again what lies under the clamp: what is read for it is read for the gradients anyway.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from f2d_kernels.triton import expert_assembly
from f2d_kernels.triton._launch import as_type, compute_type, flat_pixels, index_type, launch, rounded, strides
from f2d_kernels.triton._quads import POSITION, per_sample, seeded_noise
from f2d_kernels.triton._reduce import empty_partials, sum_rows, tree_sum
from f2d_kernels.triton.expert_assembly import (
    GROUP,
    _plane,
    experts_of,
    finish_expert,
    gate_of,
    gate_strides,
    gradients_of_expert,
    sums_of_channels,
)
from f2d_kernels.triton.exponential import exponential
from f2d_kernels.triton.lognormal_transition import clamped, stepped

TILE = 128  # pixels per partial sum; every block is a multiple of it
TYPES = {torch.float32: tl.float32, torch.float64: tl.float64, torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}


@triton.jit
def _locate(size, shift, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr, FLAT: tl.constexpr, INDEX: tl.constexpr):
    """(b, tile, c [BLOCK_C], (y, quad of the row) [BLOCK_P / 4], (y, column) [BLOCK_P], which of these are pixels).

    size = (channels, width, quads per row, quads, chunks of channels). FLAT: column counts all pixels of the image.
    """
    _, width, row_quads, quads, chunks = size
    tiles = tl.cdiv(quads, BLOCK_P // 4)
    program = tl.program_id(0)
    tile = (program % tiles).to(INDEX)
    c = (program // tiles) % chunks * BLOCK_C + tl.arange(0, BLOCK_C)
    n = tile * (BLOCK_P // 4) + tl.arange(0, BLOCK_P // 4)
    column = tile * BLOCK_P + tl.arange(0, BLOCK_P)
    if FLAT:
        place = (column, column)
        on_image = column < width
    else:
        element_quad = column // 4
        place = (element_quad // row_quads, element_quad % row_quads * 4 + column % 4 - shift)
        on_image = (element_quad < quads) & (place[1] >= 0) & (place[1] < width)
    return (program // (tiles * chunks)).to(tl.int64), tile, c, (n // row_quads, n % row_quads), place, on_image


@triton.jit
def _offsets(stride, place, FLAT: tl.constexpr):
    if FLAT:
        return place[1].to(tl.int64) * stride[3]
    else:
        return place[0].to(tl.int64) * stride[2] + place[1].to(tl.int64) * stride[3]


@triton.jit
def _image(pointer, stride, b, c, place, FLAT: tl.constexpr):
    """Addresses of channels c of image b at a block's pixels: [BLOCK_C, BLOCK_P]."""
    channel = pointer + b * stride[0] + c.to(tl.int64) * stride[1]
    return channel[:, None] + _offsets(stride, place, FLAT)[None, :]


@triton.jit
def _read(pointer, stride, b, c, place, inside, FLAT: tl.constexpr, COMPUTE: tl.constexpr):
    return tl.load(_image(pointer, stride, b, c, place, FLAT), mask=inside, other=0.0).to(COMPUTE)


@triton.jit
def _write(pointer, stride, b, c, place, inside, values, FLAT: tl.constexpr):
    tl.store(_image(pointer, stride, b, c, place, FLAT), rounded(values, pointer), mask=inside)


@triton.jit
def _noise(
    noise, seed, stride, stream, top, first_quad, b, c, quad, place, inside,
    PER_SAMPLE: tl.constexpr, FLAT: tl.constexpr, COMPUTE: tl.constexpr,
):  # fmt: skip
    if seed is None:
        return _read(noise, stride, b, c, place, inside, FLAT, COMPUTE)
    else:
        shape: tl.constexpr = [c.shape[0], quad[0].shape[0]]
        key = (
            tl.broadcast_to(c[:, None], shape),
            tl.broadcast_to(quad[0][None, :], shape),
            tl.broadcast_to(quad[1][None, :], shape),
        )
        return seeded_noise(seed, stream, top, first_quad, b, key, PER_SAMPLE).to(COMPUTE)


@triton.jit
def _map_at(maps, stride, b, k, place, FLAT: tl.constexpr):
    return _plane(maps, stride, b, k) + _offsets(stride, place, FLAT)


@triton.jit
def _total(
    x, deltas, gates, maps, base, anchor, image_strides, delta_strides, gate_stride, map_stride, b, c, place,
    c_inside, on_image, K: tl.constexpr, PER_CHANNEL: tl.constexpr, FLAT: tl.constexpr, COMPUTE: tl.constexpr,
    ASSEMBLED: tl.constexpr, TARGET: tl.constexpr,
):  # fmt: skip
    """anchor + base + Σ_k gates · maps · deltas as the two ops would store it: [BLOCK_C, BLOCK_P]."""
    inside = c_inside[:, None] & on_image[None, :]
    if base is None:
        total = tl.zeros([c.shape[0], place[1].shape[0]], COMPUTE)
    else:
        total = _read(base, image_strides[1], b, c, place, inside, FLAT, COMPUTE)
    for k in tl.static_range(K):
        weight = gate_of(gates, gate_stride, b, k, c, c_inside, PER_CHANNEL, COMPUTE)
        if maps is not None:
            chart = tl.load(_map_at(maps, map_stride, b, k, place, FLAT), mask=on_image, other=0.0).to(COMPUTE)
            weight = weight * chart[None, :]
        delta = _read(deltas[k], delta_strides[k], b, c, place, inside, FLAT, COMPUTE)
        total = tl.fma(tl.broadcast_to(weight, total.shape), delta, total)
    if anchor is None:
        start = _read(x, image_strides[0], b, c, place, inside, FLAT, COMPUTE)
    else:
        start = _read(anchor, image_strides[2], b, c, place, inside, FLAT, COMPUTE)
    total = as_type(total, ASSEMBLED).to(COMPUTE)
    return as_type(start + total, TARGET).to(COMPUTE)


@triton.jit
def _limited(total, LOW: tl.constexpr, HIGH: tl.constexpr):
    """torch.clamp: a NaN passes through."""
    low, high = tl.full(total.shape, LOW, total.dtype), tl.full(total.shape, HIGH, total.dtype)
    return tl.where(total < low, low, tl.where(total > high, high, total)), (total >= low) & (total <= high)


@triton.jit(do_not_specialize=POSITION)
def _forward_kernel(
    x_next, mu, x, deltas, gates, maps, base, anchor, log_mean, log_std, noise, seed, stream, top, first_quad, shift,
    size, next_stride, mu_stride, image_strides, delta_strides, gate_stride, map_stride, mean_stride, std_stride,
    K: tl.constexpr, PER_CHANNEL: tl.constexpr, PER_SAMPLE: tl.constexpr, LOW: tl.constexpr, HIGH: tl.constexpr,
    FLAT: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr, INDEX: tl.constexpr, COMPUTE: tl.constexpr,
    ASSEMBLED: tl.constexpr, TARGET: tl.constexpr,
):  # fmt: skip
    b, _, c, quad, place, on_image = _locate(size, shift, BLOCK_C, BLOCK_P, FLAT, INDEX)
    c_inside = c < size[0]
    inside = c_inside[:, None] & on_image[None, :]
    total = _total(
        x, deltas, gates, maps, base, anchor, image_strides, delta_strides, gate_stride, map_stride, b, c, place,
        c_inside, on_image, K, PER_CHANNEL, FLAT, COMPUTE, ASSEMBLED, TARGET,
    )  # fmt: skip
    target, _ = _limited(total, LOW, HIGH)
    _write(mu, mu_stride, b, c, place, inside, target, FLAT)
    eps = _noise(
        noise, seed, image_strides[3], stream, top, first_quad, b, c, quad, place, inside, PER_SAMPLE, FLAT, COMPUTE
    )
    mean = per_sample(log_mean, mean_stride, b, [BLOCK_C, BLOCK_P], COMPUTE)
    std = per_sample(log_std, std_stride, b, [BLOCK_C, BLOCK_P], COMPUTE)
    state = _read(x, image_strides[0], b, c, place, inside, FLAT, COMPUTE)
    _write(x_next, next_stride, b, c, place, inside, stepped(state, target, tl.fma(std, eps, mean)), FLAT)


@triton.jit(do_not_specialize=POSITION)
def _backward_kernel(
    grad_x, grad_mu, x, deltas, gates, maps, base, anchor, log_mean, log_std, noise, seed,
    stream, top, first_quad, shift,
    d_x, d_deltas, d_maps, d_mu, d_noise, partials, mean_partials, std_partials,
    size, sums, grad_strides, image_strides, delta_strides, gate_stride, map_stride, mean_stride, std_stride,
    d_strides, d_delta_strides, d_map_stride, partial_stride,
    K: tl.constexpr, PER_CHANNEL: tl.constexpr, PER_SAMPLE: tl.constexpr, LOW: tl.constexpr, HIGH: tl.constexpr,
    NEEDS_MU: tl.constexpr, FLAT: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr, TILE: tl.constexpr,
    INDEX: tl.constexpr, COMPUTE: tl.constexpr, ASSEMBLED: tl.constexpr, TARGET: tl.constexpr,
):  # fmt: skip
    """v = g_mu + g_x (1 - f) inside the clamp, once per element, then everything that follows from it."""
    b, tile, c, quad, place, on_image = _locate(size, shift, BLOCK_C, BLOCK_P, FLAT, INDEX)
    c_inside = c < size[0]
    inside = c_inside[:, None] & on_image[None, :]
    t = tile * (BLOCK_P // TILE) + tl.arange(0, BLOCK_P // TILE)
    on_sums = t < sums
    inside_sums = c_inside[:, None] & on_sums[None, :]
    v = tl.zeros([BLOCK_C, BLOCK_P], COMPUTE)
    through_x = v
    if NEEDS_MU:
        total = _total(
            x, deltas, gates, maps, base, anchor, image_strides, delta_strides, gate_stride, map_stride, b, c, place,
            c_inside, on_image, K, PER_CHANNEL, FLAT, COMPUTE, ASSEMBLED, TARGET,
        )  # fmt: skip
        target, unclamped = _limited(total, LOW, HIGH)
    if grad_mu is not None:
        v = _read(grad_mu, grad_strides[1], b, c, place, inside, FLAT, COMPUTE)
    if grad_x is not None:
        g = _read(grad_x, grad_strides[0], b, c, place, inside, FLAT, COMPUTE)
        eps = _noise(
            noise, seed, image_strides[3], stream, top, first_quad, b, c, quad, place, inside, PER_SAMPLE, FLAT, COMPUTE
        )
        std = per_sample(log_std, std_stride, b, [BLOCK_C, BLOCK_P], COMPUTE)
        raw = tl.fma(std, eps, per_sample(log_mean, mean_stride, b, [BLOCK_C, BLOCK_P], COMPUTE))
        exp, expm1, _ = exponential(clamped(raw))
        through_x = g * exp
        v = v - g * expm1
        if d_noise is not None or mean_partials is not None or std_partials is not None:
            state = _read(x, image_strides[0], b, c, place, inside, FLAT, COMPUTE)
            slope = tl.where((raw < -20.0) | (raw > 20.0), 0.0, g * (state - target) * exp)
            if d_noise is not None:
                _write(d_noise, d_strides[2], b, c, place, inside, slope * std, FLAT)
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
        _write(d_x, d_strides[0], b, c, place, inside, through_x, FLAT)
    if d_mu is not None:
        _write(d_mu, d_strides[1], b, c, place, inside, v, FLAT)
    if d_deltas is not None or d_maps is not None or partials is not None:
        for k in tl.static_range(K):
            chart, delta_at, d_delta_at, channel_sums_at, d_map_at, sums_at = None, None, None, None, None, None
            gate = gate_of(gates, gate_stride, b, k, c, c_inside, PER_CHANNEL, COMPUTE)
            if maps is not None:
                chart = tl.load(_map_at(maps, map_stride, b, k, place, FLAT), mask=on_image, other=0.0).to(COMPUTE)
            if d_maps is not None or partials is not None:
                delta_at = _image(deltas[k], delta_strides[k], b, c, place, FLAT)
            if d_deltas is not None:
                d_delta_at = _image(d_deltas[k], d_delta_strides[k], b, c, place, FLAT)
            if d_maps is not None:
                d_map_at = _map_at(d_maps, d_map_stride, b, k, place, FLAT)
            if partials is not None:
                if PER_CHANNEL:
                    channel_sums_at = sums_of_channels(partials, partial_stride, b, k, c, t)
                else:
                    sums_at = _plane(partials, partial_stride, b, k) + t
            products = gradients_of_expert(
                v, delta_at, d_delta_at, channel_sums_at, gate, chart, inside, inside_sums, PER_CHANNEL, TILE
            )
            finish_expert(products, d_map_at, sums_at, gate, chart, on_image, on_sums, PER_CHANNEL, TILE)


def block_sizes(image: Tensor, light: bool = True) -> dict[str, int]:
    """Channels and pixels per program and its warps, as in the assembly, with half the elements per thread, since the
    transition keeps more of each, and a quarter where addresses or experts need registers, too (else 4 to 400 bytes
    spill)."""
    blocks = expert_assembly.block_sizes(image)
    return {**blocks, "num_warps": min(8, (2 if light else 4) * blocks["num_warps"])}


def _grid(
    image: Tensor, seeded: bool, left: int, experts: int, all_strides: list[tuple[int, int, int, int]]
) -> tuple[int, int, dict[str, Any]]:
    """(shift, programs, kernel arguments) of a walk over [B,C,H,W]. With a seed, quads lie on the grid of the whole
    image and a flat walk needs rows of whole quads; without one, the image may be a single row."""
    batch, channels, height, width = image.shape
    shift = left % 4 if seeded else 0
    flat = flat_pixels(width, all_strides) and (not seeded or (shift == 0 and width % 4 == 0))
    row_quads = triton.cdiv(height * width if flat and not seeded else shift + width, 4)
    quads = row_quads if flat and not seeded else height * row_quads
    blocks = block_sizes(image, flat and experts <= GROUP // 2)
    if not flat:
        blocks["BLOCK_P"] = max(TILE, blocks["BLOCK_P"] // 2)
    chunks = triton.cdiv(channels, blocks["BLOCK_C"])
    programs = batch * chunks * triton.cdiv(4 * quads, blocks["BLOCK_P"])
    arguments = {
        "size": (channels, height * width if flat else width, row_quads, quads, chunks),
        "FLAT": flat,
        "INDEX": index_type(4 * quads),
        **blocks,
    }
    return shift, programs, arguments


def _assembled_type(deltas: list[Tensor], base: Tensor | None) -> torch.dtype:
    dtype = deltas[0].dtype
    for tensor in (*deltas, base):
        dtype = dtype if tensor is None else torch.promote_types(dtype, tensor.dtype)
    return dtype


def _kept(experts: tuple[Tensor, ...], gates: Tensor, maps: Tensor | None, base: Tensor | None, torch_type: torch.dtype,
          image: Tensor) -> tuple[tuple[Tensor, ...], Tensor, Tensor | None, Tensor | None]:  # fmt: skip
    """The last 8 experts; the sum of those before them, unrounded, becomes their base."""
    first = max(0, len(experts) - GROUP)
    if first:
        partial = torch.empty_like(image, dtype=torch_type)
        expert_assembly.forward(
            partial, list(experts[:first]), gates[:, :first], None if maps is None else maps[:, :first], base
        )
        base = partial
    return experts[first:], gates[:, first:], None if maps is None else maps[:, first:], base


def _constants(
    x: Tensor, deltas: list[Tensor], gates: Tensor, base: Tensor | None, anchor: Tensor | None, low: float, high: float,
    seed: Tensor | None, compute: tl.dtype,
) -> dict[str, Any]:  # fmt: skip
    """What is the same for both kernels. The bounds are rounded to mu's dtype, as in torch.clamp."""
    assembled = _assembled_type(deltas, base)
    target = torch.promote_types((x if anchor is None else anchor).dtype, assembled)
    low, high = torch.tensor([low, high], dtype=torch.float64).to(target).double().tolist()
    return {
        "PER_CHANNEL": gates.dim() == 3,
        "PER_SAMPLE": seed is not None and seed.numel() > 1,
        "LOW": low,
        "HIGH": high,
        "COMPUTE": compute,
        "ASSEMBLED": TYPES[assembled],
        "TARGET": TYPES[target],
    }


def forward(
    x_next: Tensor,
    mu: Tensor,
    x: Tensor,
    deltas: list[Tensor],
    gates: Tensor,
    maps: Tensor | None,
    base: Tensor | None,
    log_mean: Tensor,
    log_std: Tensor,
    anchor: Tensor | None,
    low: float,
    high: float,
    noise: Tensor | None,
    seed: Tensor | None,
    stream: int,
    top: int,
    left: int,
) -> None:
    """Fill x_next and mu [B,C,H,W]; exactly one of noise [B,C,H,W] and seed (int64 [1] or [B]) is not None."""
    torch_type, compute = compute_type(x, *deltas, gates, maps, base, log_mean, log_std, anchor, noise)
    constants = _constants(x, deltas, gates, base, anchor, low, high, seed, compute)
    experts, gates, maps, base = _kept(experts_of(deltas, x.shape[0]), gates, maps, base, torch_type, mu)
    image_strides = tuple(strides(t) for t in (x, base, anchor, noise))
    delta_strides = tuple(strides(d) for d in experts)
    others = strides(x_next), strides(mu), strides(maps)
    shift, programs, grid = _grid(
        x_next, seed is not None, left, len(experts), [*image_strides, *delta_strides, *others]
    )
    launch(
        _forward_kernel, programs, x.device,
        x_next, mu, x, experts, gates, maps, base, anchor, log_mean, log_std, noise, seed,
        stream, top, left // 4, shift,
        next_stride=others[0], mu_stride=others[1], image_strides=image_strides, delta_strides=delta_strides,
        gate_stride=gate_strides(gates), map_stride=others[2],
        mean_stride=log_mean.stride(0), std_stride=log_std.stride(0), K=len(experts), **constants, **grid,
    )  # fmt: skip


def backward(
    grad_x: Tensor | None,
    grad_mu: Tensor | None,
    x: Tensor,
    deltas: list[Tensor],
    gates: Tensor,
    maps: Tensor | None,
    base: Tensor | None,
    log_mean: Tensor,
    log_std: Tensor,
    anchor: Tensor | None,
    low: float,
    high: float,
    noise: Tensor | None,
    seed: Tensor | None,
    stream: int,
    top: int,
    left: int,
    d_x: Tensor | None,
    d_deltas: list[Tensor],
    d_gates: Tensor | None,
    d_maps: Tensor | None,
    d_mu: Tensor | None,
    d_log_mean: Tensor | None,
    d_log_std: Tensor | None,
    d_noise: Tensor | None,
) -> None:
    """Fill those gradients that are there. One pass where a program holds all channels and experts of its pixels; else
    (more than 8 experts, deltas shared by the batch, many channels) v goes to memory and the assembly's backward kernel
    takes it from there."""
    batch, channels = x.shape[:2]
    torch_type, compute = compute_type(grad_x, grad_mu, x, *deltas, gates, maps, base, log_mean, log_std, anchor, noise)
    constants = _constants(x, deltas, gates, base, anchor, low, high, seed, compute)
    assembly = deltas, gates, maps
    of_assembly = bool(d_deltas) or d_gates is not None or d_maps is not None
    d_experts = experts_of(d_deltas, d_deltas[0].shape[0]) if d_deltas else ()
    like = next(t for t in (d_x, d_mu, d_noise, *d_experts, grad_x, grad_mu) if t is not None and len(t) == batch)
    experts = experts_of(deltas, batch)
    shared = any(len(d) < batch for d in d_experts)
    fused = of_assembly and len(experts) <= GROUP and channels <= block_sizes(like)["BLOCK_C"] and not shared
    v = torch.empty_like(like, dtype=torch_type) if of_assembly and not fused else d_mu
    experts, gates, maps, base = _kept(experts, gates, maps, base, torch_type, like)
    results, d_charts = (d_experts or None, d_maps) if fused else (None, None)

    image_strides = tuple(strides(t) for t in (x, base, anchor, noise))
    grad_strides = strides(grad_x), strides(grad_mu)
    d_strides = strides(d_x), strides(v), strides(d_noise)
    delta_strides, d_delta_strides = (tuple(strides(d) for d in group or ()) for group in (experts, results))
    maps_strides = strides(maps), strides(d_charts)
    every = [*image_strides, *grad_strides, *d_strides, *delta_strides, *d_delta_strides, *maps_strides]
    shift, programs, grid = _grid(like, seed is not None, left, len(experts), every)
    sums = triton.cdiv(4 * grid["size"][3], TILE)

    def partials_of(result: Tensor | None, *rows: int) -> Tensor | None:
        return None if result is None else empty_partials((batch, *rows, sums), torch_type, like)

    mean_partials, std_partials = partials_of(d_log_mean, channels), partials_of(d_log_std, channels)
    gate_partials = partials_of(d_gates if fused else None, len(experts), *(gates.shape[2:] or (1,)))
    of_exponent = any(t is not None for t in (d_log_mean, d_log_std, d_noise))
    launch(
        _backward_kernel, programs, like.device,
        grad_x, grad_mu, x, experts, gates, maps, base, anchor, log_mean, log_std, noise, seed,
        stream, top, left // 4, shift,
        d_x, results, d_charts, v, d_noise, gate_partials, mean_partials, std_partials,
        sums=sums, grad_strides=grad_strides, image_strides=image_strides, delta_strides=delta_strides,
        gate_stride=gate_strides(gates), map_stride=maps_strides[0],
        mean_stride=log_mean.stride(0), std_stride=log_std.stride(0),
        d_strides=d_strides, d_delta_strides=d_delta_strides, d_map_stride=maps_strides[1],
        partial_stride=(0, 0, 0) if gate_partials is None else gate_partials.stride()[:3],
        K=len(experts), TILE=TILE, NEEDS_MU=of_exponent or of_assembly or v is not None or anchor is None,
        **constants, **grid,
    )  # fmt: skip
    for partials, result in ((mean_partials, d_log_mean), (std_partials, d_log_std), (gate_partials, d_gates)):
        if partials is not None:
            rows = partials.view(*result.shape, -1) if result is not d_gates else partials
            sum_rows(rows, result)
    if of_assembly and not fused:
        if d_mu is not None:
            d_mu.copy_(v)
        expert_assembly.backward(v, *assembly, d_deltas, d_gates, d_maps)
