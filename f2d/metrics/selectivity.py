"""Selectivity: how much more the experts of present factors act than those of absent ones."""

from collections.abc import Iterable
from statistics import mean, median
from typing import NamedTuple

import numpy as np
from torch import Tensor

EPSILON = 1e-6  # added to every denominator, because an expert that is fully off would give infinity
MASK = 0.05  # a pixel is inside a factor's mask if its ground-truth map exceeds this
DEFINITIONS = ("present_absent", "max_min", "inside_masks")

Pairs = dict[str, tuple[float, float]]


class Ratio(NamedTuple):
    """ratio: mean numerator over mean denominator of the set. median: the median of the images' own ratios."""

    ratio: float
    median: float


def effective_gates(gates: Tensor, maps: Tensor) -> np.ndarray:
    """``e_k = alpha_k · mean m_k``, float64 [K], from gates [K] and maps [K,H,W]: how much each expert acts."""
    # NumPy's sums do not depend on the number of threads
    gate, map_ = (each.detach().cpu().double().numpy() for each in (gates, maps))
    return (gate[:, None, None] * map_).mean((1, 2))


def pairs_of(gates: Tensor, maps: Tensor, labels: Tensor, true_maps: Tensor | None = None) -> Pairs:
    """Compute numerator and denominator of each ratio for one image, with the effective gates e_k = alpha_k m_k:

        present_absent  mean e of the present factors / mean e of the absent ones, over the whole image
        max_min         largest / smallest mean of e over the image
        inside_masks    as present_absent, but over the pixels where a present factor acts (ground-truth map > 0.05)

    gates alpha [K]; maps m [K,H,W]; labels [K] in {0, 1}; true_maps [K,H,W] in [0, 1], or None if unknown. Ratios that
    do not apply are omitted: `inside_masks` without ground-truth maps, and all but `max_min` if all factors or none are
    present. Raises ValueError if the shapes do not match.

    "Selectivity ratio" has no public definition, so reports name which of these they mean. Source: F²D-Net's page.
    """
    factors = gates.shape
    fits = len(factors) == 1 and labels.shape == factors and maps.ndim == 3 and maps.shape[:1] == factors
    if not fits or (true_maps is not None and true_maps.shape != maps.shape):
        true = "no true maps" if true_maps is None else f"true maps {tuple(true_maps.shape)}"
        raise ValueError(
            f"selectivity: gates {tuple(gates.shape)}, labels {tuple(labels.shape)}, maps {tuple(maps.shape)} and "
            f"{true} must be [K], [K], [K,H,W], [K,H,W]"
        )
    # NumPy's sums do not depend on the number of threads
    gate, map_, present = (each.detach().cpu().double().numpy() for each in (gates, maps, labels))
    pixels, present = gate[:, None, None] * map_, present > 0
    effective = pixels.mean((1, 2))
    pairs = {"max_min": (effective.max(), effective.min())}
    if 0 < present.sum() < len(present):
        pairs["present_absent"] = (effective[present].mean(), effective[~present].mean())
        if true_maps is not None:
            masks = true_maps.detach().cpu().numpy()[present] > MASK
            inside = [gate[mask].mean() for gate, mask in zip(pixels[present], masks) if mask.any()]
            if inside:
                pairs["inside_masks"] = (np.mean(inside), pixels[~present][:, masks.any(0)].mean())
    return {name: (float(pairs[name][0]), float(pairs[name][1])) for name in DEFINITIONS if name in pairs}


def ratios(images: Iterable[Pairs]) -> dict[str, Ratio]:
    """Combine the results of `pairs_of`; each ratio is over the images that have it, and omitted if none has."""
    found = list(images)
    of_each = {name: [pairs[name] for pairs in found if name in pairs] for name in DEFINITIONS}
    return {name: _ratio(pairs) for name, pairs in of_each.items() if pairs}


def _ratio(pairs: list[tuple[float, float]]) -> Ratio:
    above, below = (mean(column) for column in zip(*pairs))
    return Ratio(above / (below + EPSILON), median(a / (b + EPSILON) for a, b in pairs))
