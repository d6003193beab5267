"""A photograph as stored in its file: levels of 8 or 16 bits, grey or RGB, with transparency and metadata."""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from f2d.images.filling import filled
from f2d.images.metadata import Metadata

if TYPE_CHECKING:
    from torch import Tensor

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in Pillow's "L"
_ROWS = 256  # rows compared at a time, as the float copy of a 33-megapixel image would take 400 MB


class Change(NamedTuple):
    """The difference of two images in grey levels of 255."""

    mean: float
    largest: float


@dataclass(frozen=True)
class Photo:
    """Levels [H, W, 1 or 3] uint8 or uint16, alpha [H, W] of the same type or None, and the file's number of frames.

    notes describes what was reduced or dropped when the file was read.
    """

    levels: np.ndarray
    alpha: np.ndarray | None = None
    metadata: Metadata = field(default_factory=Metadata)
    frames: int = 1
    notes: tuple[str, ...] = ()

    @property
    def grey(self) -> bool:
        return self.levels.shape[2] == 1

    @property
    def depth(self) -> int:
        """Bits per channel, 8 or 16."""
        return 8 * self.levels.itemsize

    @property
    def seen(self) -> np.ndarray | None:
        """[H, W] bool: where the photo is more than 1 % opaque, which is 2.6 grey levels; None if it has no alpha."""
        return None if self.alpha is None else self.alpha > 0.01 * _full(self.depth)

    @property
    def size(self) -> tuple[int, int]:
        """The size (width, height)."""
        return self.levels.shape[1], self.levels.shape[0]

    @property
    def opaque(self) -> np.ndarray:
        """The levels without transparency: pixels that cannot be seen take the values of others (`filling.filled`),
        as what lies below them does not matter."""
        return self.levels if self.seen is None else filled(self.levels, self.seen)

    def tensor(self) -> "Tensor":
        """Convert `opaque` to [3, H, W] float32 in [0, 1]; grey is repeated three times."""
        import torch

        values = torch.from_numpy(self.opaque.astype(np.float32)).permute(2, 0, 1).contiguous()
        return values.div_(_full(self.depth)).expand(3, -1, -1).contiguous()

    def replaced(self, values: "Tensor", depth: int | None = None) -> "Photo":
        """Return this photo with new pixels [3, H, W] in [0, 1], clamped and rounded to `depth` bits (its own).

        Pixels that cannot be seen keep their colours.
        """
        depth = depth or self.depth
        values = values.detach().float().cpu().clamp(0, 1)
        if self.grey:
            values = sum(weight * channel for weight, channel in zip(LUMA, values))[None]
        levels: np.ndarray = values.mul(_full(depth)).round().permute(1, 2, 0).numpy().astype(f"u{depth // 8}")
        if self.seen is not None:
            levels = np.where(self.seen[..., None], levels, converted(self.levels, depth))
        return replace(self, levels=levels, alpha=None if self.alpha is None else converted(self.alpha, depth))

    def as_depth(self, depth: int) -> "Photo":
        """Convert to 8 or 16 bits per channel, with rounding."""
        alpha = None if self.alpha is None else converted(self.alpha, depth)
        return replace(self, levels=converted(self.levels, depth), alpha=alpha)

    def change_to(self, other: "Photo") -> Change:
        """Return the mean and largest difference to a photo of the same size and kind, of the pixels that can be seen.

        Both are 0 if no pixel can be seen.
        """
        total, count, largest, seen = 0.0, 0, 0.0, self.seen
        for top in range(0, self.levels.shape[0], _ROWS):
            rows = slice(top, top + _ROWS)
            one, two = (photo.levels[rows] * np.float32(255 / _full(photo.depth)) for photo in (self, other))
            difference = np.abs(one - two) if seen is None else np.abs(one - two)[seen[rows]]
            total, count = total + float(difference.sum(dtype=np.float64)), count + difference.size
            largest = max(largest, float(difference.max(initial=0)))
        return Change(total / max(1, count), largest)

    def picture(self) -> Image.Image:
        """Convert to an 8-bit Pillow image: L, LA, RGB or RGBA."""
        photo = self.as_depth(8)
        levels = photo.levels if photo.alpha is None else np.dstack([photo.levels, photo.alpha])
        return Image.fromarray(np.ascontiguousarray(levels if levels.shape[2] > 1 else levels[..., 0]))


def _full(depth: int) -> int:
    return 2**depth - 1


def converted(levels: np.ndarray, depth: int) -> np.ndarray:
    """Convert uint8 or uint16 to `depth` bits, 8 or 16, with rounding."""
    if levels.itemsize * 8 == depth:
        return levels
    if depth == 16:
        return levels.astype(np.uint16) * np.uint16(257)
    return ((levels.astype(np.uint32) + 128) // 257).astype(np.uint8)  # 65535 = 255 · 257, rounded to nearest
