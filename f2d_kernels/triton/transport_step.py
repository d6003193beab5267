"""mu = clamp(anchor + assembly), x_next = transition of x to mu, in Triton: forward kernel and launcher."""

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from f2d_kernels.arguments import TransportStep
from f2d_kernels.triton._groups import GROUP, experts_of
from f2d_kernels.triton._launch import compute_type, launch, strides
from f2d_kernels.triton._quads import POSITION, per_sample
from f2d_kernels.triton._transport import (
    constants_of,
    grid_of,
    last_experts,
    limited,
    locate,
    noise_of,
    total_of,
    write,
)
from f2d_kernels.triton.expert_assembly import gate_strides
from f2d_kernels.triton.lognormal_transition import stepped
from f2d_kernels.triton.transport_step_backward import backward

__all__ = ["backward", "forward"]


@triton.jit(do_not_specialize=POSITION)
def _forward_kernel(
    x_next, mu, x, deltas, gates, maps, base, anchor, log_mean, log_std, noise, seed, stream, top, first_quad, shift,
    size, next_stride, mu_stride, image_strides, delta_strides, gate_stride, map_stride, mean_stride, std_stride,
    K: tl.constexpr, PER_CHANNEL: tl.constexpr, PER_SAMPLE: tl.constexpr, LOW: tl.constexpr, HIGH: tl.constexpr,
    FLAT: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr, INDEX: tl.constexpr, COMPUTE: tl.constexpr,
    ASSEMBLED: tl.constexpr, TARGET: tl.constexpr,
):  # fmt: skip
    b, _, c, quad, place, on_image = locate(size, shift, BLOCK_C, BLOCK_P, FLAT, INDEX)
    c_inside = c < size[0]
    inside = c_inside[:, None] & on_image[None, :]
    total, state, _, _ = total_of(
        x, deltas, gates, maps, base, anchor, image_strides, delta_strides, gate_stride, map_stride, b, c, place,
        c_inside, on_image, K, PER_CHANNEL, FLAT, COMPUTE, ASSEMBLED, TARGET,
    )  # fmt: skip
    target, _ = limited(total, LOW, HIGH)
    write(mu, mu_stride, b, c, place, inside, target, FLAT)
    eps = noise_of(
        noise, seed, image_strides[3], stream, top, first_quad, b, c, quad, place, inside, PER_SAMPLE, FLAT, COMPUTE
    )
    mean = per_sample(log_mean, mean_stride, b, [BLOCK_C, BLOCK_P], COMPUTE)
    std = per_sample(log_std, std_stride, b, [BLOCK_C, BLOCK_P], COMPUTE)
    write(x_next, next_stride, b, c, place, inside, stepped(state.to(COMPUTE), target, tl.fma(std, eps, mean)), FLAT)


def forward(x_next: Tensor, mu: Tensor, *arguments: Any) -> None:
    """Fill x_next and mu [B,C,H,W]; exactly one of noise [B,C,H,W] and seed (int64 [1] or [B]) is not None."""
    a = TransportStep(*arguments)
    torch_type, compute = compute_type(a.x, *a.deltas, *a[2:8], a.noise)
    constants = constants_of(a, compute)
    experts, gates, maps, base = last_experts(experts_of(a.deltas, len(a.x)), a.gates, a.maps, a.base, torch_type, mu)
    image_strides = tuple(strides(t) for t in (a.x, base, a.anchor, a.noise))
    delta_strides = tuple(strides(d) for d in experts)
    others = strides(x_next), strides(mu), strides(maps)
    shift, programs, grid = grid_of(
        x_next, a.seed is not None, a.left, len(experts) <= GROUP // 2, [*image_strides, *delta_strides, *others]
    )
    launch(
        _forward_kernel, programs, a.x.device,
        x_next, mu, a.x, experts, gates, maps, base, a.anchor, a.log_mean, a.log_std, a.noise, a.seed,
        a.stream, a.top, a.left // 4, shift,
        next_stride=others[0], mu_stride=others[1], image_strides=image_strides, delta_strides=delta_strides,
        gate_stride=gate_strides(gates), map_stride=others[2],
        mean_stride=a.log_mean.stride(0), std_stride=a.log_std.stride(0), K=len(experts), **constants, **grid,
    )  # fmt: skip
