"""The interface of all layouts on disk: entries that can be counted, measured and read."""

from abc import ABC, abstractmethod

from torch import Tensor

from f2d.data.categories import CLEAR
from f2d.degradation import CATEGORIES


class Pool(ABC):
    """Entries 0..len-1, each a clean image with or without a degraded one. `categories` are the names they have.

    With `synthesised`, the images are clean and any category can be synthesised; `categories` are those synthesised by
    default.
    """

    synthesised = False
    categories: tuple[str, ...]

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, entry: int) -> tuple[Tensor | None, Tensor]:
        """Read (degraded or None, clean), [3,H,W] uint8; raise ValueError if their sizes differ."""

    @abstractmethod
    def size(self, entry: int) -> tuple[int, int]:
        """Return (width, height) without decoding; raise ValueError if the two images differ."""

    @abstractmethod
    def name(self, entry: int) -> str:
        """Return the entry's name in messages."""

    @abstractmethod
    def scene(self, entry: int) -> str:
        """Return the scene, the same for all entries of one clean image, which are held out together."""

    @abstractmethod
    def category(self, entry: int) -> str | None:
        """Return the category, or None if the images are clean and the category is drawn."""

    def entries_of(self, category: str) -> list[int]:
        """Return the entries that can be drawn for a category."""
        return [i for i in range(len(self)) if self.category(i) in (None, category)]


def in_order(categories: set[str]) -> tuple[str, ...]:
    """Sort categories: the composites as published, then others by name, "clear" last."""
    others = sorted(categories - {*CATEGORIES, CLEAR})
    return (*(c for c in CATEGORIES if c in categories), *others, *({CLEAR} & categories))
