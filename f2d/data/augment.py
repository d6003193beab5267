"""Crop, scale, rotate, flip and recolour an image at random, or both images of a pair in the same way."""

import random
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from f2d.typed_fields import checked

OWNER = "augment"


@dataclass(frozen=True)
class Augment:
    """crop -> scale -> quarter turns -> flip -> ((J - b) / (1 - b))^gamma · gain.

    scale: the range its factor is drawn from, uniformly (below 1: a larger region, made smaller); flips: left to right,
    for half of the samples; turns: by 0, 90, 180 or 270 degrees; colour: share of the samples whose black level b, the
    0.5 % quantile of the photograph's values (at most 0.2), becomes 0, with gamma ~ U(0.75, 1.35) and a gain per
    channel ~ U(0.85, 1.1). Given pairs keep their colours: a degradation does not commute with them. Raises
    ValueError, which names the field, for invalid values.
    """

    scale: tuple[float, float] = (0.6, 1.15)
    flips: bool = True
    turns: bool = True
    colour: float = 0.5

    def __post_init__(self) -> None:
        check = checked(self, OWNER)
        check("scale", 0 < self.scale[0] <= self.scale[1], "two factors above 0, smaller first")
        check("colour", 0 <= self.colour <= 1, "a share in [0, 1]")

    def __call__(
        self, clean: Tensor, degraded: Tensor | None, crop: int, draws: random.Random
    ) -> tuple[Tensor, Tensor | None]:
        """clean (and degraded, unless None) [3,H,W] uint8, H and W at least `crop` -> [3,crop,crop] in [0, 1].

        Everything is drawn from `draws`, with the same numbers whether a degraded image is given or not.
        """
        _, height, width = clean.shape
        side = max(1, min(int(crop / draws.uniform(*self.scale)), height, width))
        top, left = draws.randrange(height - side + 1), draws.randrange(width - side + 1)
        turns, flip, colour = draws.random(), draws.random(), draws.random()
        pictures = [clean] if degraded is None else [clean, degraded]
        region = torch.stack([p[:, top : top + side, left : left + side] for p in pictures]).float() / 255
        if side != crop:
            region = F.interpolate(region, (crop, crop), mode="bilinear", antialias=True, align_corners=False)
        if self.turns:
            region = torch.rot90(region, int(turns * 4), (2, 3))
        if self.flips and flip < 0.5:
            region = region.flip(3)
        if degraded is None and colour < self.colour:
            gain = region.new_tensor([draws.uniform(0.85, 1.1) for _ in range(3)]).view(3, 1, 1)
            black = _black_level(clean)
            region = ((region - black) / (1 - black)).clamp(min=0) ** draws.uniform(0.75, 1.35) * gain
        region = region.clamp(0, 1).contiguous()
        return region[0], None if degraded is None else region[1]


def _black_level(photograph: Tensor) -> float:
    """Return the 0.5 % quantile of a uint8 image's values, at most 0.2 of full scale.

    It is 0.065 on average in CBSD68, whose slides were scanned, and 0.006 in two of RESIDE's rooms. A network trained
    mostly on scans leaves a veil of 0.1 in such rooms, because haze and raised blacks look alike.
    """
    not_above = torch.bincount(photograph.flatten(), minlength=256).cumsum(0)
    return min(int((not_above < 0.005 * photograph.numel()).sum()), 51) / 255


def centre_crop(picture: Tensor, crop: int) -> Tensor:
    """[3,H,W] uint8 -> its centre crop [3,crop,crop] in [0, 1]."""
    top, left = (picture.shape[1] - crop) // 2, (picture.shape[2] - crop) // 2
    return picture[:, top : top + crop, left : left + crop].float() / 255
