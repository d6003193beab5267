"""Clean photographs, which can be degraded by any category that can be synthesised."""

from pathlib import Path

from torch import Tensor

from f2d.data.pictures import Pictures, find_images
from f2d.data.pool import Pool
from f2d.degradation import CATEGORIES
from f2d.images import IMAGE_SUFFIXES, upright_size


class CleanPool(Pool):
    """All photographs in a folder and its subfolders; raises ValueError if there are none."""

    synthesised = True
    categories = CATEGORIES

    def __init__(self, folder: Path, pictures: Pictures):
        self.folder, self.pictures = folder, pictures
        self.paths = find_images(folder)
        if not self.paths:
            raise ValueError(f"{folder} contains no photographs ({', '.join(sorted(IMAGE_SUFFIXES))})")

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, entry: int) -> tuple[Tensor | None, Tensor]:
        return None, self.pictures(self.paths[entry])

    def size(self, entry: int) -> tuple[int, int]:
        return upright_size(self.paths[entry])

    def name(self, entry: int) -> str:
        return str(self.paths[entry])

    scene = name

    def category(self, entry: int) -> str | None:
        return None
