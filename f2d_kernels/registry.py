"""Choose the implementation of an op: the registry of backends, the choice, and why a backend is missing."""

import importlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import torch

from f2d_kernels import compiled
from f2d_kernels.environment import variable

logger = logging.getLogger("f2d_kernels")


class BackendUnavailableError(RuntimeError):
    """A backend that was requested by name cannot run here; the message says why."""


class Implementation(NamedTuple):
    """The two functions of one op on one backend; both only fill the outputs they are given."""

    forward: Callable[..., None]
    backward: Callable[..., None]


@dataclass(frozen=True)
class Backend:
    """One way to run the ops: its name, a function that returns why it cannot run on a device type (None if it can),
    and its implementations."""

    name: str
    unavailable: Callable[[str], str | None]
    implementation: Callable[[str], Implementation]
    ops: frozenset[str] | None = None  # the ops it implements; None means all

    def missing(self, op: str, device: str) -> str | None:
        """Return the reason why `op` cannot run on this backend for tensors on `device`, or None if it can."""
        if self.ops is not None and op not in self.ops:
            return f"{op} has no {self.name} implementation, only {', '.join(sorted(self.ops))} have"
        return self.unavailable(device)


def _from_module(package: str) -> Callable[[str], Implementation]:
    def load(op: str) -> Implementation:
        module = importlib.import_module(f"f2d_kernels.{package}.{op}")
        return Implementation(module.forward, module.backward)

    return load


def formulas(op: str) -> Any:
    """Return `formula` and `gradients` of `op` in plain PyTorch, which PyTorch differentiates in any mode."""
    return importlib.import_module(f"f2d_kernels.reference.{op}")


def _from_compiled(op: str) -> Implementation:
    ops: Any = torch.ops.f2d_kernels
    return Implementation(getattr(ops, f"{op}_out").default, getattr(ops, f"{op}_backward_out").default)


def _only_on(device_type: str, name: str, load: Callable[[], str | None]) -> Callable[[str], str | None]:
    def unavailable(device: str) -> str | None:
        return load() if device == device_type else f"the {name} backend runs on {device_type} tensors, not on {device}"

    return unavailable


def _triton_unavailable(device: str) -> str | None:
    return importlib.import_module("f2d_kernels.triton").unavailable_reason(device)


# The ops with a CUDA C++ kernel; the others run on Triton on a GPU.
WITH_CUDA = frozenset({"expert_assembly", "lognormal_transition", "transport_step"})

# The position of the deltas among the arguments of both functions, and the number of deltas in a sequence that the
# parameters of a CUDA kernel hold (kMaxListed in csrc/cuda/experts.h).
DELTAS_AT = {"expert_assembly": 1, "transport_step": 3}
MAX_LISTED = 32

REGISTRY = {
    backend.name: backend
    for backend in (
        Backend("reference", lambda device: None, _from_module("reference")),
        Backend("cpp", _only_on("cpu", "cpp", compiled.load_cpu), _from_compiled),
        Backend("triton", _triton_unavailable, _from_module("triton")),
        Backend("cuda", _only_on("cuda", "cuda", compiled.load_cuda), _from_compiled, WITH_CUDA),
    )
}

# The backends that "auto" tries, in order. PyTorch calls AMD devices "cuda" too; the cuda part does not load there, and
# triton runs.
PREFERENCE = {"cpu": ("cpp", "reference"), "cuda": ("cuda", "triton", "reference")}

_requested: ContextVar[str | None] = ContextVar("f2d_kernels_backend", default=None)


def _checked(name: str, source: str) -> str:
    if not isinstance(name, str) or (name != "auto" and name not in REGISTRY):
        raise ValueError(f"{source}: unknown backend {name!r}; known are auto, {', '.join(REGISTRY)}")
    return name


def requested_backend() -> str:
    """Return the requested backend: that of the innermost `use_backend`, else F2D_KERNELS_BACKEND, else "auto"."""
    name = _requested.get()
    if name is not None:
        return name
    name = variable("F2D_KERNELS_BACKEND")
    return "auto" if name is None else _checked(name, "F2D_KERNELS_BACKEND")


