"""Every launch of every Triton launcher is run again, as the autotuner does, and must give the same bits."""

import inspect
import pkgutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module

import pytest
import torch
from torch import Tensor

from f2d_kernels import expert_assembly, expert_head, gaussian_transition, group_norm_silu, lognormal_transition
from f2d_kernels.ops.transport_step import transport_step

from .cases import DEVICE, random
from .support import running_on

triton = pytest.importorskip("triton")

import f2d_kernels.triton as package  # noqa: E402

if (reason := package.unavailable_reason(DEVICE)) is not None:
    pytest.skip(f"triton: {reason}", allow_module_level=True)

MODULES = [import_module(f"{package.__name__}.{m.name}") for m in pkgutil.iter_modules(package.__path__)]
LAUNCHERS = [module for module in MODULES if hasattr(module, "launch")]
ONCE = import_module(f"{package.__name__}._launch").launch
KERNELS = {
    name_of
    for module in MODULES
    for name, kernel in vars(module).items()
    if name.endswith("_kernel") and kernel.fn.__module__ == module.__name__
    for name_of in [f"{module.__name__.rsplit('.', 1)[-1]}.{name}"]
}


@contextmanager
def launching(launch: Callable) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for module in LAUNCHERS:
            patch.setattr(module, "launch", launch)
        yield


def draw(*shape: int, dtype=torch.float32, seed=0) -> Tensor:
    return random(*shape, seed=seed + sum(shape), dtype=dtype).requires_grad_()


def experts(count: int, dtype=torch.float32, *, per_channel=False, shared=False, channels=2):
    size, batch = (5, 9), 2 if shared else 1
    return (
        draw(1, count, channels, *size, dtype=dtype),
        draw(batch, count, channels) if per_channel else draw(batch, count),
        draw(batch, count, *size, dtype=dtype),
        draw(batch, channels, *size, dtype=dtype),
    )


def assembly(*arguments, **options):
    return expert_assembly, [*experts(*arguments, **options)]


def head(count: int, dtype=torch.float32):
    features, gates, maps, base = experts(count, dtype, channels=3)
    weight, bias, scale = draw(count, 3, 3), draw(count, 3), draw(1, count, 3)
    return expert_head, [features, weight, bias, scale, gates, maps, base]


def transport(count: int, dtype=torch.float32, noise: bool = False, **options):
    deltas, gates, maps, base = experts(count, dtype, **options)
    eps = draw(*base.shape) if noise else None

    def call(*arguments):
        given = {"noise": arguments[-1]} if noise else {"seed": 3}
        return transport_step(*arguments[:7], **given)

    arguments = [draw(*base.shape, seed=7), deltas, gates, maps, base, draw(len(base)), draw(len(base), seed=1)]
    return call, [*arguments, *([eps] if noise else [])]


def transition(noise: bool):
    def call(x, mu, log_mean, log_std, eps):
        return lognormal_transition(x, mu, log_mean, log_std, **({"noise": eps} if noise else {"seed": 3}))

    return call, [draw(1, 3, 5, 9), draw(1, 3, 5, 9, seed=1), draw(1), draw(1, seed=1), draw(1, 3, 5, 9, seed=2)]


def gaussian(count: int):
    def call(coefficients, std, *terms):
        return gaussian_transition(terms, coefficients, std, seed=5)

    return call, [draw(1, count), draw(1), *(draw(1, 3, 5, 9, seed=j) for j in range(count))]


def norm(size: tuple[int, int]):
    def call(*arguments):
        return group_norm_silu(arguments[0], 1, *arguments[1:], return_mean=True)

    return call, [draw(1, 2, *size), draw(2), draw(2, seed=1), draw(1, 2), draw(1, 2, seed=1)]


