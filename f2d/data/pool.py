"""The interface of all layouts on disk: entries that can be counted, measured and read."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import NamedTuple

from torch import Tensor

from f2d.data.categories import CLEAR
from f2d.degradation import CATEGORIES


class Entry(NamedTuple):
    """What is known of an entry without reading it. name: in messages. scene: the same for all entries of one clean
    image, which are held out together. category: None if the image is clean and the category is drawn."""

    name: str
    scene: str
    category: str | None


class Pool(ABC):
    """`entries`, each a clean image with or without a degraded one. `categories` are the names they have.

    With `synthesised`, the images are clean and any category can be synthesised; `categories` are those synthesised by
    default.
    """

    synthesised = False
    categories: tuple[str, ...]

    def __init__(self, entries: Iterable[Entry]):
        self.entries = list(entries)

    def __len__(self) -> int:
        return len(self.entries)

    @abstractmethod
    def read(self, entry: int) -> tuple[Tensor | None, Tensor]:
        """Read (degraded or None, clean), [3,H,W] uint8; raise ValueError if their sizes differ."""

    @abstractmethod
    def size(self, entry: int) -> tuple[int, int]:
        """Return (width, height) without decoding; raise ValueError if the two images differ."""

    def entries_of(self, category: str) -> list[int]:
        """Return the entries that can be drawn for a category."""
        return [i for i, entry in enumerate(self.entries) if entry.category in (None, category)]


def in_order(categories: set[str]) -> tuple[str, ...]:
    """Sort categories: the composites as published, then others by name, "clear" last."""
    others = sorted(categories - {*CATEGORIES, CLEAR})
    return (*(c for c in CATEGORIES if c in categories), *others, *({CLEAR} & categories))
