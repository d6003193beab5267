"""How much of each factor is corrected: the factorization's own handle."""

import math
from collections.abc import Iterable, Mapping

from torch import Tensor


def strengths(
    factors: tuple[str, ...], strength: Mapping[str, float] | None = None, only: Iterable[str] | None = None
) -> tuple[float, ...] | None:
    """One number per factor, by which its expert's gate alpha_k is multiplied; None where nothing is asked for.

        v = v_shared + Σ_k strength_k · alpha_k · m_k ⊙ Δ_k

    strength: factor -> number >= 0 (1: as trained); only: these factors, the others get 0. The gates are not shared out
    anew. With all of them 0 the shared backbone speaks alone: not the image that came in, but what the network does to
    every picture alike, since training lets the backbone take whatever correction the factors have in common.

    ValueError for a model without factors, unknown factors, negative or infinite numbers, and a factor that `only`
    leaves out but `strength` asks for; TypeError for something that is no number.
    """
    if strength is None and only is None:
        return None
    if not factors:
        raise ValueError("strength and only choose among a model's factors, and this one has none; leave them out")
    strength = dict(strength or {})
    if isinstance(only, str):
        raise TypeError(f"only is the text {only!r}; give a collection of factor names")
    chosen = set(factors) if only is None else set(only)
    unknown = sorted((chosen | strength.keys()) - set(factors))
    if unknown:
        raise ValueError(f"no factor {', '.join(map(repr, unknown))}; this model has {', '.join(factors)}")
    for name, value in strength.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"strength of {name} is a {type(value).__name__}; give a number >= 0")
        if not (value >= 0 and math.isfinite(value)):
            raise ValueError(f"strength of {name} is {value}; give a number >= 0 (1 is as trained, 0 is off)")
        if name not in chosen and value != 0:
            raise ValueError(
                f"strength of {name} is {value}, but only {', '.join(sorted(chosen)) or 'none'} was asked for"
            )
    return tuple(float(strength.get(name, 1.0)) if name in chosen else 0.0 for name in factors)


def scaled(gates: Tensor, strength: tuple[float, ...] | None) -> Tensor:
    """gates [B, K] times the strengths."""
    return gates if strength is None else gates * gates.new_tensor(strength)
