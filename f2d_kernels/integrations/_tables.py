"""Schedules as tables on the device: one row per time, looked up without a word to or from the host."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from f2d_kernels.ops.gaussian_transition import gaussian_transition

MAX_STREAM = 65535


class Tables(nn.Module):
    """Named tables [times, columns], kept in float32 and float64 on the module's device, and not in its state dict.

    `.half()` and `.to(dtype)` leave them as they are: a schedule in 16 bits would be another schedule.
    """

    def __init__(self, times: Sequence[int]):
        super().__init__()
        self.times = tuple(times)
        self._rows: dict[str, dict[int, tuple[float, ...]]] = {}

    def _add(self, name: str, times: Sequence[int], columns: Sequence[Tensor]) -> None:
        """Table `name` with a row for each of `times`, from float64 columns [len(times)]; NaN at all other times."""
        rows = torch.stack(list(columns), 1).double().cpu()
        if not rows.isfinite().all():
            raise ValueError(f"{type(self).__name__}: the schedule gives coefficients that are not finite")
        table = torch.full((max(times) + 1, rows.shape[1]), float("nan"), dtype=torch.float64)
        table[torch.as_tensor(times)] = rows
        self.register_buffer(f"_{name}_32", table.float(), persistent=False)
        self.register_buffer(f"_{name}_64", table, persistent=False)
        self._rows[name] = dict(zip(times, map(tuple, rows.tolist())))

    def _row(self, name: str, t: int | Tensor, like: Sequence[Tensor | None]) -> Tensor:
        """[columns] for one time, [B,columns] for a tensor [B] of times: float64 where an image is."""
        wide = any(isinstance(x, Tensor) and x.dtype == torch.float64 for x in like)
        table = getattr(self, f"_{name}_{64 if wide else 32}")
        if isinstance(t, Tensor):
            if t.is_floating_point() or t.dtype == torch.bool or t.dim() > 1:
                raise TypeError(f"{type(self).__name__}: t must be an int or a tensor [B] of whole numbers")
            return table[t.long()]
        rows = self._rows[name]
        if t not in rows:
            raise ValueError(f"{type(self).__name__}: no step at t = {t!r}; times are {_brief(sorted(rows))}")
        return table[t]

    def _linear(self, name: str, terms: Sequence[Any], t: int | Tensor, noise: dict[str, Any]) -> Tensor:
        """``Σ_j row[j] · terms[j] + row[-1] · ε`` with the row of table `name` at t; the stream is t unless given."""
        row = self._row(name, t, terms)
        silent = not isinstance(t, Tensor) and self._rows[name][t][-1] == 0
        return gaussian_transition(terms, row[..., :-1], 0.0 if silent else row[..., -1], **streamed(noise, t))

    def _apply(self, fn: Any, recurse: bool = True) -> "Tables":
        exact = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, table in exact.items():
            moved = self._buffers[name]
            if table is not None and moved is not None and moved.dtype != table.dtype:
                self._buffers[name] = table.to(moved.device)
        return self


def streamed(noise: dict[str, Any], t: int | Tensor) -> dict[str, Any]:
    """The sources of noise, with stream = t where no stream is given: one seed then serves a whole trajectory."""
    if "stream" in noise or isinstance(t, Tensor) or t > MAX_STREAM:
        return noise
    return noise | {"stream": t}


def levels(owner: str, name: str, values: Tensor | Sequence[float]) -> Tensor:
    """`values` as a float64 tensor [T] on the CPU; ValueError unless there is at least one and all are finite."""
    values = values.detach() if isinstance(values, Tensor) else values
    found = torch.as_tensor(values, dtype=torch.float64, device="cpu")
    if found.dim() != 1 or len(found) == 0 or not found.isfinite().all():
        raise ValueError(f"{owner}: {name} must hold T finite numbers, got shape {list(found.shape)}")
    return found


def visited(owner: str, times: Sequence[int] | None, count: int) -> list[int]:
    """The times of a sampler, noisiest first: `times`, or all of count-1..0. ValueError unless they fall in range."""
    found = list(range(count))[::-1] if times is None else [int(t) for t in times]
    if not found or not all(a > b for a, b in pairwise(found)) or found[-1] < 0 or found[0] >= count:
        raise ValueError(f"{owner}: times must fall from at most {count - 1} to at least 0, got {_brief(found)}")
    return found


def before(times: Sequence[int], values: Tensor, clean: float) -> Tensor:
    """`values` at the time that follows each of `times` in sampling: the next one's, and `clean` after the last."""
    return torch.cat([values[list(times[1:])], torch.tensor([clean], dtype=torch.float64)])


def _brief(times: Sequence[int]) -> str:
    return str(list(times)) if len(times) <= 8 else f"[{times[0]}, {times[1]}, ..., {times[-1]}]"
