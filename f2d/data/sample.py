"""Turn samples into the batch of a training step: workers stack them, and the step degrades them."""

import random
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from f2d.data.alone import add_noise, compress
from f2d.data.categories import CLEAR, SYNTHESISED, can_synthesise, check_factors, factors_of, jpeg_quality
from f2d.degradation import CATEGORIES, FACTORS, degrade_batch, varied_parameters


class Sample(NamedTuple):
    """One sample. clean, degraded: [3,H,W] in [0, 1]; degraded is None if it is to be synthesised by category and seed.
    category: names of factors joined by ``_``, "clear", "noise25" (sigma of 255; "noise": drawn from 0..50) or "jpeg10"
    (quality)."""

    clean: Tensor
    degraded: Tensor | None
    category: str
    seed: int


class Draft(NamedTuple):
    """Stacked samples before synthesis: clean, degraded [B,3,H,W]; given [B] bool: whether degraded is given (else it
    is zero); seeds [B] int64; categories, one name each. All are tensors and strings, so that a loader can pickle, pin
    and move them to a device."""

    clean: Tensor
    degraded: Tensor
    given: Tensor
    seeds: Tensor
    categories: tuple[str, ...]


class Batch(NamedTuple):
    """degraded, clean [B,3,H,W] in [0, 1]; maps [B,K,H,W] in [0, 1]; labels [B,K] in {0, 1}; seeds [B] int64;
    categories, one name each. K: the network's factors, in its order."""

    degraded: Tensor
    clean: Tensor
    maps: Tensor
    labels: Tensor
    seeds: Tensor
    categories: tuple[str, ...]


def stack(samples: Sequence[Sample]) -> Draft:
    """Stack samples: the collate function of a loader."""
    degraded = [torch.zeros_like(s.clean) if s.degraded is None else s.degraded for s in samples]
    return Draft(
        torch.stack([s.clean for s in samples]),
        torch.stack(degraded),
        torch.tensor([s.degraded is not None for s in samples]),
        torch.tensor([s.seed for s in samples]),
        tuple(s.category for s in samples),
    )


def finish(draft: Draft, factors: tuple[str, ...], varied_fraction: float = 0.0) -> Batch:
    """Degrade clean samples on the device of `draft.clean`; labels and maps are in the order of `factors`.

    varied_fraction: share of the composites whose parameters are drawn from wider ranges than the published ones
    (`f2d.degradation.varied_parameters`).

    Composites have their ground-truth maps (1 - light gain, 1 - transmission, R, S). If these are unknown (given pairs,
    noise, JPEG), a map equals its label, as in the papers' training. Sample b does not depend on the rest of the batch,
    and on the device only up to rounding. Raises ValueError for a category with a factor that the network lacks, or
    that cannot be synthesised.
    """
    given = draft.given.tolist()
    for category, there in zip(draft.categories, given, strict=True):
        check_factors(category, factors)
        if not there and not can_synthesise(category):
            raise ValueError(
                f"category {category} cannot be synthesised from a clean image, so use pairs, or one of "
                f"{', '.join(SYNTHESISED)}"
            )
    present = [[float(factor in factors_of(category)) for factor in factors] for category in draft.categories]
    labels = draft.clean.new_tensor(present).reshape(len(given), len(factors))
    maps = labels[:, :, None, None].expand(-1, -1, *draft.clean.shape[-2:]).clone()
    degraded = draft.degraded.clone()
    seeds = draft.seeds.tolist()
    composites = [b for b, there in enumerate(given) if not there and draft.categories[b] in CATEGORIES]
    if composites:
        names, chosen = [draft.categories[b] for b in composites], [seeds[b] for b in composites]
        recorded = [
            varied_parameters(name, seed) if random.Random(seed).random() < varied_fraction else {}
            for name, seed in zip(names, chosen)
        ]
        degraded[composites], true_maps, _, _ = degrade_batch(draft.clean[composites], names, chosen, recorded)
        for k, factor in enumerate(factors):
            if factor in FACTORS:
                maps[composites, k] = true_maps[:, FACTORS.index(factor)]
    for b, there in enumerate(given):
        if not there and b not in composites:
            degraded[b] = degraded_alone(draft.clean[b], draft.categories[b], seeds[b])
    return Batch(degraded, draft.clean, maps, labels, draft.seeds, draft.categories)


def degraded_alone(clean: Tensor, category: str, seed: int) -> Tensor:
    """Apply a category that is not a composite of CDD-11 to [3,H,W]: clear, noise or JPEG."""
    if category == CLEAR:
        return clean
    quality = jpeg_quality(category)
    return add_noise(clean, category, seed) if quality is None else compress(clean, quality)
