"""`accelerate(module)`: fuse group norm and SiLU in any network, if its source proves that they are a pair."""

import copyreg
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import _reconstruct  # how copy.copy and copy.deepcopy rebuild an object
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from f2d_kernels.fusing.pairs import HOOKS, after_silu, at_any_size, has_known_forward, is_group_norm, silu_of_norm
from f2d_kernels.fusing.rewrite import Pair, rewritten
from f2d_kernels.fusing.source import Unprovable


@dataclass(frozen=True)
class Fused:
    """A fused pair: the norm's name in the module, its activation in the source, and the forward that contains both."""

    norm: str
    activation: str
    where: str


@dataclass
class Report:
    """The result of `accelerate`; print it for a list. As a context manager, it undoes the changes at the end.

    fused: the pairs that are now one op. unchanged: name of every other nn.GroupNorm -> why it is unchanged.
    difference: largest difference of the outputs for the sample given as `verify`, or None without a sample.
    """

    fused: list[Fused] = field(default_factory=list)
    unchanged: dict[str, str] = field(default_factory=dict)
    difference: float | None = None
    _classes: list[tuple[nn.Module, type]] = field(default_factory=list, repr=False)

    def undo(self) -> None:
        """Restore every module; a second call does nothing.

        A module whose class others have extended since (parametrizations do, and FSDP) keeps it and stays fused.
        """
        while self._classes:
            module, plain = self._classes.pop()
            if _Fused in type(module).__bases__:
                module.__class__ = plain

    def __enter__(self) -> "Report":
        return self

    def __exit__(self, *error: object) -> None:
        self.undo()

    def __str__(self) -> str:
        lines = [f"{len(self.fused)} fused, {len(self.unchanged)} unchanged"]
        lines += [f"  fused  {pair.norm}, then {pair.activation}, in {pair.where}" for pair in self.fused]
        lines += [f"  unchanged  {name}: {reason}" for name, reason in self.unchanged.items()]
        if self.difference is not None:
            lines.append(f"  outputs differ by at most {self.difference:.1e}")
        return "\n".join(lines)


