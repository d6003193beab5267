"""Checks of the arguments of an expert assembly: deltas in either form, gates, maps, base."""

from typing import Any

from torch import Tensor

from f2d_kernels._checks import check_device, check_floating, check_shape


def check_experts(
    op: str, deltas: list[Tensor], stacked: bool, gates: Tensor, maps: Tensor | None, base: Tensor | None
) -> tuple[int, int, int, int]:
    """Return the shape (B, C, H, W) of the assembly; raise TypeError or ValueError for mismatched arguments.

    `stacked`: deltas is [one tensor [B or 1,K,C,H,W]], else K tensors [B,C,H,W].
    """
    if not deltas:
        raise ValueError(f"{op}: deltas must hold at least one tensor [B,C,H,W], got an empty sequence")
    named: list[tuple[str, Any]] = [("deltas" if stacked else f"deltas[{k}]", d) for k, d in enumerate(deltas)]
    for name, value in [*named, ("gates", gates), ("maps", maps), ("base", base)]:
        if value is not None or name not in ("maps", "base"):
            check_floating(op, name, value)
            check_device(op, name, value, deltas[0].device)
    first = deltas[0]
    if stacked and (first.dim() != 5 or first.shape[1] == 0):
        raise ValueError(f"{op}: deltas must be [B,K,C,H,W] with K >= 1, got {list(first.shape)}")
    if not stacked and first.dim() != 4:
        raise ValueError(f"{op}: deltas[0] must be [B,C,H,W], got {list(first.shape)}")
    for name, value in named[1:]:
        check_shape(op, name, value, first.shape, "the shape of deltas[0]")
    experts = first.shape[1] if stacked else len(deltas)
    channels, height, width = first.shape[-3:]
    if gates.dim() not in (2, 3) or tuple(gates.shape[1:]) not in ((experts,), (experts, channels)):
        raise ValueError(
            f"{op}: gates must be [B,K] or [B,K,C] with K = {experts}, C = {channels}, got {list(gates.shape)}"
        )
    batch = gates.shape[0]
    if first.shape[0] != batch and not (stacked and first.shape[0] == 1):
        raise ValueError(f"{op}: deltas {list(first.shape)} and gates {list(gates.shape)} differ in the batch size")
    if maps is not None:
        check_shape(op, "maps", maps, (batch, experts, height, width), "[B,K,H,W]")
    if base is not None:
        check_shape(op, "base", base, (batch, channels, height, width), "[B,C,H,W]")
    return batch, channels, height, width
