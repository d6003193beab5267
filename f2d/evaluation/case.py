"""One image of a dataset: its source and its pixels."""

import hashlib
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from f2d.data.categories import factors_of
from f2d.data.pairs import fitted
from f2d.data.sample import Sample, finish, stack
from f2d.degradation import FACTORS
from f2d.evaluation.record import Record
from f2d.images import image_to_tensor
from f2d.metrics.batch import eight_bits


class Pixels(NamedTuple):
    """The pixels of a case, float32 [3, H, W] in [0, 1]; clean is None if there is no ground truth.

    maps: the ground-truth maps [4, H, W] in the order of `f2d.degradation.FACTORS`, or None if they are unknown.
    """

    degraded: Tensor
    clean: Tensor | None
    maps: Tensor | None


class Case(NamedTuple):
    """One image. name: ``category/place``, unique in its dataset. category: its row in the tables. factors: those that
    the image is known to have. A case without `degraded` is synthesised from `clean`, category and seed; a case without
    `clean` has no ground truth.
    """

    name: str
    category: str
    degraded: Path | None
    clean: Path | None
    seed: int = 0
    factors: tuple[str, ...] = ()

    def scene(self) -> str:
        """Read the clean file and return its hash, which is the same for all images of one clean photograph, and only
        for them, wherever its copies are; without ground truth, return the place. Raises OSError if it cannot be read.
        """
        if self.clean is None:
            return self.name.partition("/")[2]
        return hashlib.sha256(self.clean.read_bytes()).hexdigest()[:16]

    def load(self) -> Pixels:
        """Read the image, or synthesise it, rounded to 8 bits as a file would store it.

        Raises `f2d.images.ImageError` if a file cannot be read, and ValueError if the two images differ in size.
        """
        clean = None if self.clean is None else image_to_tensor(self.clean)
        if self.degraded is None:
            assert clean is not None  # a case has one or the other
            return self._synthesised(clean)
        degraded = image_to_tensor(self.degraded)
        if clean is not None:
            assert self.clean is not None
            clean = fitted(clean, degraded, self.clean, self.degraded)
        return Pixels(degraded, clean, None)

    def files(self, *others: Path) -> str:
        """Hash names, sizes and times of the files that a record depends on; if they change, it is evaluated again."""
        said = []
        for path in (self.degraded, self.clean, *others):
            with suppress(OSError):
                status = path and path.stat()
                said.append(f"{path} {status and (status.st_size, status.st_mtime_ns)} {self.seed}")
        return hashlib.sha256("\n".join(said).encode(errors="surrogateescape")).hexdigest()[:16]

    def changed_since(self, record: Record) -> bool:
        """Whether its files have changed since the record was made."""
        return record.data != self.files()

    def _synthesised(self, clean: Tensor) -> Pixels:
        draft = stack([Sample(clean, None, self.category, self.seed)])
        others = tuple(factor for factor in factors_of(self.category) if factor not in FACTORS)
        batch = finish(draft, (*FACTORS, *others))
        return Pixels(eight_bits(batch.degraded[0]), clean, None if others else batch.maps[0])