def accelerate(module: nn.Module, verify: Any = None, tolerance: float = 1e-4) -> Report:
    """Fuse ``silu(group_norm(x))`` and ``silu(group_norm(x) * (1 + scale) + shift)`` wherever `module` computes them.

    Each pair becomes one op that uses the module's own parameters. Outputs only change by float32 rounding; in 16 bits
    they become more accurate.

    A pair is fused if the source of the forward that calls the norm proves that its result only goes through (the
    modulation and) the SiLU: `act(norm(x))`, `h = norm(h)` followed by `h = act(h)`, also from within the branches of
    an `if`, or neighbours in an nn.Sequential. Calls inside the modulation may only return views. Norms may be
    nn.GroupNorm or a subclass that computes in float32 (`super().forward(x.float()).type(x.dtype)`); SiLUs may be
    nn.SiLU, F.silu, or a function or module that returns x * sigmoid(x). This covers the blocks of diffusers, guided
    diffusion and denoising-diffusion-pytorch. Every call checks the layers again. The plain layers run if they have
    hooks or were replaced; for shapes, dtypes or transforms that the op does not support; under torch.compile (which
    fuses by itself), torch.export, torch.fx and torch.jit; and on a CPU for tensors below 2**17 elements per thread
    (with gradients 2**19, or 2**21 in 16-bit NCHW), for which they are faster.

    Parameters, buffers, their names, the state dict, hooks, `isinstance`, training mode, devices, dtypes, memory
    formats, autocast and copies are unaffected; a pickle contains the plain classes, so call `accelerate` again after
    loading. `type(block)` becomes a subclass of the same name.

    Args:
        module: any nn.Module, which is changed in place; a second call has no effect.
        verify: a sample input (a tensor, a tuple of arguments, or a dict of keyword arguments) on which the module runs
            before and after, in evaluation mode and with all pairs fused, however small. Outputs may be any structure
            of tensors.
        tolerance: largest difference of these outputs, relative to their largest magnitude if this exceeds 1.

    Returns:
        Report: what was fused, and what was not and why. To undo the changes, call `report.undo()`, or use
            `with accelerate(module):`.

    Raises:
        TypeError: `module` is not an nn.Module.
        RuntimeError: the sample's outputs differ by more than the tolerance; all changes are undone first.

    Example:
        >>> net = nn.Sequential(nn.GroupNorm(2, 8), nn.SiLU(), nn.Conv2d(8, 8, 3))
        >>> print(accelerate(net))
        1 fused, 0 unchanged
          fused  0, then 1, in Sequential
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"accelerate: module must be an nn.Module, got {type(module).__name__}")
    if isinstance(tolerance, bool) or not isinstance(tolerance, (int, float)) or not tolerance >= 0:
        raise ValueError(f"accelerate: tolerance must be a number of at least 0, got {tolerance!r}")
    before = None if verify is None else _outputs(module, verify)
    report = Report()
    names = {id(m): name for name, m in module.named_modules()}
    reasons: dict[int, str] = {}  # of norms, by the module whose forward was looked at
    made: dict[tuple, type] = {}
    fused: dict[int, Fused] = {}
    for owner in list(module.modules()):
        if isinstance(owner, nn.GroupNorm) or not any(isinstance(m, nn.GroupNorm) for m in owner.modules()):
            continue
        plain = type(owner)
        if issubclass(plain, _Fused):
            reasons |= {id(m): f"{plain.__name__} is accelerated already" for m in _near(owner)}
            continue
        try:
            forward, pairs = _forward(owner)
            pairs = [pair for pair in pairs if id(pair.norm) in names]
            key = (plain, tuple((pair.line, pair.activation) for pair in pairs))
            if pairs and key not in made:
                made[key] = _fused_class(plain, forward)
        except Unprovable as reason:
            reasons |= {id(m): f"{plain.__name__}: {reason}" for m in _near(owner)}
            continue
        reasons |= {
            id(m): f"in {plain.__name__} its result does not go through a SiLU alone"
            for m in _near(owner)
            if id(m) not in reasons
        }
        if not pairs:
            continue
        where = plain.__name__ if forward is _sequential else f"{plain.__name__}.forward"
        fused |= {id(p.norm): Fused(names[id(p.norm)], p.activation, where) for p in pairs}
        owner.__class__ = made[key]
        report._classes.append((owner, plain))
    for name, norm in module.named_modules():
        if isinstance(norm, nn.GroupNorm) and id(norm) in fused:
            report.fused.append(fused[id(norm)])
        elif isinstance(norm, nn.GroupNorm) and after_silu(norm) is None:
            report.unchanged[name] = _own_reason(norm) or reasons.get(id(norm), "no forward that calls it was found")
    if before is not None:
        try:
            with at_any_size():
                report.difference = _compared(before, _outputs(module, verify), tolerance)
        except BaseException:
            report.undo()
            raise
    return report


def _forward(owner: nn.Module) -> tuple[Callable, list[Pair]]:
    if "forward" in owner.__dict__:
        raise Unprovable("it has a forward of its own, set on the instance")
    if isinstance(owner, torch.jit.ScriptModule):
        raise Unprovable("it is a TorchScript module")
    if type(owner).forward is nn.Sequential.forward:
        layers = list(owner.named_children())
        found = [
            Pair(norm, name, 0)
            for (_, norm), (name, layer) in pairwise(layers)
            if is_group_norm(norm) and after_silu(layer) is not None
        ]
        return _sequential, found
    return rewritten(owner)


def _sequential(self: nn.Sequential, input: Any) -> Any:
    """Run nn.Sequential.forward with each pair as one call."""
    layers = list(self)
    while layers:
        layer = layers.pop(0)
        if layers and isinstance(layer, nn.GroupNorm):
            input = silu_of_norm(layers.pop(0), layer, input)
        else:
            input = layer(input)
    return input


_sequential.__wrapped__ = nn.Sequential.forward  # the source that torch.jit.script compiles


class _Fused:
    """Base of the classes made here; their instances are pickled with the plain class, and copied with this one."""

    _plain: type

    def __init_subclass__(cls) -> None:
        """Do nothing: the plain class's own hook may register a subclass by its name, or want arguments."""

    def __copy__(self) -> Any:
        own = getattr(super(), "__copy__", None)
        return own() if own else _reconstruct(self, None, *super().__reduce_ex__(4))

    def __deepcopy__(self, memo: dict) -> Any:
        own = getattr(super(), "__deepcopy__", None)
        return own(memo) if own else _reconstruct(self, memo, *super().__reduce_ex__(4))

    def __reduce_ex__(self, protocol: Any) -> Any:
        reduced = super().__reduce_ex__(protocol)
        if isinstance(reduced, str) or reduced[1][:1] != (type(self),):
            return reduced
        return copyreg._reconstructor, (self._plain, object, None), *reduced[2:]  # __newobj__ wants the class itself


