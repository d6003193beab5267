"""Schedules as tables on the device: one row per time, looked up without synchronising with the host."""

import numbers
from collections.abc import Sequence
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn

from f2d_kernels._checks import whole
from f2d_kernels.integrations._options import brief, count
from f2d_kernels.ops.gaussian_transition import gaussian_transition

# A step adds these to the seed per unit of time and per sample, modulo 2**64: 1/p and 1/p**2 in 64 bits, p the plastic
# number. No two triples (seed, time, sample) have one key where each of their parts differs by less than 2**20.
PER_TIME = 0xC13FA9A902A6328F - 2**64
PER_SAMPLE = 0x91E10DA5C79E7B1D - 2**64


class Tables(nn.Module):
    """Named tables [times, columns], kept in float32 and float64 on the module's device, and not in its state dict.

    `.half()`, `.to(dtype)` and `.to_empty(device=...)` do not change them, since a schedule in 16 bits would be a
    different schedule, and one without values none.
    """

    def __init_subclass__(cls) -> None:
        """Let the class compute on the CPU whatever the default device is, to which its tables go afterwards, except to
        "meta", whose modules get their device by `.to_empty`."""
        compute = cls.__init__

        @wraps(compute)
        def init(self: Any, *arguments: Any, **options: Any) -> None:
            home = torch.get_default_device()
            with torch.device("cpu"):
                compute(self, *arguments, **options)
            if home.type != "meta":
                self.to(home)

        cls.__init__ = init  # type: ignore[method-assign]

    def __init__(self, times: Sequence[int]):
        super().__init__()
        self.times = tuple(times)
        self._slots: dict[str, dict[int, int]] = {}
        self._quiet: dict[str, list[bool]] = {}

    def _add(self, name: str, times: Sequence[int], columns: Sequence[Tensor]) -> None:
        """Add table `name` with a row for each of `times`, from float64 columns [len(times)]; others have no row."""
        rows = torch.stack(list(columns), 1).double().cpu()
        if not rows.float().isfinite().all():
            raise ValueError(f"{type(self).__name__}: the schedule gives coefficients that are not finite")
        # A time without a row leads to a row that does not exist, where PyTorch's own lookup fails, on a GPU too. The
        # second half of the slots is what negative times reach where they count from the end (in compiled graphs).
        slots = torch.full((2 * max(times) + 2,), len(rows))
        slots[torch.as_tensor(times)] = torch.arange(len(rows))
        self.register_buffer(f"_{name}_slots", slots, persistent=False)
        self.register_buffer(f"_{name}_32", rows.float(), persistent=False)
        self.register_buffer(f"_{name}_64", rows, persistent=False)
        self._slots[name] = {t: i for i, t in enumerate(times)}
        self._quiet[name] = [row[-1] == 0 for row in rows.tolist()]

    def _time(self, name: str, t: int | Tensor, like: Any) -> int | Tensor:
        """Check `t`; return it as an int, or as an int64 tensor [] or [B] on the tables' device.

        Times on the CPU are looked at; those on another device, and in compiled graphs, are not, and fail in `_row`.
        """
        owner, slots = type(self).__name__, self._slots[name]
        compiling = torch.compiler.is_compiling()
        device = getattr(self, f"_{name}_slots").device
        if compiling and not isinstance(t, (Tensor, int)) and hasattr(t, "dtype"):  # NumPy's, a tensor to the compiler
            t = torch.as_tensor(t)
        if not isinstance(t, Tensor):
            t = count(owner, "t", t, "a whole number or a tensor of whole numbers")
            if compiling:  # one graph for all times
                return torch.full((), t, dtype=torch.int64, device=device)
            if t not in slots:
                raise ValueError(f"{owner}: t must be among {brief(sorted(slots))}, got {t}")
            return t
        if t.is_floating_point() or t.is_complex() or t.dtype == torch.bool:
            raise TypeError(f"{owner}: t must be a whole number or a tensor of whole numbers, got {t.dtype}")
        batch = like.shape[0] if isinstance(like, Tensor) and like.dim() else 1
        if t.numel() not in (1, batch) or t.numel() != (t.shape[0] if t.dim() else 1):
            raise ValueError(f"{owner}: t must hold one time, or one per sample (B = {batch}), got {list(t.shape)}")
        t = t.long().reshape(() if t.numel() == 1 else -1)
        if t.device.type != "cpu" or compiling or torch._C._are_functorch_transforms_active():
            return t.to(device)
        for one in t.reshape(-1).tolist():
            self._time(name, one, like)
        return t.to(device, non_blocking=True) if t.dim() else int(t)

    def _row(self, name: str, t: int | Tensor, like: Sequence[Tensor | None]) -> Tensor:
        """Return [columns] for one time of `_time`, [B,columns] for [B] of them; float64 if one of the images is."""
        wide = any(isinstance(x, Tensor) and x.dtype == torch.float64 for x in like)
        table = getattr(self, f"_{name}_{64 if wide else 32}")
        if not isinstance(t, Tensor):
            return table[self._slots[name][t]]
        rows = table.index_select(0, getattr(self, f"_{name}_slots").index_select(0, t.reshape(-1)))
        return rows if t.dim() else rows[0]

    def _linear(self, name: str, terms: Sequence[Any], t: int | Tensor, noise: dict[str, Any]) -> Tensor:
        """``Σ_j row[j] · terms[j] + row[-1] · ε`` with the row of table `name` at t; ε as `keyed` says."""
        t = self._time(name, t, terms[0])
        row, quiet = self._row(name, t, terms), self._quiet[name]
        silent = all(quiet) if isinstance(t, Tensor) else quiet[self._slots[name][t]]
        return gaussian_transition(terms, row[..., :-1], 0.0 if silent else row[..., -1], **keyed(noise, t, terms[0]))

    def _apply(self, fn: Any, recurse: bool = True) -> "Tables":
        exact = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, table in exact.items():
            moved = self._buffers[name]
            if table is not None and moved is not None:
                self._buffers[name] = table.to(moved.device)
        return self


