"""Targets of the network's prediction v, and the clean image that a prediction implies."""

from torch import Tensor

TARGETS = ("SFLOW", "FLOW", "FINAL_X")


def target_of(name: str, x_t: Tensor, x_0: Tensor, mu: Tensor) -> Tensor:
    """``mu - x_t`` (SFLOW, the paper's), ``mu - x_0`` (FLOW) or ``mu`` (FINAL_X): the training target of v.

    x_t, x_0 and mu [B, C, H, W] are state, degraded and clean image. Raises ValueError for an unknown name.
    """
    anchor = _anchor(name, x_t, x_0)
    return mu if anchor is None else mu - anchor


def mu_of(name: str, prediction: Tensor, x_t: Tensor, x_0: Tensor) -> Tensor:
    """``x_t + v`` (SFLOW), ``x_0 + v`` (FLOW) or ``v`` (FINAL_X): the clean image that v implies, not clamped."""
    anchor = _anchor(name, x_t, x_0)
    return prediction if anchor is None else anchor + prediction


def _anchor(name: str, x_t: Tensor, x_0: Tensor) -> Tensor | None:
    if name not in TARGETS:
        raise ValueError(f"target must be one of {', '.join(TARGETS)}, got {name!r}")
    return {"SFLOW": x_t, "FLOW": x_0, "FINAL_X": None}[name]
