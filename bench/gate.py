"""The correctness gate: no provider is timed before its results and gradients agree with float64."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from bench.providers import Inputs, Provider, leaves, tensors
from bench.registry import Arguments, Case, Op
from f2d_kernels import use_backend
from f2d_kernels.ops import _allocate

# Largest allowed error relative to the largest magnitude in the exact tensor. Our ops round once, when they store (2^-9
# for bf16). The others may round after every step, and sum K experts or half a million pixels in their own order.
TOLERANCE = {
    "ours": {torch.float32: 1e-5, torch.bfloat16: 8e-3},
    "others": {torch.float32: 1e-4, torch.bfloat16: 6e-2},
}

BASELINES = ("eager", "compile", "published")  # roles of providers that do not call our ops


@contextmanager
def poisoned() -> Iterator[None]:
    """Fill every result and gradient of our ops with NaN before its kernel runs, so that unwritten elements show."""
    plain = _allocate.new_memory
    _allocate.new_memory = lambda *args, **kwargs: plain(*args, **kwargs).fill_(float("nan"))
    try:
        yield
    finally:
        _allocate.new_memory = plain


class Gate:
    """The float64 reference for one case and one set of inputs; `problem(provider)` describes an error, or is None.

    seconds: of each provider's first call there, without the reference and the comparison.
    """

    def __init__(self, op: Op, case: Case, inputs: Inputs):
        self.op, self.case, self.inputs = op, case, inputs
        self._exact: dict[bool, list[Tensor]] = {}
        self.seconds: dict[str, float] = {}

    def problem(self, provider: Provider) -> str | None:
        """Describe what fails: an exception, a shape, an unwritten element, or an error beyond the tolerance."""
        # our ops take their fast path, which is timed, only into memory that they allocate themselves
        memories = (nullcontext,) if provider.role in BASELINES else (poisoned, nullcontext)
        return next(filter(None, (self._problem(provider, memory) for memory in memories)), None)

    def _problem(self, provider: Provider, memory: Callable[[], AbstractContextManager]) -> str | None:
        arguments = self._arguments(provider.own_noise)
        start = time.perf_counter()
        try:
            with provider.running(), memory():
                found = self._results(provider.call, arguments, leaves(self.op, arguments), self.inputs.upstream)
        except Exception as error:  # any failure of a provider is a finding, not the end of the run
            return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
        self.seconds.setdefault(provider.name, time.perf_counter() - start)
        exact = self._exact_results(provider.own_noise)
        if len(found) != len(exact):
            return f"{len(found)} results and gradients, expected {len(exact)}"
        for index, (a, b) in enumerate(zip(found, exact, strict=True)):
            what = "result" if index < len(found) - len(self.inputs.leaves) else "gradient"
            tolerance = TOLERANCE["ours" if provider.role == "ours" else "others"][self._coarsest(a)]
            if wrong := _difference(a, b, tolerance):
                return f"{what} {index}: {wrong}"
        return None

    def _coarsest(self, result: Tensor) -> torch.dtype:
        return torch.bfloat16 if torch.bfloat16 in (result.dtype, self.case.dtype) else torch.float32

    def _arguments(self, quiet: bool) -> Arguments:
        """Return the arguments; quiet scales the noise to zero, so that all sources of noise agree."""
        arguments = self.inputs.arguments
        if quiet and self.op.own_noise is not None:
            arguments = arguments | {self.op.own_noise: torch.zeros_like(arguments[self.op.own_noise])}
        return arguments

    def _exact_results(self, quiet: bool) -> list[Tensor]:
        if quiet not in self._exact:
            exact = {name: _double(value) for name, value in self._arguments(quiet).items()}
            upstream = [t.double() for t in self.inputs.upstream]
            with use_backend("reference"):
                self._exact[quiet] = self._results(self.op.exact, exact, leaves(self.op, exact), upstream)
        return self._exact[quiet]

    def _results(self, call: Any, arguments: Arguments, wanted: list[Tensor], upstream: list[Tensor]) -> list[Tensor]:
        with torch.set_grad_enabled(self.case.train):
            results = tensors(call(**arguments))
        gradients = torch.autograd.grad(results, wanted, upstream) if self.case.train else ()
        return [t.detach() for t in (*results, *gradients)]


def _double(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_double(v) for v in value]
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.detach().double().requires_grad_(value.requires_grad)
    return value


def _difference(found: Tensor, exact: Tensor, tolerance: float) -> str | None:
    if found.shape != exact.shape:
        return f"shape {list(found.shape)}, expected {list(exact.shape)}"
    error = (found.double() - exact).abs_()
    if error.isnan().any():
        return f"{int(error.isnan().sum())} elements are NaN"
    worst, size = error.max().item(), exact.abs().max().item()
    return None if worst <= tolerance * size else f"off by {worst:.2e} where {tolerance * size:.2e} is allowed"
