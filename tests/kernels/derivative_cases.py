"""Every op as a function of float64 tensors, beside its formula in plain PyTorch, for tests of derivatives."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F

from f2d_kernels import (
    expert_assembly,
    expert_head,
    gaussian_transition,
    group_norm_silu,
    lognormal_transition,
    transport_step,
)
from f2d_kernels.reference.philox import normal

from .cases import DEVICE, random

SIZE = (2, 2, 2, 3)  # B, C, H, W; K = 2 experts of F = 2 features
SEED = 5


class Case(NamedTuple):
    op: Callable[..., torch.Tensor | tuple[torch.Tensor, ...]]
    formula: Callable[..., torch.Tensor | tuple[torch.Tensor, ...]]
    shapes: list[tuple[int, ...]]

    def inputs(self, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
        return [random(*shape, seed=i).to(dtype) for i, shape in enumerate(self.shapes)]


def drawn() -> torch.Tensor:
    """The noise of SEED on stream 1 as float64; tests/kernels/test_noise.py checks it against the textbook."""
    return normal(torch.Size(SIZE), torch.tensor([SEED], device=DEVICE), 1, 0, 0).float().double()


def assembly(deltas, gates, maps, base):
    return base + torch.einsum("bk...,bkhw,bkchw->bchw", gates, maps, deltas)


def head(features, weight, bias, scale, gates, maps, base):
    deltas = torch.einsum("kcf,bkf,bkfhw->bkchw", weight, scale, features) + bias[:, :, None, None]
    return assembly(deltas, gates, maps, base)


def lognormal(x, mu, log_mean, log_std, eps):
    return mu + (x - mu) * torch.exp(log_mean[:, None, None, None] + log_std[:, None, None, None] * eps)


def transport(x, deltas, gates, maps, base, log_mean, log_std, eps):
    mu = (x + assembly(deltas, gates, maps, base)).clamp(-1, 1)
    return lognormal(x, mu, log_mean, log_std, eps), mu


def gaussian(first, second, coefficients, std, eps):
    c = coefficients[:, :, None, None, None]
    return c[:, 0] * first + c[:, 1] * second + std[:, None, None, None] * eps


def norm(x, weight, bias, scale, shift):
    u = F.group_norm(x, 1, weight, bias, 1e-5) * (1 + scale[..., None, None]) + shift[..., None, None]
    return F.silu(u), F.silu(u).mean((2, 3))


B, C, H, W = SIZE
EXPERTS = [(B, 2, C, H, W), (B, 2), (B, 2, H, W), SIZE]
CASES = {
    "expert_assembly": Case(expert_assembly, assembly, EXPERTS),
    "expert_assembly of a list": Case(
        lambda first, second, *rest: expert_assembly([first, second], *rest),
        lambda first, second, *rest: assembly(torch.stack([first, second], 1), *rest),
        [SIZE, SIZE, *EXPERTS[1:]],
    ),
    "expert_head": Case(expert_head, head, [(B, 2, 2, H, W), (2, C, 2), (2, C), (B, 2, 2), *EXPERTS[1:]]),
    "lognormal_transition": Case(
        lambda *a: lognormal_transition(*a[:4], noise=a[4]), lognormal, [SIZE, SIZE, (B,), (B,), SIZE]
    ),
    "lognormal_transition of a seed": Case(
        lambda *a: lognormal_transition(*a, seed=SEED, stream=1),
        lambda *a: lognormal(*a, drawn()),
        [SIZE, SIZE, (B,), (B,)],
    ),
    "transport_step": Case(
        lambda *a: transport_step(*a[:-1], noise=a[-1]), transport, [SIZE, *EXPERTS, (B,), (B,), SIZE]
    ),
    "transport_step of a seed": Case(
        lambda *a: transport_step(*a, seed=SEED, stream=1),
        lambda *a: transport(*a, drawn()),
        [SIZE, *EXPERTS, (B,), (B,)],
    ),
    "gaussian_transition": Case(
        lambda first, second, c, std, eps: gaussian_transition([first, second], c, std, noise=eps),
        gaussian,
        [SIZE, SIZE, (B, 2), (B,), SIZE],
    ),
    "gaussian_transition of a seed": Case(
        lambda first, second, *a: gaussian_transition([first, second], *a, seed=SEED, stream=1),
        lambda *a: gaussian(*a, drawn()),
        [SIZE, SIZE, (B, 2), (B,)],
    ),
    "group_norm_silu": Case(
        lambda x, *a: group_norm_silu(x, 1, *a, return_mean=True), norm, [SIZE, (C,), (C,), (B, C), (B, C)]
    ),
}
