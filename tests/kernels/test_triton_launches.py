"""Every launch of every Triton launcher: run again as the autotuner does, and at the largest sizes that 32 bits count."""

import inspect
import pkgutil
import sys
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
ONCE = sys.modules[f"{package.__name__}._launch"].launch
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
    size = (5, 9)
    return (
        draw(1 if shared else 2, count, channels, *size, dtype=dtype),
        draw(2, count, channels) if per_channel else draw(2, count),
        draw(2, count, *size, dtype=dtype),
        draw(2, channels, *size, dtype=dtype),
    )


def assembly(*arguments, **options):
    return expert_assembly, [*experts(*arguments, **options)]


def head(count: int, dtype=torch.float32):
    features, gates, maps, base = experts(count, dtype, channels=3)
    weight, bias, scale = draw(count, 3, 3), draw(count, 3), draw(2, count, 3)
    return expert_head, [features, weight, bias, scale, gates, maps, base]


def transport(count: int, dtype=torch.float32, noise: bool = False, **options):
    deltas, gates, maps, base = experts(count, dtype, **options)
    eps = draw(*base.shape) if noise else None

    def call(*arguments):
        given = {"noise": arguments[-1]} if noise else {"seed": 3}
        return transport_step(*arguments[:7], **given)

    arguments = [draw(*base.shape, seed=7), deltas, gates, maps, base, draw(2), draw(2, seed=1)]
    return call, [*arguments, *([eps] if noise else [])]


def transition(noise: bool):
    def call(x, mu, log_mean, log_std, eps):
        return lognormal_transition(x, mu, log_mean, log_std, **({"noise": eps} if noise else {"seed": 3}))

    return call, [draw(2, 3, 5, 9), draw(2, 3, 5, 9, seed=1), draw(2), draw(2, seed=1), draw(2, 3, 5, 9, seed=2)]


def gaussian(count: int):
    def call(coefficients, std, *terms):
        return gaussian_transition(terms, coefficients, std, seed=5)

    return call, [draw(2, count), draw(2), *(draw(2, 3, 5, 9, seed=j) for j in range(count))]


def norm(size: tuple[int, int]):
    def call(*arguments):
        return group_norm_silu(arguments[0], 1, *arguments[1:], return_mean=True)

    return call, [draw(2, 2, *size), draw(2), draw(2, seed=1), draw(2, 2), draw(2, 2, seed=1)]


CASES = {
    **{f"assembly K={k}": (assembly, k) for k in (1, 8, 9, 17, 25, 33)},
    "assembly bf16 K=17": (assembly, 17, torch.bfloat16),
    **{f"head K={k}": (head, k) for k in (1, 9, 17, 25)},
    "head bf16 K=17": (head, 17, torch.bfloat16),
    **{f"transport K={k}": (transport, k) for k in (1, 9, 17, 25, 33)},
    "transport bf16 K=25": (transport, 25, torch.bfloat16),
    "transport noise": (transport, 2, torch.float32, True),
    **{f"transition {'given' if noise else 'drawn'}": (transition, noise) for noise in (True, False)},
    **{f"gaussian {count}": (gaussian, count) for count in (1, 4)},
    "norm of a small group": (norm, (5, 9)),
    "norm of a large group": (norm, (40, 60)),
}
OPTIONS = {
    "assembly per channel K=17": (assembly, 17, {"per_channel": True}),
    "assembly shared K=17": (assembly, 17, {"shared": True}),
    "assembly C=6": (assembly, 2, {"channels": 6}),
    "transport per channel K=25": (transport, 25, {"per_channel": True}),
    "transport shared": (transport, 3, {"shared": True}),
}


def results(make: Callable, *arguments) -> list[Tensor]:
    """Outputs and every gradient; what no kernel writes is NaN."""
    options = arguments[-1] if arguments and isinstance(arguments[-1], dict) else {}
    function, leaves = make(*[a for a in arguments if a is not options], **options)
    with running_on("triton"):
        out = function(*leaves)
        outs = out if isinstance(out, tuple) else (out,)
        torch.autograd.backward(outs, [random(*o.shape, seed=i, dtype=o.dtype) for i, o in enumerate(outs)])
    return [*outs, *(leaf.grad for leaf in leaves if leaf.grad is not None)]


seen: set[str] = set()


@pytest.mark.parametrize("case", [*CASES, *OPTIONS])
def test_a_launch_that_is_repeated_gives_the_same_bits(case):
    """The autotuner starts a kernel some fifty times on the arguments of the call: no launch may read what it writes."""

    def three_times(kernel, *arguments, **constants) -> None:
        seen.add(f"{kernel.fn.__module__.rsplit('.', 1)[-1]}.{kernel.fn.__name__}")
        for _ in range(3):
            ONCE(kernel, *arguments, **constants)

    arguments = {**CASES, **OPTIONS}[case]
    expected = results(*arguments)
    with launching(three_times):
        repeated = results(*arguments)
    assert all(t.isfinite().all() for t in expected)
    for i, (a, b) in enumerate(zip(repeated, expected, strict=True)):
        assert torch.equal(a, b), f"result {i}: off by {(a - b).abs().max():.3g} of {b.abs().max():.3g}"


def test_every_kernel_was_repeated():
    """Runs after the cases above, in their process; alone it has nothing to say."""
    if not seen:
        pytest.skip("the test of the repeated launches did not run")
    assert len(KERNELS) >= 14 and KERNELS <= seen, f"never launched: {sorted(KERNELS - seen)}"


def test_launchers_are_found():
    assert {module.__name__.rsplit(".", 1)[-1] for module in LAUNCHERS} >= {"expert_assembly", "expert_head", "_reduce"}
    assert all("launch(" in inspect.getsource(module) for module in LAUNCHERS)
