"""What the contract tests of all ops need to know about each: calls, small arguments, samples of their schemas."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from f2d_kernels import (
    expert_assembly,
    expert_head,
    gaussian_transition,
    group_norm_silu,
    lognormal_transition,
    transport_step,
)

from . import group_norm_cases, test_expert_head, test_gaussian_transition, transport_cases
from .cases import DEVICE, lay_out, random

OPS = torch.ops.f2d_kernels
LAST = torch.channels_last


@dataclass(frozen=True)
class Contract:
    """One op, or two in one step.

    step(*leaves(size), seed) -> a tensor or several, differentiable in every leaf; names: its ops. mapped: the leaf
    that vmap maps over. samples: `count` pairs (op, arguments) for opcheck. subsets: sets of leaves of
    some_step(*some_leaves(size)) that require gradients, on each of `backends`; exact: whether their gradients are
    bit-exact with those of all leaves together.
    """

    names: tuple[str, ...]
    step: Callable[..., Any]
    leaves: Callable[[tuple[int, int]], list[Tensor]]
    mapped: int
    samples: Callable[[], Iterator[tuple[Any, tuple]]]
    count: int
    subsets: Sequence[tuple[int, ...]] = ()
    backends: Sequence[Any] = ("reference",)
    exact: bool = False
    some_step: Callable[..., Any] = expert_assembly
    some_leaves: Callable[[tuple[int, int]], list[Tensor]] = list

    def __str__(self) -> str:
        return "+".join(self.names)


def assembly_leaves(size: tuple[int, int]) -> list[Tensor]:
    experts = [random(2, 3, 2, *size, seed=0), random(2, 3, seed=1), random(2, 3, *size, seed=2)]
    return [*experts, random(2, 2, *size, seed=3)]


def transition_leaves(dtype: torch.dtype = torch.float32) -> list[Tensor]:
    x, mu, noise = (random(2, 3, 4, 5, seed=s) for s in range(3))
    return [t.to(dtype) for t in (x, mu, -random(2, seed=3).abs(), random(2, seed=4).abs(), noise)]


def assembled(deltas: Tensor, gates: Tensor, maps: Tensor, base: Tensor, seed: Any) -> Tensor:
    return lognormal_transition(base, expert_assembly(deltas, gates, maps, base), -1.0, 0.5, seed=seed, window=(1, 2))


def assembly_samples() -> Iterator[tuple[Any, tuple]]:
    deltas, gates, maps, base = (t.requires_grad_() for t in assembly_leaves((4, 5)))
    yield OPS.expert_assembly.default, ([deltas], gates, maps, base)
    yield OPS.expert_assembly.default, ([deltas.detach()], gates, None, None)
    yield OPS.expert_assembly.default, (list(deltas.detach().bfloat16().unbind(1)), gates.detach(), maps, None)
    arguments = (base.detach(), [deltas.detach()], gates.detach(), maps.detach(), False, [True, True, True], "auto")
    yield OPS.expert_assembly_backward.default, arguments
    *state, noise = (t.requires_grad_() for t in transition_leaves())
    yield OPS.lognormal_transition.default, (*state, noise, None, 1, 2, 3)
    yield OPS.lognormal_transition.default, (*state, None, torch.tensor([5], device=DEVICE), 1, 2, 3)
    detached = [t.detach() for t in (*state, noise)]
    arguments = (detached[0], *detached, None, 0, 0, 0, False, [True] * 5, "auto")
    yield OPS.lognormal_transition_backward.default, arguments


def head_samples() -> Iterator[tuple[Any, tuple]]:
    features, weight, bias, scale, gates, maps, base = head_leaves((4, 5))
    leaves = [a.clone().requires_grad_() for a in (weight, bias, scale, gates, maps, base)]
    yield OPS.expert_head.default, ([features.clone().requires_grad_()], *leaves)
    yield OPS.expert_head.default, ([features], leaves[0], None, None, leaves[3], None, None)
    last = lay_out(features, "channels_last").bfloat16()
    yield OPS.expert_head.default, (list(last.unbind(1)), weight, bias, leaves[2], gates, maps, None)
    common = (base, [features], weight, bias, scale, gates, maps)
    yield OPS.expert_head_backward.default, (*common, False, [True] * 6, "auto")
    yield OPS.expert_head_backward.default, (*common, True, [True, False, False, True, False, True], "auto")


def head_leaves(size: tuple[int, int]) -> list[Tensor]:
    return [a.detach() for a in test_expert_head.inputs(2, 3, 16, 3, size)]


def gaussian_leaves(size: tuple[int, int], terms: int = 2) -> list[Tensor]:
    of_each, *others = test_gaussian_transition.inputs(2, terms, 3, size)
    return [*of_each, *others]


def gaussian(x: Tensor, mu: Tensor, coefficients: Tensor, std: Tensor, seed: Any) -> tuple[Tensor, Tensor]:
    noisy = gaussian_transition([x, mu], coefficients, std, seed=seed, window=(1, 2))
    return noisy, gaussian_transition([noisy, mu], [0.75, 0.25], 0.0)


def gaussian_samples() -> Iterator[tuple[Any, tuple]]:
    *terms, coefficients, std, noise = (t.requires_grad_() for t in gaussian_leaves((4, 5)))
    seed = torch.tensor([5], device=DEVICE)
    yield OPS.gaussian_transition.default, (terms, coefficients, std, noise, None, 1, 2, 3)
    yield OPS.gaussian_transition.default, (terms, coefficients, std, None, seed, 1, 2, 3)
    yield OPS.gaussian_transition.default, ([t.detach() for t in terms], coefficients, None, None, None, 0, 0, 0)
    detached = [t.detach() for t in terms], coefficients.detach(), std.detach(), noise.detach(), None
    for needs in ([True] * 5, [False, True, False, False, True]):
        yield OPS.gaussian_transition_backward.default, (detached[-2], *detached, 0, 0, 0, False, needs, "auto")


def norm_leaves(size: tuple[int, int]) -> list[Tensor]:
    return group_norm_cases.inputs(2, 4, size, torch.float32)


def normed(x: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
    return group_norm_silu(x, 2, *parameters, return_mean=True)


def norm_samples() -> Iterator[tuple[Any, tuple]]:
    x, *parameters = (a.requires_grad_() for a in norm_leaves((3, 5)))
    yield OPS.group_norm_silu.default, (x, 2, *parameters, 1e-5, True)
    yield OPS.group_norm_silu.default, (x.detach().bfloat16(), 4, None, None, None, parameters[3], 1e-5, False)
    last = x.detach().contiguous(memory_format=LAST).requires_grad_()
    yield OPS.group_norm_silu.default, (last, 1, *parameters[:2], None, None, 0.0, True)
    detached = [a.detach() for a in (x, *parameters)]
    statistics = [torch.zeros(2, 2, dtype=torch.float64, device=DEVICE) + value for value in (0.0, 1.0)]
    arguments = (detached[0], detached[3], *statistics, *detached, False, [True] * 5, "auto")
    yield OPS.group_norm_silu_backward.default, arguments


def stepped(*arguments: Any) -> tuple[Tensor, Tensor]:
    *leaves, seed = arguments
    return transport_cases.call(transport_step, [*leaves, None], seed=seed, window=(1, 2))


def transport_samples() -> Iterator[tuple[Any, tuple]]:
    leaves = [t.requires_grad_() for t in transport_cases.inputs(2, 3, 2, (4, 5))]
    x, deltas, gates, maps, base, log_mean, log_std, anchor, noise = leaves
    rest = (-0.75, 1.0, noise, None, 1, 2, 3)
    yield OPS.transport_step.default, (x, [deltas], gates, maps, base, log_mean, log_std, anchor, *rest)
    seeded = (-0.75, 1.0, None, torch.tensor([5], device=DEVICE), 1, 2, 3)
    parts = list(deltas.detach().bfloat16().unbind(1))
    yield OPS.transport_step.default, (x, parts, gates, None, None, log_mean.detach(), log_std, None, *seeded)
    arguments = (x, [deltas], gates, maps, base, log_mean, log_std, anchor)
    detached = [[t[0].detach()] if isinstance(t, list) else t.detach() for t in arguments]
    tail = (*rest[:2], noise.detach(), *rest[3:], [False, False])
    yield OPS.transport_step_backward.default, (x.detach(), x.detach(), *detached, *tail, [True] * 9, "auto")
    needs = [True, False, True, False, False, True, False, False, False]
    yield OPS.transport_step_backward.default, (x.detach(), None, *detached, *tail, needs, "auto")


CONTRACTS = (
    Contract(
        ("expert_assembly", "lognormal_transition"),
        *(assembled, assembly_leaves, 1, assembly_samples, 7),
        subsets=((0,), (1,), (2,), (3,), (0, 2), (1, 3)),
        backends=("reference",) if DEVICE == "cuda" else ("cpp",),
        some_step=expert_assembly,
        some_leaves=assembly_leaves,
    ),
    Contract(
        ("expert_head",),
        *(lambda *arguments: expert_head(*arguments[:-1]), head_leaves, 4, head_samples, 5),
        subsets=(*((i,) for i in range(7)), (0, 2), (1, 4), (3, 5)),
        backends=test_expert_head.SWEEP,
        some_step=expert_head,
        some_leaves=head_leaves,
    ),
    Contract(
        ("gaussian_transition",),
        *(gaussian, lambda size: gaussian_leaves(size)[:4], 2, gaussian_samples, 5),
        subsets=((), (0,), (1,), (0, 2), (3,), (4,), (5,), (1, 4), (3, 4, 5)),
        backends=("reference", "cpp"),
        exact=True,
        some_step=lambda *leaves: gaussian_transition(leaves[:3], *leaves[3:5], noise=leaves[5]),
        some_leaves=lambda size: gaussian_leaves(size, 3),
    ),
    Contract(
        ("group_norm_silu",),
        *(lambda *arguments: normed(*arguments[:-1]), norm_leaves, 0, norm_samples, 4),
        subsets=((0,), (1,), (2,), (3,), (4,), (0, 3), (1, 4)),
        backends=group_norm_cases.BACKENDS,
        exact=True,
        some_step=normed,
        some_leaves=norm_leaves,
    ),
    Contract(
        ("transport_step",), *(stepped, lambda size: transport_cases.inputs(2, 3, 2, size)[:8], 2, transport_samples, 4)
    ),
    Contract(  # the noise is given
        ("transport_step",),
        lambda *arguments: transport_cases.call(transport_step, arguments[:-1]),
        *(lambda size: transport_cases.inputs(2, 3, 2, size), 2, lambda: iter(()), 0),
    ),
)
