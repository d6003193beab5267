"""A photograph as its file has it: levels of 8 or 16 bits, grey or RGB, with transparency and metadata."""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from f2d.images.metadata import Metadata

if TYPE_CHECKING:
    from torch import Tensor

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, which Pillow's "L" is too
_ROWS = 256  # of a picture compared at a time: the float copy of a 33-megapixel one would be 400 MB


class Change(NamedTuple):
    """How far two pictures are apart, in grey levels of 255."""

    mean: float
    largest: float


@dataclass(frozen=True)
class Photo:
    """levels [H, W, 1 or 3] uint8 or uint16; alpha [H, W] of that type or None; frames: how many the file has."""

    levels: np.ndarray
    alpha: np.ndarray | None = None
    metadata: Metadata = field(default_factory=Metadata)
    frames: int = 1

    @property
    def grey(self) -> bool:
        return self.levels.shape[2] == 1

    @property
    def depth(self) -> int:
        """8 or 16 bits per channel."""
        return 8 * self.levels.itemsize

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)"""
        return self.levels.shape[1], self.levels.shape[0]

    def tensor(self) -> "Tensor":
        """[3, H, W] float32 in [0, 1], without the transparency; a grey photo three times."""
        import torch

        values = torch.from_numpy(self.levels.astype(np.float32)).permute(2, 0, 1).contiguous()
        return values.div_(_full(self.depth)).expand(3, -1, -1).contiguous()

    def replaced(self, values: "Tensor", depth: int | None = None) -> "Photo":
        """This photo with the pixels [3, H, W] in [0, 1]: clamped, rounded to `depth` (its own) bits, grey if it is."""
        depth = depth or self.depth
        values = values.detach().float().cpu().clamp(0, 1)
        if self.grey:
            values = sum(weight * channel for weight, channel in zip(LUMA, values))[None]
        levels: np.ndarray = values.mul(_full(depth)).round().permute(1, 2, 0).numpy().astype(_dtype(depth))
        return replace(self, levels=levels, alpha=None if self.alpha is None else _converted(self.alpha, depth))

    def as_depth(self, depth: int) -> "Photo":
        """The same in 8 or 16 bits per channel, rounded."""
        alpha = None if self.alpha is None else _converted(self.alpha, depth)
        return replace(self, levels=_converted(self.levels, depth), alpha=alpha)

    def change_to(self, other: "Photo") -> Change:
        """Mean and largest difference of the levels of two photos of one size and kind, transparency aside."""
        total, largest = 0.0, 0.0
        for top in range(0, self.levels.shape[0], _ROWS):
            one, two = (
                photo.levels[top : top + _ROWS] * np.float32(255 / _full(photo.depth)) for photo in (self, other)
            )
            difference = np.abs(one - two)
            total, largest = total + float(difference.sum(dtype=np.float64)), max(largest, float(difference.max()))
        return Change(total / self.levels.size, largest)

    def picture(self) -> Image.Image:
        """A Pillow picture in 8 bits: L, LA, RGB or RGBA."""
        photo = self.as_depth(8)
        levels = photo.levels if photo.alpha is None else np.dstack([photo.levels, photo.alpha])
        return Image.fromarray(np.ascontiguousarray(levels if levels.shape[2] > 1 else levels[..., 0]))


def _full(depth: int) -> int:
    return 2**depth - 1


def _dtype(depth: int) -> type:
    return np.uint8 if depth == 8 else np.uint16


def _converted(levels: np.ndarray, depth: int) -> np.ndarray:
    if levels.itemsize * 8 == depth:
        return levels
    if depth == 16:
        return levels.astype(np.uint16) * np.uint16(257)
    return ((levels.astype(np.uint32) + 128) // 257).astype(np.uint8)  # 65535 = 255 · 257, rounded to nearest