def runs_on_cpp() -> bool:
    """Return whether CPU tensors currently run on the cpp backend."""
    return requested_backend() in ("auto", "cpp") and REGISTRY["cpp"].unavailable("cpu") is None


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Run the ops inside the `with` block on backend `name`: "reference", "cpp", "triton", "cuda", or "auto".

    The choice applies to the current thread or asyncio task. A backward pass runs on the backend of its forward pass,
    but in a function compiled by torch.compile on the backend that is in force when it runs: for tensors on a GPU that
    of F2D_KERNELS_BACKEND, since PyTorch runs their backward passes in other threads.

    Raises:
        ValueError: the name is unknown.
        BackendUnavailableError: the backend cannot run here, with the reason.
    """
    if _checked(name, "use_backend") != "auto" and (status := backends()[name]) != "available":
        raise BackendUnavailableError(f"backend {name!r} was requested but is not available: {status}")
    token = _requested.set(name)
    try:
        yield
    finally:
        _requested.reset(token)


def backends() -> dict[str, str]:
    """Return the name of each backend -> "available", or the reason why it is not.

    Example:
        >>> f2d_kernels.backends()["reference"]
        'available'
    """
    device_types = ("cuda", "cpu") if torch.cuda.is_available() else ("cpu",)
    home = {"cuda": ("cuda",)}  # asked about its own device, its reason is the loader's and not "wrong device"
    status = {}
    for name, backend in REGISTRY.items():
        reasons = [backend.unavailable(device) for device in home.get(name, device_types)]
        status[name] = "available" if None in reasons else str(reasons[0])
    return status


def selected_backend(
    device_type: str = "cpu", requested: str | None = None, op: str = "expert_assembly"
) -> tuple[str, str | None]:
    """Return (backend of `op` for `device_type`, why not a better one); the reason is None for the first choice.

    Raises BackendUnavailableError if a backend requested by name (by default: the one in force) cannot run.
    """
    requested = requested or requested_backend()
    if requested != "auto":
        reason = REGISTRY[requested].missing(op, device_type)
        if reason is not None:
            raise BackendUnavailableError(f"backend {requested!r} was requested but is not available: {reason}")
        return requested, None
    missing = []
    for name in PREFERENCE.get(device_type, ("reference",)):
        reason = REGISTRY[name].missing(op, device_type)
        if reason is None:
            break
        if op in (REGISTRY[name].ops or (op,)):
            missing.append(f"{name} ({reason})")
    return name, "; ".join(missing) or None


@cache
def _resolve(op: str, device_type: str, requested: str) -> Implementation:
    name, missing = selected_backend(device_type, requested, op)
    if missing:
        logger.warning(
            "f2d_kernels: %s runs on the %s backend on %s; not available: %s", op, name, device_type, missing
        )
    chosen = REGISTRY[name].implementation(op)
    if requested == "auto" and name == "cuda" and op in DELTAS_AT:
        return _with_long_lists(op, chosen)
    return chosen


@cache
def _for_long_lists(op: str) -> Implementation:
    """Return the backend of `op` under "auto" if the cuda backend cannot take its list of deltas."""
    name = next(n for n in PREFERENCE["cuda"] if n != "cuda" and REGISTRY[n].missing(op, "cuda") is None)
    logger.warning(
        "f2d_kernels: %s of more than %d listed deltas runs on the %s backend on cuda; the cuda backend takes at most "
        "%d in a sequence, any number stacked to [B,K,C,H,W]", op, MAX_LISTED, name, MAX_LISTED,
    )  # fmt: skip
    return REGISTRY[name].implementation(op)


def _with_long_lists(op: str, chosen: Implementation) -> Implementation:
    """Return `chosen`, replaced by another backend in calls whose list of deltas is too long for it."""
    place = DELTAS_AT[op]

    def of_call(arguments: Sequence[Any]) -> Implementation:
        return chosen if len(arguments[place]) <= MAX_LISTED else _for_long_lists(op)

    return Implementation(lambda *a: of_call(a).forward(*a), lambda *a: of_call(a).backward(*a))


def implementation(op: str, device: torch.device, requested: str | None = None) -> Implementation:
    """Return the functions of `op` for tensors on `device`, on backend `requested` (default: the one in force)."""
    return _resolve(op, device.type, requested or requested_backend())
