"""Control how much of each factor is corrected, and adjust decisions about the whole image."""

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

LARGEST = torch.finfo(torch.float32).max  # of a strength: the gates that it multiplies are float32

# Called with the name and value of a decision about the whole image, which no pixel can see changing from one frame of
# a video to the next without flickering; returns the value to use. In order: "enhancer gate" [B, 1, 1, 1] (if there is
# an enhancer) and "presence" [B, K] once per image, then "gates" [B, K] once per call of the network.
Adjust = Callable[[str, Tensor], Tensor]


def strengths(
    factors: tuple[str, ...], strength: Mapping[str, float] | None = None, only: Iterable[str] | None = None
) -> tuple[float, ...] | None:
    """Return one number per factor that multiplies its expert's gate alpha_k, or None if nothing was requested.

        v = v_shared + Σ_k strength_k · alpha_k · m_k ⊙ Δ_k

    strength maps factors to numbers >= 0 (1: as trained); only lists the factors to correct, and the others get 0. The
    gates are not renormalised. Even if all strengths are 0, the shared part of the network still changes the image,
    because it learns the corrections that all factors have in common.

    Raises ValueError for a model without factors, unknown factors, negative or infinite numbers, and a factor in
    `strength` that `only` excludes; TypeError for values that are not numbers.
    """
    if strength is None and only is None:
        return None
    if not factors:
        raise ValueError("strength and only must be omitted, because this model has no factors")
    strength = dict(strength or {})
    if isinstance(only, str):
        raise TypeError(f"only must be a collection of factor names, not the string {only!r}")
    chosen = set(factors) if only is None else set(only)
    unknown = sorted((chosen | strength.keys()) - set(factors))
    if unknown:
        raise ValueError(f"factors must be among {', '.join(factors)}, got {', '.join(map(repr, unknown))}")
    for name, value in strength.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"strength of {name} must be a number >= 0, got {type(value).__name__}")
        if not 0 <= value <= LARGEST:
            raise ValueError(f"strength of {name} must be a number >= 0 (1 is as trained, 0 is off), got {value}")
        if name not in chosen and value != 0:
            raise ValueError(
                f"strength of {name} is {value}, but only {', '.join(sorted(chosen)) or 'none'} was requested"
            )
    return tuple(float(strength.get(name, 1.0)) if name in chosen else 0.0 for name in factors)


def scaled(gates: Tensor, strength: tuple[float, ...] | None) -> Tensor:
    """Multiply gates [B, K] by the strengths."""
    return gates if strength is None else gates * gates.new_tensor(strength)


def adjusted(value: Tensor, name: str, adjust: Adjust | None) -> Tensor:
    """Return the value to use for a decision: ``adjust(name, value)``, or the value itself without `adjust`."""
    return value if adjust is None else adjust(name, value)
