"""One source of training data, as specified in a recipe."""

from dataclasses import dataclass, field

from f2d.data.find import LAYOUTS
from f2d.typed_fields import check_types, checked, require

OWNER = "data source"


@dataclass(frozen=True)
class Source:
    """A source of samples.

    path: relative to the data's root. layout: one of `f2d.data.find.LAYOUTS`. category: the category of all its images.
    ratio: share of the samples, relative to the other sources.

    categories: name -> relative frequency. By default all categories of a source (for clean photographs: the eleven
    composites) are equally frequent. For pairs, CDD-11 and LMDBs, categories that are not named have frequency 1, and 0
    excludes one; clean photographs are only degraded to those named. degraded, clean, pattern: folder names and file
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
        require(self.path != "", OWNER, "path", self.path, "a file or folder, relative to the data's root")
        check = checked(self, f"{OWNER} {self.path}", choices={"layout": LAYOUTS})
        check("ratio", self.ratio > 0, "a share above 0")
        check("categories", all(weight >= 0 for weight in self.categories.values()), "frequencies >= 0")
        if self.category is not None:
            check("category", self.layout != "cdd11", "unset with layout cdd11, whose folders name their categories")
            check("categories", not self.categories, "unset if category is given")
        for name in ("degraded", "clean", "pattern"):
            fits = getattr(self, name) is None or self.layout in ("auto", "pairs")
            check(name, fits, f"unset with layout {self.layout}")
