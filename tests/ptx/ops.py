"""The six ops as formulas in plain PyTorch, and their arguments in the layouts, dtypes and sizes of the contract."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import f2d_kernels
from tests.kernels.cases import lay_out, random
from tests.kernels.group_norm_cases import two_pass

Tensors = list[Tensor | None]
CLAMP = (-0.75, 1.0)
FAR = 2**31 + 64
SEED, STREAM, WINDOW = 5, 3, (7, 5)


@dataclass(frozen=True)
class Case:
    """One call of an op. noise: "seed" (drawn), "given" or, for gaussian_transition, "none"."""

    op: str
    dtype: torch.dtype = torch.float32
    layout: str = "contiguous"
    size: tuple[int, int] = (8, 16)
    channels: int = 3
    batch: int = 2
    noise: str = "seed"
    window: tuple[int, int] = (0, 0)
    options: dict[str, Any] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        noise = self.noise if self.op.endswith(("transition", "step")) else ""
        options = [f"{name}={value}" for name, value in self.options.items()]
        window = "window" if any(self.window) else ""
        shape = f"{self.batch}x{self.channels}x{self.size[0]}x{self.size[1]}"
        words = [self.op, str(self.dtype)[6:], self.layout, shape, noise, window, *options]
        return " ".join(filter(None, words))

    def image(self, seed: int, *lead: int, dtype: torch.dtype | None = None) -> Tensor:
        shape = (self.batch, *lead, self.channels, *self.size)
        if self.layout == "far":  # samples more than 2^31 elements apart, in memory of which the rest is never touched
            room = torch.empty((self.batch - 1) * FAR + 2**16, dtype=dtype or self.dtype)
            image = room.as_strided(shape, (FAR, *torch.empty(shape[1:]).stride()))
            return image.copy_(random(*shape, seed=seed))
        return lay_out(random(*shape, seed=seed, dtype=dtype or self.dtype), self.layout)

    def maps(self, seed: int, experts: int) -> Tensor:
        values = random(self.batch, experts, *self.size, seed=seed, dtype=self.dtype)
        if self.options.get("packed"):  # as cut from another tensor, behind one number: no vector is aligned
            behind = torch.cat([torch.zeros(1, dtype=self.dtype), values.flatten()])[1:]
            return behind.view(values.shape)
        return lay_out(values, self.layout if self.layout != "channels_last" else "contiguous")

    @property
    def small(self) -> torch.dtype:
        """Of gates, schedules and weights: float32, or float64 as all the rest."""
        return torch.float64 if self.dtype == torch.float64 else torch.float32


@dataclass(frozen=True)
class Problem:
    """leaves: what wants a gradient. ours(*leaves, eps): the op; formula: the same in plain PyTorch, with eps given.
    exact_bits: which results, and which gradients, are equal to the C++ backend's bit for bit (docs/numerics.md)."""

    leaves: Tensors
    ours: Callable[..., Any]
    formula: Callable[..., Any]
    equal_results: tuple[int, ...] = (0,)
    equal_gradients: tuple[int, ...] = ()


def _assembled(deltas: Tensor, gates: Tensor, maps: Tensor | None, base: Tensor | None) -> Tensor:
    weight = (gates if gates.dim() == 3 else gates[:, :, None])[..., None, None]
    weight = weight if maps is None else weight * maps[:, :, None]
    total = (weight * deltas).sum(1)
    return total if base is None else total + base


def _column(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)


def _transition(x: Tensor, mu: Tensor, log_mean: Tensor, log_std: Tensor, eps: Tensor) -> Tensor:
    return mu + (x - mu) * (_column(log_mean) + _column(log_std) * eps).clamp(-20, 20).exp()


def _noise(case: Case, eps: Tensor | None) -> dict[str, Any]:
    if case.noise == "none":
        return {}
    if case.noise == "given":
        return {"noise": eps}
    return {"seed": SEED, "stream": STREAM, "window": case.window}


def _experts(case: Case) -> Tensors:
    experts, options = case.options.get("experts", 4), case.options
    if case.layout == "far":
        deltas = case.image(0, experts).mul_(0.5)
    else:
        deltas = 0.5 * case.image(0, experts)
        deltas = lay_out((deltas[:1] if options.get("shared") else deltas).to(case.dtype), case.layout)
    shape = (case.batch, experts, case.channels) if options.get("per_channel") else (case.batch, experts)
    bare = options.get("bare")
    return [deltas, random(*shape, seed=1, dtype=case.small), None if bare else case.maps(2, experts),
            None if bare else case.image(3)]  # fmt: skip


def assembly(case: Case) -> Problem:
    leaves = _experts(case)
    listed = case.options.get("listed")

    def ours(deltas: Tensor, gates: Tensor, maps: Tensor | None, base: Tensor | None, _: Any) -> Tensor:
        return f2d_kernels.expert_assembly(list(deltas.unbind(1)) if listed else deltas, gates, maps, base)

    equal = (3,) if case.options.get("shared") else (0, 3)
    return Problem(leaves, ours, lambda *a: _assembled(*a[:-1]), (0,), equal)


def lognormal(case: Case) -> Problem:
    schedule = [0.3 * random(case.batch, seed=3, dtype=case.small), 0.4 * random(case.batch, seed=4, dtype=case.small)]

    def ours(x: Tensor, mu: Tensor, log_mean: Tensor, log_std: Tensor, eps: Tensor | None) -> Tensor:
        return f2d_kernels.lognormal_transition(x, mu, log_mean, log_std, **_noise(case, eps))

    return Problem([case.image(0), case.image(1), *schedule], ours, _transition, (0,), (0, 1))


