"""How much more the experts of factors that are there do than those of factors that are not."""

from statistics import mean, median
from typing import NamedTuple

import torch
from torch import Tensor

EPSILON = 1e-6  # added to every denominator: an expert that is fully off would give infinity
MASK = 0.05  # a pixel is inside a factor's mask where its true map is above this


class Ratio(NamedTuple):
    """ratio: mean over the set of the numerators by that of the denominators; median: of the images' own ratios."""

    ratio: float
    median: float


class Selectivity:
    """Three ratios over a set of images, with e = alpha_k m_k the effective gate of expert k:

        present_absent  mean e of the factors present (image means) / mean e of those absent
        max_min         largest / smallest e of the image means
        inside_masks    as the first, from the pixels alone where a factor present acts (its true map > 0.05)

    "Selectivity ratio" has no public definition; reports name which of these they mean. Source: F²D-Net's page.
    """

    def __init__(self):
        self._pairs: dict[str, list[tuple[float, float]]] = {"present_absent": [], "max_min": [], "inside_masks": []}

    def update(self, gates: Tensor, maps: Tensor, labels: Tensor, true_maps: Tensor) -> None:
        """A batch: gates alpha [B,K]; maps m [B,K,H,W]; labels [B,K] in {0, 1}; true_maps [B,K,H,W] in [0, 1].

        Images in which all factors are present, or none, count for max_min alone. ValueError for shapes that differ.
        """
        batch, factors = gates.shape
        if labels.shape != gates.shape or maps.shape[:2] != gates.shape or true_maps.shape != maps.shape:
            raise ValueError(
                f"selectivity: gates {tuple(gates.shape)}, labels {tuple(labels.shape)}, maps {tuple(maps.shape)} and "
                f"true maps {tuple(true_maps.shape)} do not fit; give [B,K], [B,K], [B,K,H,W], [B,K,H,W]"
            )
        pixels = gates.double()[:, :, None, None] * maps.double()
        for b in range(batch):
            effective, present = pixels[b].mean((1, 2)), labels[b] > 0
            self._pairs["max_min"].append((float(effective.max()), float(effective.min())))
            if not 0 < int(present.sum()) < factors:
                continue
            self._add("present_absent", effective[present], effective[~present])
            masks = true_maps[b][present] > MASK
            inside = [pixels[b, k][mask].mean() for k, mask in zip(present.nonzero()[:, 0], masks) if mask.any()]
            if inside:
                where = masks.any(0)
                self._add("inside_masks", torch.stack(inside), pixels[b][~present][:, where].mean(1))

    def _add(self, name: str, present: Tensor, absent: Tensor) -> None:
        self._pairs[name].append((float(present.mean()), float(absent.mean())))

    def compute(self) -> dict[str, Ratio]:
        """The ratios by name; of those that no image counted for, NaN."""
        return {name: _ratio(pairs) for name, pairs in self._pairs.items()}


def _ratio(pairs: list[tuple[float, float]]) -> Ratio:
    if not pairs:
        return Ratio(float("nan"), float("nan"))
    above, below = (mean(column) for column in zip(*pairs))
    return Ratio(above / (below + EPSILON), median(a / (b + EPSILON) for a, b in pairs))
