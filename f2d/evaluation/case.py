"""One image of a data set: its source and its pixels."""

import hashlib
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from f2d.data.categories import factors_of
from f2d.data.pairs import fitted
from f2d.data.sample import Sample, finish, stack
from f2d.degradation import FACTORS
from f2d.images import image_to_tensor
from f2d.metrics.batch import eight_bits


class Pixels(NamedTuple):
    """degraded, clean: float32 [3, H, W] in [0, 1], clean None where there is no truth. maps: the true maps
    [4, H, W] in the order of `f2d.degradation.FACTORS`, None where they are not known."""

    degraded: Tensor
    clean: Tensor | None
    maps: Tensor | None


class Case(NamedTuple):
    """name: unique in its data set, ``category/place``. category: the row of the tables that it counts in. factors:
    those known to be in it. A case without `degraded` is made of `clean`, category and seed; one without `clean` has no
    truth."""

    name: str
    category: str
    degraded: Path | None
    clean: Path | None
    seed: int = 0
    factors: tuple[str, ...] = ()

    def load(self) -> Pixels:
        """Read, and degrade if that is asked for, rounded to 8 bits as a file would hold it.

        `f2d.images.ImageError` for a file that cannot be read, ValueError for two pictures of different size.
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
        """Names, sizes and times of the pictures that a record of this case is made of: of others, it is made anew."""
        said = []
        for path in (self.degraded, self.clean, *others):
            with suppress(OSError):
                status = path and path.stat()
                said.append(f"{path} {status and (status.st_size, status.st_mtime_ns)} {self.seed}")
        return hashlib.sha256("\n".join(said).encode(errors="surrogateescape")).hexdigest()[:16]

    def _synthesised(self, clean: Tensor) -> Pixels:
        draft = stack([Sample(clean, None, self.category, self.seed)])
        others = tuple(factor for factor in factors_of(self.category) if factor not in FACTORS)
        batch = finish(draft, (*FACTORS, *others))
        return Pixels(eight_bits(batch.degraded[0]), clean, None if others else batch.maps[0])
