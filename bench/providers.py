"""Providers of an op: our backends, eager PyTorch, torch.compile and the published way, and calls of each."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.registry import Arguments, Case, Op, draw
from bench.timing import Thunk, sets_needed
from f2d_kernels import backends, use_backend

OURS = {"cpu": ("cpp",), "cuda": ("cuda", "triton")}


@dataclass(frozen=True)
class Provider:
    """An implementation of an op. name: as printed. role: ours, eager, compile, published, or the provider's own name.
    call: the op's keywords -> result. own_noise: whether it draws other noise than our ops.
    """

    name: str
    role: str
    call: Callable[..., Any]
    backend: str | None = None
    own_noise: bool = False

    def running(self) -> AbstractContextManager:
        return nullcontext() if self.backend is None else use_backend(self.backend)


def missing_backends(device: torch.device) -> dict[str, str]:
    """Map our backends that are made for the device but unavailable to the reason."""
    status = backends()
    return {name: status[name] for name in OURS[device.type] if status[name] != "available"}


def providers(op: Op, case: Case, device: torch.device) -> list[Provider]:
    """Return all available providers of a case, ours first."""
    missing = missing_backends(device)
    # without a fused backend for this device, ours is the reference
    here = [name for name in OURS[device.type] if name not in missing] or ["reference"]
    found = [Provider(name, "ours", op.ours, backend=name) for name in here]
    own_noise = op.own_noise is not None and case.variant == "seed"
    found += [Provider(f"eager:{name}", "eager", call, own_noise=own_noise) for name, call in op.eager.items()]
    compiled = torch.compile(op.eager[op.compiled], fullgraph=True, dynamic=False)
    found.append(Provider("compile", "compile", compiled, own_noise=own_noise))
    found.append(Provider("published", "published", op.published, own_noise=own_noise))
    found += [Provider(name, name, call, backend=here[0]) for name, call in op.others.items()]
    return found


def tensors(result: Any) -> list[Tensor]:
    """Return the tensors of a result or an argument: one, or those of a tuple or list."""
    if isinstance(result, Tensor):
        return [result]
    return [t for part in result for t in tensors(part)] if isinstance(result, (tuple, list)) else []


def leaves(op: Op, arguments: Arguments) -> list[Tensor]:
    """Return the tensors that require a gradient, in the order of `op.gradients`."""
    return [t for name in op.gradients for t in tensors(arguments.get(name))]


@dataclass(frozen=True)
class Inputs:
    """One set of buffers: the arguments, those that require gradients, and the gradients of the results."""

    arguments: Arguments
    leaves: list[Tensor]
    upstream: list[Tensor]

    @classmethod
    def new(cls, op: Op, case: Case, device: torch.device) -> "Inputs":
        arguments = op.inputs(case, device)
        if not case.train:
            return cls(arguments, [], [])
        wanted = [t.requires_grad_() for t in leaves(op, arguments)]
        with torch.no_grad(), use_backend("reference"):
            results = tensors(op.ours(**arguments))
        # images have the case's memory layout; channel means [B,C] have none
        upstream = [
            draw(tuple(r.shape), case, device, channels_last=case.channels_last and r.ndim == 4).to(r.dtype)
            for r in results
        ]
        return cls(arguments, wanted, upstream)

    @property
    def bytes(self) -> int:
        held = [t for value in self.arguments.values() for t in tensors(value)] + self.upstream
        return sum(t.numel() * t.element_size() for t in held)


def input_sets(op: Op, case: Case, device: torch.device) -> list[Inputs]:
    """Create enough sets that the data a call *reads* has left the cache when its set is used again.

    Only reads count, because non-temporal stores evict nothing.
    """
    read = min(op.traffic(case, mode).read for mode in case.modes)
    return [Inputs.new(op, case, device) for _ in range(sets_needed(read, device))]


def thunk(provider: Provider, inputs: Inputs, mode: str) -> Thunk:
    """Return a call to time. For "backward" the forward pass runs here, untimed; its graph serves one call."""
    call, arguments = provider.call, inputs.arguments
    if mode == "forward":
        return lambda: call(**arguments)

    def both() -> tuple[Tensor, ...]:
        return torch.autograd.grad(tensors(call(**arguments)), inputs.leaves, inputs.upstream)

    if mode == "both":
        return both
    results = tensors(call(**arguments))
    return lambda: torch.autograd.grad(results, inputs.leaves, inputs.upstream)
