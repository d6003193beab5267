"""One case of an op in the executor, against float64 by the error rule and against the C++ backend's bits.

Runs in a process of its own, since the other tests set Triton to interpret its kernels.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.ptx.capture import captured
from f2d_kernels import gaussian_transition, use_backend
from tests.kernels.cases import lay_out, random
from tests.kernels.tolerances import BACKWARD, EPSILON, FORWARD, NORMAL, assert_close_as_formula
from tests.ptx.ops import PROBLEMS, SEED, STREAM, Case, Problem, Tensors


def check(case: Case, backend: str, **options: Any) -> list[str]:
    """The kernels that ran; AssertionError with what is wrong. (Faults have arguments that do not pass between
    processes, so that their text is raised.)"""
    torch.set_num_threads(1)
    problem = PROBLEMS[case.op](case)
    eps = eps_of(case)
    try:
        with captured(backend, **options) as capture:
            ours = results_of(problem.ours, problem.leaves, eps)
    except AssertionError:
        raise
    except Exception as error:
        raise AssertionError(f"{type(error).__name__}: {error}") from error
    exact = results_of(problem.formula, [_double(t) for t in problem.leaves], _double(eps))
    plain = results_of(problem.formula, problem.leaves, eps if eps is None else eps.to(case.small))
    names = [f"result {i}" for i in range(len(ours) - sum(t is not None for t in problem.leaves))]
    _compare(case, problem, names, ours, plain, exact)
    if case.dtype != torch.float64:  # for which nothing is promised
        with use_backend("cpp"):
            cpp = results_of(problem.ours, problem.leaves, eps)
        _compare_bits(problem, len(names), ours, cpp)
    return [launch.kernel for launch in capture.launches]


def executed(case: Case) -> list[np.ndarray]:
    """Results and gradients on Triton's kernels in the executor."""
    torch.set_num_threads(1)
    problem = PROBLEMS[case.op](case)
    with captured("triton"):
        return [t.numpy() for t in results_of(problem.ours, problem.leaves, eps_of(case))]


def interpreted(case: Case) -> list[np.ndarray]:
    """The same in Triton's interpreter, in a process that has been told to interpret."""
    problem = PROBLEMS[case.op](case)
    with use_backend("triton"):
        return [t.numpy() for t in results_of(problem.ours, problem.leaves, eps_of(case))]


def _double(value: Tensor | None) -> Tensor | None:
    return None if value is None else value.detach().double()


def eps_of(case: Case) -> Tensor | None:
    """The noise of a case: given, or what the C++ backend draws, whose distance from float64 other tests bound."""
    if case.noise == "none" or not case.op.endswith(("transition", "step")):
        return None
    if case.noise == "given":
        noise = random(case.batch, case.channels, *case.size, seed=20, dtype=case.dtype)
        return lay_out(noise, "channels_last") if case.layout == "channels_last" else noise
    zero = torch.zeros(case.batch, case.channels, *case.size)
    with use_backend("cpp"):
        return gaussian_transition(
            [zero], torch.zeros(case.batch, 1), 1.0, seed=SEED, stream=STREAM, window=case.window
        )


def results_of(function: Any, leaves: Tensors, eps: Tensor | None) -> list[Tensor]:
    """Results, then the gradients of the leaves that there are."""
    leaves = [None if t is None else t.detach().requires_grad_() for t in leaves]
    out = function(*leaves, eps)
    outs = list(out) if isinstance(out, tuple) else [out]
    upstream = [random(*o.shape, seed=90 + i, dtype=torch.float64) for i, o in enumerate(outs)]
    wanted = [t for t in leaves if t is not None]
    # cotangents that 16 bits hold exactly, so that every version gets the same, in the layouts of the results
    given = [torch.empty_like(o).copy_(g.bfloat16()) for g, o in zip(upstream, outs, strict=True)]
    return [t.detach() for t in (*outs, *torch.autograd.grad(outs, wanted, given))]


def _compare(case: Case, problem: Problem, names: list[str], ours: list, plain: list, exact: list) -> None:
    pixels = case.channels * case.size[0] * case.size[1]
    names = [*names, *(f"gradient {i}" for i, t in enumerate(problem.leaves) if t is not None)]
    assert len(names) == len(ours) == len(plain) == len(exact)
    for i, name in enumerate(names):
        is_sum = ours[i].dim() < 4 or ours[i].shape[0] < case.batch
        scale = (3 * pixels * case.batch) ** 0.5 if is_sum else 0.0
        if case.noise == "seed" and case.op in ("lognormal_transition", "transport_step"):
            scale = max(scale, 1.0, NORMAL / 5e-7 * exact[i].abs().max().item())
        if is_sum and case.op == "transport_step" and case.dtype in (torch.bfloat16, torch.float16):
            scale *= EPSILON[case.dtype] / EPSILON[ours[i].dtype]  # mu, from which the sums are made, has 16 bits
        factor = FORWARD if name.startswith("result") else BACKWARD
        assert_close_as_formula(ours[i], plain[i].to(ours[i].dtype), exact[i], factor, f"{case}: {name}", scale)


def _compare_bits(problem: Problem, results: int, ours: list[Tensor], cpp: list[Tensor]) -> None:
    places = {i: results + sum(t is not None for t in problem.leaves[:i]) for i, t in enumerate(problem.leaves)
              if t is not None}  # fmt: skip
    equal = [*problem.equal_results, *(places[i] for i in problem.equal_gradients if i in places)]
    for i in equal:
        same = ours[i] == cpp[i]
        assert same.all(), (
            f"{int((~same).sum())} of {same.numel()} elements of result {i} differ from the C++ backend's"
        )
