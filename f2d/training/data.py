"""Clean photographs as random crops, each with the category and seed its degradation is drawn from."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from f2d.degradation import CATEGORIES, degrade_batch
from f2d.images import IMAGE_SUFFIXES, image_to_tensor


class Batch(NamedTuple):
    """degraded, clean [B,3,H,W] in [0, 1]; maps [B,K,H,W] in [0, 1]; labels [B,K] in {0, 1}; seeds [B] int64."""

    degraded: Tensor
    clean: Tensor
    maps: Tensor
    labels: Tensor
    seeds: Tensor


def find_photographs(folder: Path, crop: int) -> list[Path]:
    """All image files below `folder`, sorted. ValueError when there are none or one is smaller than the crop."""
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise ValueError(f"no photographs below {folder}; give a folder with {', '.join(sorted(IMAGE_SUFFIXES))} files")
    for path in paths:
        with Image.open(path) as image:
            if min(image.size) < crop:
                raise ValueError(f"{path} is {image.size[0]}x{image.size[1]}, smaller than the crop of {crop}")
    return paths


class CleanCrops(Dataset):
    """Sample i is a function of (seed, i) alone: photograph, crop, augmentation, category and degradation seed.

    So a run resumes, and splits over workers and machines, without changing what any sample is. Augmentation: scale
    0.6..1.15, flips, quarter turns, gamma and per-channel gain on the clean picture.
    """

    def __init__(self, paths: list[Path], crop: int, seed: int, categories: dict[str, float] | None = None):
        unknown = sorted(set(categories or {}) - set(CATEGORIES))
        if unknown:
            raise ValueError(f"unknown categories {', '.join(unknown)}; there are {', '.join(CATEGORIES)}")
        # 524 photographs are 240 MB as bytes; decoding a PNG for every crop costs 15 ms
        self.images = [(image_to_tensor(path) * 255).round().to(torch.uint8) for path in paths]
        self.crop, self.seed = crop, seed
        self.weights = torch.tensor([(categories or {}).get(name, 1.0) for name in CATEGORIES])

    def __getitem__(self, index: int) -> tuple[Tensor, str, int]:
        g = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        category = CATEGORIES[int(torch.multinomial(self.weights, 1, generator=g))]
        degradation_seed = int(torch.randint(2**62, (1,), generator=g))
        image = self.images[int(torch.randint(len(self.images), (1,), generator=g))]
        return _augmented_crop(image, self.crop, g), category, degradation_seed

    def __len__(self) -> int:
        return 2**31  # samples are made, not counted; the sampler says how many

    def validation_batch(self, indices: range) -> Batch:
        """Centre crops of the first photographs, categories in turn: the same batch at every validation."""
        crops, categories = [], []
        for i in indices:
            image = self.images[i % len(self.images)]
            top, left = (image.shape[1] - self.crop) // 2, (image.shape[2] - self.crop) // 2
            crops.append(image[:, top : top + self.crop, left : left + self.crop].float() / 255)
            categories.append(CATEGORIES[i % len(CATEGORIES)])
        return collate([(c, name, 1_000_000 + i) for i, (c, name) in enumerate(zip(crops, categories, strict=True))])


def _augmented_crop(image: Tensor, size: int, g: torch.Generator) -> Tensor:
    def uniform(low: float, high: float, n: int = 1) -> Tensor:
        return low + (high - low) * torch.rand(n, generator=g)

    _, height, width = image.shape
    side = min(int(size / uniform(0.6, 1.15)), height, width)
    top = int(torch.randint(height - side + 1, (1,), generator=g))
    left = int(torch.randint(width - side + 1, (1,), generator=g))
    crop = image[:, top : top + side, left : left + side].float() / 255
    if side != size:
        crop = F.interpolate(crop[None], (size, size), mode="bilinear", antialias=True, align_corners=False)[0]
    turns, flip, colour = torch.rand(3, generator=g).tolist()
    crop = torch.rot90(crop, int(turns * 4), (1, 2))
    if flip < 0.5:
        crop = crop.flip(2)
    if colour < 0.5:
        crop = crop ** uniform(0.75, 1.35) * uniform(0.85, 1.1, 3).view(3, 1, 1)
    return crop.clamp(0, 1).contiguous()


def collate(samples: list[tuple[Tensor, str, int]]) -> Batch:
    """Degrade a list of (clean crop, category, seed) as one batch."""
    crops, categories, seeds = zip(*samples, strict=True)
    clean = torch.stack(crops)
    degraded, maps, labels, _ = degrade_batch(clean, list(categories), list(seeds))
    return Batch(degraded, clean, maps, labels, torch.tensor(seeds))


class Span(Sampler):
    """Indices start..stop-1 in order: the samples a run still has to see."""

    def __init__(self, start: int, stop: int):
        self.range = range(start, stop)

    def __iter__(self) -> Iterator[int]:
        return iter(self.range)

    def __len__(self) -> int:
        return len(self.range)
