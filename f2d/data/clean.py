"""Clean photographs, which can be degraded by any category that can be synthesised."""

from pathlib import Path

from torch import Tensor

from f2d.data.pictures import Pictures, find_images, scene_of
from f2d.data.pool import Entry, Pool
from f2d.degradation import CATEGORIES
from f2d.images import IMAGE_SUFFIXES, upright_size


class CleanPool(Pool):
    """All photographs in a folder and its subfolders; raises ValueError if there are none."""

    synthesised = True
    categories = CATEGORIES

    def __init__(self, folder: Path, pictures: Pictures):
        self.paths, self.pictures = find_images(folder), pictures
        if not self.paths:
            raise ValueError(f"{folder} contains no photographs ({', '.join(sorted(IMAGE_SUFFIXES))})")
        super().__init__(Entry(str(path), scene_of(path), None) for path in self.paths)

    def read(self, entry: int) -> tuple[Tensor | None, Tensor]:
        return None, self.pictures(self.paths[entry])

    def size(self, entry: int) -> tuple[int, int]:
        return upright_size(self.paths[entry])