def keyed(noise: dict[str, Any], t: int | Tensor, x: Any) -> dict[str, Any]:
    """Return the sources of noise for a step at t of images x [B,C,H,W]: one seed serves a whole trajectory.

    A seed becomes ``seed + t · PER_TIME + b · PER_SAMPLE`` modulo 2**64, b the sample's index, 0 where each sample has
    a seed of its own: the same noise whether t is an int, a tensor of one time or one time per sample, and another at
    every other time. With `stream` given, or without a seed, the sources stay as they are.
    """
    seed = noise.get("seed")
    if seed is None or "stream" in noise or not isinstance(x, Tensor) or not x.dim():
        return noise
    batch = x.shape[0]
    if isinstance(seed, Tensor):
        right = seed.dtype == torch.int64 and seed.layout == torch.strided and not seed.is_nested
        if not right or seed.device != x.device or seed.dim() > 1 or seed.numel() not in (1, batch):
            return noise  # the op says what is wrong
        key, shared = seed.reshape(-1), seed.numel() == 1
    elif isinstance(seed, bool) or not isinstance(seed, (int, numbers.Integral, torch.SymInt)):
        return noise
    else:
        number: Any = whole("", "seed", seed)
        if not -(2**63) <= number < 2**64:
            return noise
        if batch == 1 and not isinstance(t, Tensor):
            return noise | {"seed": _wrapped(int(number) + t * PER_TIME)}
        signed = number - 2**64 if number >= 2**63 else number
        key, shared = torch.full((1,), signed, dtype=torch.int64, device=x.device), True
    key = torch.add(key, t, alpha=PER_TIME) if isinstance(t, Tensor) else key + _wrapped(t * PER_TIME)
    if shared and batch != 1:
        key = torch.add(key, torch.arange(batch, device=x.device), alpha=PER_SAMPLE)
    return noise | {"seed": key}


def _wrapped(number: int) -> int:
    return (number + 2**63) % 2**64 - 2**63


def before(times: Sequence[int], values: Tensor, clean: float) -> Tensor:
    """Return `values` at the time that follows each of `times` in sampling, and `clean` after the last."""
    return torch.cat([values[list(times[1:])], torch.tensor([clean], dtype=torch.float64)])


def clipped(x: Tensor, clip: float | None) -> Tensor:
    """Clamp x to -clip..clip; None for no limit. What is no floating tensor stays, so that the op refuses it."""
    return x if clip is None or not (isinstance(x, Tensor) and x.is_floating_point()) else x.clamp(-clip, clip)
