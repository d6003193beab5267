"""One source of training data, as specified in a recipe."""

import math
from dataclasses import dataclass, field

from f2d.data.find import LAYOUTS
from f2d.typed_fields import check_types, require

OWNER = "data source"


@dataclass(frozen=True)
class Source:
    """A source of samples. path: relative to the data's root. layout: one of `f2d.data.find.LAYOUTS`. category: that of
    all its images. ratio: share of the samples, relative to the other sources.

    categories: name -> relative frequency. By default all categories of a source (for clean photographs: the eleven
    composites) are equally frequent. For pairs, CDD-11 and LMDBs, categories that are not named have frequency 1, and 0
    excludes one; clean photographs are degraded only by those named. degraded, clean, pattern: folder names and file
    names of pairs (`f2d.data.pairs.find_pairs`).

    Raises ValueError, which names the field, for invalid values.
    """

    path: str
    layout: str = "auto"
    category: str | None = None
    categories: dict[str, float] = field(default_factory=dict)
    ratio: float = 1.0
    degraded: str | None = None
    clean: str | None = None
    pattern: str | None = None

    def __post_init__(self) -> None:
        check_types(self, OWNER)
        owner = f"{OWNER} {self.path}"
        require(self.path != "", OWNER, "path", self.path, "a file or folder, relative to the data's root")
        require(self.layout in LAYOUTS, owner, "layout", self.layout, f"one of {', '.join(LAYOUTS)}")
        require(self.ratio > 0, owner, "ratio", self.ratio, "a share above 0")
        fits = all(math.isfinite(weight) and weight >= 0 for weight in self.categories.values())
        require(fits, owner, "categories", self.categories, "frequencies >= 0")
        if self.category is not None:
            require(
                self.layout != "cdd11",
                owner,
                "category",
                self.category,
                "unset with layout cdd11, whose folders name their categories",
            )
            require(not self.categories, owner, "categories", self.categories, "unset if category is given")
        for name in ("degraded", "clean", "pattern"):
            wrong = getattr(self, name) is not None and self.layout not in ("auto", "pairs")
            require(not wrong, owner, name, getattr(self, name), f"unset with layout {self.layout}")