def transport(case: Case) -> Problem:
    experts = _experts(case)
    schedule = [
        -0.5 * random(case.batch, seed=7, dtype=case.small).abs(),
        0.4 * random(case.batch, seed=8, dtype=case.small),
    ]
    anchor = case.image(9) if case.options.get("anchor") else None
    x = case.image(5)
    for _ in range(3):  # no sum so near to a bound that 16 bits clamp another element than float64 does
        total = _assembled(*[None if t is None else t.double() for t in experts])
        total = total + (x if anchor is None else anchor).double()
        near = sum(((total - bound).abs() < 0.1).double() for bound in CLAMP)
        moved = (x if anchor is None else anchor).double() + 0.4 * near
        moved = lay_out(moved.to(case.dtype), "contiguous" if case.layout == "far" else case.layout)
        x, anchor = (moved, None) if anchor is None else (x, moved)

    def step(function: Callable, x: Tensor, deltas: Tensor, gates: Tensor, maps: Any, base: Any, log_mean: Tensor,
             log_std: Tensor, anchor: Tensor | None, **noise: Any) -> Any:  # fmt: skip
        listed = list(deltas.unbind(1)) if case.options.get("listed") else deltas
        return function(x, listed, gates, maps, base, log_mean, log_std, anchor=anchor, clamp=CLAMP, **noise)

    frozen = case.options.get("frozen")  # only x and the schedule get gradients

    def ours(x: Tensor, *a: Any) -> Any:
        *rest, eps = (*experts, *a[4:]) if frozen else a
        return step(f2d_kernels.transport_step, x, *rest, **_noise(case, eps))

    def formula(x: Tensor, deltas: Tensor, gates: Tensor, maps: Any, base: Any, log_mean: Tensor, log_std: Tensor,
                anchor: Tensor | None, eps: Tensor) -> tuple[Tensor, Tensor]:  # fmt: skip
        if frozen:
            wide = x.dtype == torch.float64
            deltas, gates, maps, base = (t.double() if wide and t is not None else t for t in experts)
        start = x if anchor is None else anchor  # rounded where the two ops would store
        mu = (start + _assembled(deltas, gates, maps, base).to(x.dtype)).clamp(*CLAMP)
        return _transition(x, mu, log_mean, log_std, eps), mu

    equal = (0, 4, 7) if case.options.get("shared") else (0, 1, 4, 7)
    leaves = [x, *([None] * 4 if frozen else experts), *schedule, anchor]
    return Problem(leaves, ours, formula, (0, 1), equal)


def gaussian(case: Case) -> Problem:
    terms, count = case.options.get("terms", 2), case.batch
    std = None if case.noise == "none" else random(count, seed=2, dtype=case.small)

    def ours(coefficients: Tensor, std: Tensor | None, *rest: Any) -> Tensor:
        return f2d_kernels.gaussian_transition(
            rest[:-1], coefficients, 0 if std is None else std, **_noise(case, rest[-1])
        )

    def formula(coefficients: Tensor, std: Tensor | None, *rest: Any) -> Tensor:
        total = sum(_column(coefficients[:, j]) * term for j, term in enumerate(rest[:-1]))
        return total if std is None else total + _column(std) * rest[-1]

    images = [case.image(10 + j) for j in range(terms)]
    leaves = [random(count, terms, seed=1, dtype=case.small), std, *images]
    return Problem(leaves, ours, formula, (0,), tuple(range(2, 2 + terms)))


def head(case: Case) -> Problem:
    experts, features = case.options.get("experts", 3), case.options.get("features", 5)
    shape = (case.batch, experts, features, *case.size)
    stack = lay_out(random(*shape, seed=0, dtype=case.dtype), case.layout)
    small = [random(*s, seed=1 + i, dtype=case.small) for i, s in enumerate(
        [(experts, case.channels, features), (experts, case.channels), (case.batch, experts, features),
         (case.batch, experts)])]  # fmt: skip

    def formula(features: Tensor, weight: Tensor, bias: Tensor, scale: Tensor, gates: Tensor, maps: Tensor,
                base: Tensor, _: Any) -> Tensor:  # fmt: skip
        scaled = scale[..., None, None] * features
        each = torch.einsum("kcf,bkfhw->bkchw", weight, scaled.to(weight.dtype)) + bias[None, :, :, None, None]
        return _assembled(each, gates, maps, base)

    return Problem([stack, *small, case.maps(8, experts), case.image(9)], lambda *a: f2d_kernels.expert_head(*a[:-1]),
                   formula, (), (6,))  # fmt: skip


def norm(case: Case) -> Problem:
    groups = case.options.get("groups", 1)
    parameters = [random(*s, seed=1 + i, dtype=case.small) for i, s in enumerate(
        [(case.channels,), (case.channels,), (case.batch, case.channels), (case.batch, case.channels)])]  # fmt: skip

    def ours(x: Tensor, *rest: Any) -> Any:
        return f2d_kernels.group_norm_silu(x, groups, *rest[:-1], return_mean=True)

    def formula(x: Tensor, weight: Tensor, bias: Tensor, scale: Tensor, shift: Tensor, _: Any) -> Any:
        dtype = torch.promote_types(x.dtype, weight.dtype)
        normed = two_pass(x.to(dtype), groups, weight, bias)
        out = F.silu(normed * (1 + scale[..., None, None]) + shift[..., None, None])
        return out, out.mean((2, 3))

    return Problem([case.image(0), *parameters], ours, formula, (), ())


PROBLEMS = {"expert_assembly": assembly, "lognormal_transition": lognormal, "transport_step": transport,
            "gaussian_transition": gaussian, "expert_head": head, "group_norm_silu": norm}  # fmt: skip
