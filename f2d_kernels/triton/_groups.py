"""The experts of an op as views. More of them than one launch takes are split into groups of 8, each of which adds to
the result of the previous one."""

import torch
from torch import Tensor

GROUP = 8  # experts per launch; more would unroll into kernels that take seconds to compile


def experts_of(deltas: list[Tensor], batch: int) -> tuple[Tensor, ...]:
    """Return K views [B,C,H,W] of either form of deltas; deltas that the batch shares have a batch stride of 0."""
    listed = deltas[0].unbind(1) if deltas[0].dim() == 5 else deltas
    return tuple(delta.expand(batch, -1, -1, -1) for delta in listed)


def groups_of(count: int) -> list[slice]:
    return [slice(first, min(first + GROUP, count)) for first in range(0, count, GROUP)]


def select(tensor: Tensor | None, group: slice) -> Tensor | None:
    return None if tensor is None else tensor[:, group]


def targets_of(out: Tensor, launches: int, dtype: torch.dtype) -> list[Tensor]:
    """Return the target of each of `launches`: the last writes to `out`, the others, unrounded, to two workspaces in
    turn. With one workspace, a launch in the middle would add to its own result when the autotuner repeats it."""
    workspaces = [torch.empty_like(out, dtype=dtype) for _ in range(min(launches - 1, 2))]
    return [*(workspaces[i % 2] for i in range(launches - 1)), out]