# From three groups of 8 experts on, one in the middle continues what the one before it left: K >= 17, and K >= 25 where
# the transport step takes the last eight itself.
BF16 = torch.bfloat16
CASES = {
    "assembly K=17": lambda: assembly(17),
    "assembly bf16 K=33": lambda: assembly(33, BF16),
    "assembly per channel": lambda: assembly(2, per_channel=True, channels=6),
    "assembly shared": lambda: assembly(2, shared=True),
    "head K=2": lambda: head(2),
    "head bf16 K=17": lambda: head(17, BF16),
    "transport K=2": lambda: transport(2),
    "transport bf16 K=25": lambda: transport(25, BF16),
    "transport shared": lambda: transport(2, shared=True),
    "transport noise": lambda: transport(2, noise=True, per_channel=True),
    "transition drawn": lambda: transition(noise=False),
    "transition given": lambda: transition(noise=True),
    "gaussian": lambda: gaussian(4),
    "norm of a small group": lambda: norm((5, 9)),
    "norm of a large group": lambda: norm((33, 63)),
    "norm of a group of many tiles": lambda: norm((129, 256)),
}


def results(case: str) -> list[Tensor]:
    """Outputs and every gradient; what no kernel writes is NaN."""
    function, leaves = CASES[case]()
    with running_on("triton"):
        out = function(*leaves)
        outs = out if isinstance(out, tuple) else (out,)
        torch.autograd.backward(outs, [random(*o.shape, seed=i, dtype=o.dtype) for i, o in enumerate(outs)])
    return [*outs, *(leaf.grad for leaf in leaves if leaf.grad is not None)]


seen: set[str] = set()


@pytest.mark.parametrize("case", CASES)
def test_a_launch_that_is_repeated_gives_the_same_bits(case):
    """The autotuner starts a kernel some fifty times on a call's arguments: no launch may read what it writes."""

    def twice(kernel, *arguments, **constants) -> None:
        seen.add(f"{kernel.fn.__module__.rsplit('.', 1)[-1]}.{kernel.fn.__name__}")
        for _ in range(2):
            ONCE(kernel, *arguments, **constants)

    expected = results(case)
    with launching(twice):
        repeated = results(case)
    assert all(t.isfinite().all() for t in expected)
    for i, (a, b) in enumerate(zip(repeated, expected, strict=True)):
        assert torch.equal(a, b), f"result {i}: off by {(a - b).abs().max():.3g} of {b.abs().max():.3g}"


def test_every_kernel_was_repeated():
    """Runs after the cases above, in their process; alone it has nothing to say."""
    if not seen:
        pytest.skip("the test of the repeated launches did not run")
    assert len(KERNELS) >= 14 and seen >= KERNELS, f"never launched: {sorted(KERNELS - seen)}"


def test_launchers_are_found():
    assert {module.__name__.rsplit(".", 1)[-1] for module in LAUNCHERS} >= {"expert_assembly", "expert_head", "_reduce"}
    assert all("launch(" in inspect.getsource(module) for module in LAUNCHERS)


def test_workspaces_of_the_heads_gradients_do_not_grow_with_the_channels(monkeypatch):
    """A launch takes 64 channels, so that its partial sums have fewer elements than the features; nothing runs here."""
    backward = import_module(f"{package.__name__}.expert_head_backward")
    allocated: list[tuple[int, ...]] = []

    def record(shape: tuple[int, ...], dtype: torch.dtype, like: Tensor) -> Tensor:
        allocated.append(shape)
        return torch.zeros(shape, dtype=dtype)

    monkeypatch.setattr(backward, "empty_partials", record)
    features, channels, size = torch.zeros(1, 2, 4, 16, 16), 9000, (16, 16)
    weight, bias, scale = torch.zeros(2, channels, 4), torch.zeros(2, channels), torch.zeros(1, 2, 4)
    gates, maps = torch.zeros(1, 2), torch.zeros(1, 2, *size)
    gradients = [torch.empty_like(t) for t in (weight, bias, scale, gates, maps)]
    with launching(lambda *_, **__: None):
        backward.backward(
            torch.zeros(1, channels, *size), [features], weight, bias, scale, gates, maps,
            [torch.empty_like(features)], *gradients,
        )  # fmt: skip
    partial = [torch.Size(shape).numel() for shape in allocated if len(shape) == 5]
    assert len(partial) == 141 and max(partial) <= features.numel()
    assert torch.Size([1, 2, channels, 5]) in map(torch.Size, allocated)  # what they add up to: as large as the weights