def _fused_class(plain: type, forward: Callable) -> type:
    names = {"forward": forward, "_plain": plain, "__module__": plain.__module__, "__qualname__": plain.__qualname__}
    try:
        return type(plain.__name__, (_Fused, plain), names)
    except TypeError as error:
        raise Unprovable(f"its class cannot be extended ({error})") from None


def _near(owner: nn.Module) -> Iterator[nn.GroupNorm]:
    """Yield the norms that `owner`'s forward calls: its children, and those in containers without a forward."""
    for child in owner.children():
        if isinstance(child, nn.GroupNorm):
            yield child
        elif isinstance(child, (nn.ModuleList, nn.ModuleDict, nn.Sequential)):
            yield from _near(child)


def _own_reason(norm: nn.GroupNorm) -> str | None:
    if not has_known_forward(type(norm)):
        return f"{type(norm).__name__} has a forward of its own"
    if "forward" in norm.__dict__ or any(getattr(norm, name) for name in HOOKS):
        return "it has hooks, which see its result"
    return None


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    modes = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(0)
            yield
    finally:
        for part, mode in modes:  # by `train`, where some layers merge and separate weights; parents come first
            if part.training != mode:
                part.train(mode)


def _outputs(module: nn.Module, sample: Any) -> list[Tensor]:
    with _evaluating(module):
        if isinstance(sample, Mapping):
            return _tensors(module(**sample))
        return _tensors(module(*sample) if isinstance(sample, (tuple, list)) else module(sample))


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value.detach().clone()]
    if isinstance(value, Mapping):
        value = list(value.values())
    elif not isinstance(value, (Sequence, str)) and hasattr(value, "__dict__"):
        value = list(vars(value).values())
    return [t for v in value for t in _tensors(v)] if isinstance(value, (list, tuple)) else []


def _compared(before: list[Tensor], after: list[Tensor], tolerance: float) -> float:
    worst = 0.0
    if len(before) != len(after) or not before:
        raise RuntimeError(
            f"accelerate: {len(before)} output tensors became {len(after)}, so the module is left unchanged"
        )
    for old, new in zip(before, after):
        if (old.shape, old.dtype) != (new.shape, new.dtype):
            raise RuntimeError(f"accelerate: an output changed from {old.shape} {old.dtype} to {new.shape} {new.dtype}")
        if old.numel() == 0:
            continue
        wide = torch.promote_types(old.dtype, torch.float64)  # complex numbers stay complex
        old, new = old.to(wide), new.to(wide)
        equal = (old == new) | (old.isnan() & new.isnan())  # infinities too, whose difference is not a number
        error = float(torch.where(equal, 0.0, (old - new).abs().nan_to_num(float("inf"))).max())
        if not error <= tolerance * max(1.0, float(old.abs().nan_to_num(0.0, 0.0).max())):
            raise RuntimeError(f"accelerate: outputs differ by {error:.2e}, so the module is left unchanged")
        worst = max(worst, error)
    return worst
