"""What all layouts on disk have in common: entries that can be counted, measured and read."""

from abc import ABC, abstractmethod

from torch import Tensor

from f2d.data.categories import CLEAR
from f2d.degradation import CATEGORIES


class Pool(ABC):
    """Entries 0..len-1, each a clean picture with a degraded one or without. `categories`: the names there are.

    `synthesised`: the pictures are clean, and any category can be made of them; `categories` is what is made unless
    others are asked for.
    """

    synthesised = False
    categories: tuple[str, ...]

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, entry: int) -> tuple[Tensor | None, Tensor]:
        """(degraded or None, clean), [3,H,W] uint8, of one size; ValueError where they are not."""

    @abstractmethod
    def size(self, entry: int) -> tuple[int, int]:
        """(width, height), read without decoding; ValueError where the two differ."""

    @abstractmethod
    def name(self, entry: int) -> str:
        """What messages call it."""

    @abstractmethod
    def scene(self, entry: int) -> str:
        """The same for all entries of one clean picture: they are held out together."""

    @abstractmethod
    def category(self, entry: int) -> str | None:
        """None where the pictures are clean and the category is drawn."""

    def entries_of(self, category: str) -> list[int]:
        """The entries that can be drawn for a category."""
        return [i for i in range(len(self)) if self.category(i) in (None, category)]


def in_order(categories: set[str]) -> tuple[str, ...]:
    """The composites as published, then others by name, "clear" last."""
    others = sorted(categories - {*CATEGORIES, CLEAR})
    return (*(c for c in CATEGORIES if c in categories), *others, *({CLEAR} & categories))
