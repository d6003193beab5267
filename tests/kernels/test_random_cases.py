"""Random calls of every op against the float64 formula: what nobody thought of writing down as a case."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import Tensor

from f2d_kernels.ops._allocate import is_channels_last
from f2d_kernels.registry import REGISTRY

from .drawing import JITTER, Case, Tensors
from .strategies import CASES
from .support import running_on
from .tolerances import BACKWARD, FORWARD, assert_close_as_formula

EXAMPLES, MANY = 8, 336  # per op; 6 ops make 48 and 2016


def leaves_of(case: Case, dtype: torch.dtype | None = None) -> Tensors:
    # detached tensors keep their strides
    return {n: t.detach().to(dtype or t.dtype).requires_grad_(n in case.wanted) for n, t in case.leaves.items()}


def jittered(case: Case, seed: int) -> tuple[Tensors, Tensors]:
    """(leaves, drawn) in float64, off by a few units of round-off and by drawn_error."""
    generator = torch.Generator().manual_seed(seed)

    def signs(t: Tensor) -> Tensor:
        return torch.randint(0, 2, t.shape, generator=generator).double() * 2 - 1

    leaves = {n: t.double() * (1 + JITTER * case.unit * signs(t)) for n, t in case.leaves.items()}
    for name in case.wanted:
        leaves[name].requires_grad_()
    return leaves, {n: t.double() + case.drawn_error * signs(t) for n, t in case.drawn.items()}


def results(case: Case, function, leaves: Tensors, drawn: Tensors, grads: list[Tensor]) -> dict[str, Tensor | None]:
    """Outputs and the gradients of what is wanted, by name."""
    outs = function({**leaves, **drawn})
    outs = [outs] if isinstance(outs, Tensor) else list(outs)
    pairs = [(out, grad.to(out.dtype)) for out, grad in zip(outs, grads, strict=False) if out.requires_grad]
    if pairs:
        torch.autograd.backward(*zip(*pairs, strict=True))
    found = {f"out {i}": out.detach() for i, out in enumerate(outs)}
    return found | {f"gradient of {n}": t.grad for n, t in leaves.items()}


def gradients_for(case: Case) -> list[Tensor]:
    """One per result, of its dtype; half of them expanded, as `out.sum().backward()` gives."""
    outs = case.formula({**case.leaves, **case.drawn})
    outs = [outs] if isinstance(outs, Tensor) else outs
    grads = []
    for i, (out, dtype) in enumerate(zip(outs, case.result_dtypes, strict=True)):
        generator = torch.Generator().manual_seed(i)
        shape = out.shape if len(case.wanted) % 2 else (1,) * out.dim()
        # rounded once, so that all are given the same
        grads.append(torch.randn(shape, generator=generator).to(dtype or torch.bfloat16).expand(out.shape))
    return grads


def check(case: Case, backend: str) -> None:
    grads = gradients_for(case)
    double = {n: t.double() for n, t in case.drawn.items()}
    exact = results(case, case.formula, leaves_of(case, torch.float64), double, grads)
    # As good as can be asked is a result as far off as that of plain PyTorch at the same dtype, or as the exact result
    # of arguments whose last bits differ; on a few elements either alone may be off by nothing.
    yardsticks = [results(case, case.formula, leaves_of(case), case.drawn, grads)]
    yardsticks += [results(case, case.formula, *jittered(case, seed), grads) for seed in range(2)]
    with running_on(backend):
        actual = results(case, case.call, leaves_of(case), {}, grads)
    for i, dtype in enumerate(case.result_dtypes):
        assert dtype is None or actual[f"out {i}"].dtype == dtype
    first = next(iter(case.leaves.values()))
    if first.dim() >= 4 and first.numel() and actual["out 0"].shape[-3] > 1 and first.shape[-3] > 1:
        assert is_channels_last(actual["out 0"]) == is_channels_last(first)
    for name, truth in exact.items():
        found, leaf = actual[name], case.leaves.get(name.removeprefix("gradient of "))
        if leaf is not None and name.removeprefix("gradient of ") not in case.wanted:
            assert found is None, f"{name} was not asked for"
            continue
        assert leaf is None or found.dtype == leaf.dtype, f"{name} is {found.dtype}"
        truth = torch.zeros_like(found, dtype=torch.float64) if truth is None else truth
        compared = [y[name] for y in yardsticks if y[name] is not None and y[name].isfinite().all()] or [truth]
        worst = max(compared, key=lambda y, truth=truth: (y.double() - truth).abs().max() if truth.numel() else 0)
        assert_close_as_formula(found, worst, truth, BACKWARD if leaf is not None else FORWARD, name)


def run(op: str, backend: str, examples: int) -> None:
    if (reason := REGISTRY[backend].missing(op, "cpu")) is not None:
        pytest.skip(f"{backend}: {reason}")

    @settings(
        max_examples=examples, derandomize=True, deadline=None, database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    )  # fmt: skip
    @given(CASES[op])
    def every(case: Case) -> None:
        check(case, backend)

    every()


@pytest.mark.parametrize("backend", ["reference", "cpp"])
@pytest.mark.parametrize("op", CASES)
def test_a_few_random_cases(op, backend):
    run(op, backend, EXAMPLES)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["reference", "cpp"])
@pytest.mark.parametrize("op", CASES)
def test_many_random_cases(op, backend):
    run(op, backend, MANY)
