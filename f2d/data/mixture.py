"""Mix sources into one dataset in which each sample is a function of its index."""

import copy
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from math import lcm
from pathlib import Path

from torch import Tensor
from torch.utils.data import Dataset

from f2d.data.alone import compress
from f2d.data.augment import Augment, centre_crop
from f2d.data.categories import SYNTHESISED, can_synthesise, canonical, check_factors, jpeg_quality
from f2d.data.find import open_pool
from f2d.data.pictures import BUDGET, Pictures
from f2d.data.pool import Pool
from f2d.data.sample import Sample
from f2d.data.source import OWNER, Source

_VALIDATION_SEED = 1_000_000


@dataclass(frozen=True)
class _Part:
    """A pool, its frequency, and the frequency and entries of each of its categories."""

    pool: Pool
    ratio: float
    frequencies: dict[str, float]
    entries: dict[str, Sequence[int]]

    def used(self) -> list[int]:
        return sorted(set().union(*map(set, self.entries.values())))


class Mixture(Dataset):
    """``mixture[index, crop]`` -> `Sample` of [3,crop,crop], a function of (seed, index, crop) alone.

    The source is drawn by ratio, then the category by frequency, the entry, the crop and the augmentation. A crop of
    another size shows the same image with the same degradation. Runs can therefore resume, and be split over workers
    and machines, without changing any sample. Decoded files stay in memory up to `budget` bytes per process.

    Raises ValueError, before anything is decoded, if there are no sources, for files in another layout than stated, for
    categories that a source lacks or that cannot be synthesised, for a category with a factor that is not among
    `factors` (the network's), and for images smaller than the largest of `crop_check`, crops by the names of the
    recipe's fields that ask for them.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        root: str | Path,
        factors: Sequence[str],
        augment: Augment | None = None,
        seed: int = 0,
        crop_check: Mapping[str, int] | None = None,
        budget: int = BUDGET,
    ):
        if not sources:
            raise ValueError("sources must have at least one entry, with the path of its folder")
        self.seed, self.augment = seed, augment or Augment()
        pictures = Pictures(budget)
        self.parts = [_part(source, Path(root), tuple(factors), pictures) for source in sources]
        if crop_check:  # only headers are read
            name, crop = max(crop_check.items(), key=lambda item: item[1])
            for part in self.parts:
                for entry in part.used():
                    _check_crop(part.pool.entries[entry].name, part.pool.size(entry), crop, f" ({name})")

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        index, crop = key
        draws = random.Random(mixed(self.seed, index))
        part = self.parts[_choice([part.ratio for part in self.parts], draws)]
        category = list(part.frequencies)[_choice(list(part.frequencies.values()), draws)]
        entries = part.entries[category]
        entry, seed = entries[draws.randrange(len(entries))], draws.getrandbits(62)
        degraded, clean = part.pool.read(entry)
        _check_crop(part.pool.entries[entry].name, (clean.shape[2], clean.shape[1]), crop)
        clean, degraded = self.augment(clean, degraded, crop, draws)
        return _sample(clean, degraded, category, seed)

    def split(self, count: int, crop: int) -> tuple["Mixture", list[Sample]]:
        """Return (the mixture without the held-out scenes, `count` samples of these), for training and validation.

        Each source contributes its share of the samples, from evenly spaced scenes, at most a tenth of its scenes; all
        entries of a scene are held out together, those of other sources too. The samples are centre crops with fixed
        seeds, taking the categories in turn, so every validation uses the same ones. No pair is used twice, so there
        may be fewer than `count`. Raises ValueError for a source with a single scene, and if no image would be left to
        train a category.
        """
        train = copy.copy(self)
        shares = [len(range(number, count, len(self.parts))) for number in range(len(self.parts))]
        held = [_held_out(part, share) for part, share in zip(self.parts, shares)]
        of_any = set().union(*held)  # sources may share their photographs
        train.parts = [_trained(part, of_any) for part in self.parts]
        parts = [_those(part, scenes, True) for part, scenes in zip(self.parts, held)]
        chosen = [[(part, *pick) for pick in _in_turn(part, share)] for part, share in zip(parts, shares)]
        in_turn = [picks[k] for k in range(count) for picks in chosen if k < len(picks)]
        return train, [_fixed_sample(*pick, crop, number) for number, pick in enumerate(in_turn)]


def mixed(*numbers: int) -> int:
    """Hash whole numbers to 64 bits by SplitMix64's finaliser; sequences that differ only in the last number never
    collide. Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (OOPSLA 2014)."""
    state, mask = 0, 2**64 - 1
    for number in numbers:
        state = ((state ^ (number & mask)) + 0x9E3779B97F4A7C15) & mask
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & mask
        state ^= state >> 31
    return state


def _part(source: Source, root: Path, factors: tuple[str, ...], pictures: Pictures) -> _Part:
    pool = open_pool(
        root / source.path,
        source.layout,
        category=source.category,
        degraded=source.degraded,
        clean=source.clean,
        pattern=source.pattern,
        pictures=pictures,
    )
    where = f"{OWNER} {source.path}: "
    frequencies = _frequencies(source, pool, where)
    for category in frequencies:
        check_factors(category, factors, where)
    return _Part(pool, source.ratio, frequencies, {category: pool.entries_of(category) for category in frequencies})


def _frequencies(source: Source, pool: Pool, where: str) -> dict[str, float]:
    named = {canonical(name): weight for name, weight in source.categories.items()}
    if len(named) < len(source.categories):
        raise ValueError(f"{where}categories lists a category twice, with its factors in a different order")
    if pool.synthesised:
        if source.category is not None:
            named = {canonical(source.category): 1.0}
        unknown = [name for name in named if not can_synthesise(name)]
        known: tuple[str, ...]
        known, frequencies = SYNTHESISED, named or dict.fromkeys(pool.categories, 1.0)
    else:
        unknown = [name for name in named if name not in pool.categories]
        known, frequencies = pool.categories, {name: named.get(name, 1.0) for name in pool.categories}
    if unknown:
        raise ValueError(f"{where}categories must be among {', '.join(known)}, got {', '.join(unknown)}")
    frequencies = {name: weight for name, weight in frequencies.items() if weight > 0}
    if not frequencies:
        raise ValueError(f"{where}categories are all 0, but at least one must be above 0")
    return frequencies


def _held_out(part: _Part, share: int) -> set[str]:
    """Return the scenes to hold out: evenly spaced, at most `share` and a tenth of all."""
    entries = part.pool.entries
    scenes = sorted({entries[entry].scene for entry in part.used()})
    if len(scenes) < 2:
        raise ValueError(
            f"{entries[0].name} is the only image, but training needs at least two: one is held out for validation"
        )
    number = min(share, max(1, len(scenes) // 10))
    return {scenes[k * len(scenes) // number] for k in range(number)}


def _trained(part: _Part, held: set[str]) -> _Part:
    """Return the part that is left to train; raise ValueError if a category has no image left."""
    kept = _those(part, held, False)
    bare = [category for category, entries in kept.entries.items() if not entries]
    if bare:
        first = part.pool.entries[0].name
        raise ValueError(f"{first}: all images of {', '.join(bare)} would be held out for validation, so add more")
    return kept


def _those(part: _Part, scenes: set[str], wanted: bool) -> _Part:
    """Return the part with the entries of these scenes, or of all others."""
    entries = part.pool.entries
    chosen: dict[str, Sequence[int]] = {
        c: [e for e in of_category if (entries[e].scene in scenes) == wanted] for c, of_category in part.entries.items()
    }
    return replace(part, entries=chosen)


def _in_turn(held: _Part, count: int) -> list[tuple[str, int]]:
    """Return `count` (category, entry), all equally often; entries of given pairs are not repeated."""
    categories = [category for category, entries in held.entries.items() if entries]
    picks = []
    for j in range(count):
        category = categories[j % len(categories)]
        entries = held.entries[category]
        # an extra step once all combinations that cycling both in step can reach have been used
        picks.append((category, entries[(j + j // lcm(len(categories), len(entries))) % len(entries)]))
    return picks if held.pool.synthesised else list(dict.fromkeys(picks))


def _fixed_sample(part: _Part, category: str, entry: int, crop: int, number: int) -> Sample:
    degraded, clean = part.pool.read(entry)
    _check_crop(part.pool.entries[entry].name, (clean.shape[2], clean.shape[1]), crop)
    degraded = None if degraded is None else centre_crop(degraded, crop)
    return _sample(centre_crop(clean, crop), degraded, category, _VALIDATION_SEED + number)


def _sample(clean: Tensor, degraded: Tensor | None, category: str, seed: int) -> Sample:
    quality = jpeg_quality(category)
    if degraded is None and quality is not None:  # here rather than in the step, since it runs on the CPU
        degraded = compress(clean, quality)
    return Sample(clean, degraded, category, seed)


def _choice(weights: Sequence[float], draws: random.Random) -> int:
    sums = list(accumulate(weights))
    point = draws.random() * sums[-1]
    return next((i for i, bound in enumerate(sums) if point < bound), len(sums) - 1)


def _check_crop(name: str, size: tuple[int, int], crop: int, asked: str = "") -> None:
    if min(size) < crop:
        raise ValueError(f"{name} is {size[0]}x{size[1]}, smaller than the crop of {crop}{asked}")
