"""Random draws, smooth fields and filters, from which maps are built. Images are [B,C,H,W] in [0, 1] unless stated.

For a batch, the results of each sample are bit-exact with those of the sample alone.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# an image's grey level as the published generator weighs it: it reads RGB as BGR
GREY = (0.114, 0.587, 0.299)


class Draws:
    """Random numbers that depend on (seed, name) alone, drawn on the CPU so that a GPU makes the same picture.

    Every quantity has its own stream: adding or leaving out one factor changes no other factor's parameters.
    """

    def __init__(self, seed: int, name: str, device: torch.device):
        # a 64-bit mix of both, so that neighbouring seeds and names share nothing
        # the mix loses the seed's bit 63: seeds below 0 or from 2^63 up step aside of those that would share it
        seed += (seed >> 63) * 0xD1B54A32D192ED03
        mixed = (seed * 0x9E3779B97F4A7C15 + int.from_bytes(name.encode()[:8], "little")) & (2**64 - 1)
        mixed = (mixed ^ (mixed >> 31)) * 0xBF58476D1CE4E5B9 & (2**64 - 1)
        self.generator = torch.Generator().manual_seed(mixed - 2**63)
        self.device = device

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * torch.rand(1, generator=self.generator).item()

    def choice(self, probability: float) -> bool:
        return torch.rand(1, generator=self.generator).item() < probability

    def array(self, *shape: int) -> np.ndarray:
        return torch.rand(shape, generator=self.generator).numpy()

    def rand(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.generator).to(self.device)

    def randn(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator).to(self.device)


class BatchDraws:
    """The draws of B samples, each from a stream of its own: a sample gets the numbers that it would get alone."""

    def __init__(self, seeds: Sequence[int], name: str, device: torch.device):
        self.streams = [Draws(seed, name, device) for seed in seeds]
        self.device = device

    def uniform(self, low: float, high: float) -> Tensor:
        """[B,1,1,1]."""
        return column([stream.uniform(low, high) for stream in self.streams], self.device)

    def rand(self, *shape: int) -> Tensor:
        """[B,*shape]."""
        return torch.stack([torch.rand(shape, generator=s.generator) for s in self.streams]).to(self.device)

    def randn(self, *shape: int) -> Tensor:
        """[B,*shape]."""
        return torch.stack([torch.randn(shape, generator=s.generator) for s in self.streams]).to(self.device)


def column(values: Sequence[float], device: torch.device) -> Tensor:
    """[B,1,1,1]: one number for each sample."""
    return torch.tensor(values, dtype=torch.float32, device=device).view(-1, 1, 1, 1)


def grey(image: Tensor) -> Tensor:
    """[B,1,H,W]: 0.114 R + 0.587 G + 0.299 B."""
    red, green, blue = image.split(1, dim=1)
    return GREY[0] * red + GREY[1] * green + GREY[2] * blue


def power(base: Tensor, exponent: float | Tensor) -> Tensor:
    """base^exponent for base >= 0, exponent > 0 (or any exponent where base > 0).

    torch.pow rounds otherwise in the last few elements of each thread's share, and so with the number of threads.
    """
    return torch.exp(exponent * base.log())


def smooth_field(draws: BatchDraws, height: int, width: int, octaves: int = 4, falloff: float = 0.5) -> Tensor:
    """[B,1,H,W]: sum of bicubically enlarged random grids of 2, 4, 8, ... cells, scaled to fill [0, 1].

    Enlarging a grid G is a matrix product R G Cᵀ, and the sum over all grids is one more: [R₁G₁ R₂G₂ ...] [C₁ C₂ ...]ᵀ.
    """
    cells = [2 ** (octave + 1) + 1 for octave in range(octaves)]
    down, across = ([_bicubic(length, n).to(draws.device) for n in cells] for length in (height, width))
    grids = draws.rand(sum(n * n for n in cells)).double().split([n * n for n in cells], dim=-1)
    # in float64, so that the order in which a product is summed up does not show in float32
    scaled = [falloff**k * grids[k].view(-1, 1, n, n) for k, n in enumerate(cells)]
    rows = torch.cat([matrix @ grid for matrix, grid in zip(down, scaled, strict=True)], dim=-1)
    return stretch((rows @ torch.cat(across, dim=-1).T).float())


@lru_cache(maxsize=64)
def _bicubic(length: int, cells: int) -> Tensor:
    """[length,cells]: the weights of bicubic interpolation between `cells` corners, the outer ones on the borders."""
    corners = torch.eye(cells)[None, None]
    return F.interpolate(corners, (length, cells), mode="bicubic", align_corners=True)[0, 0].double()


def stretch(field: Tensor) -> Tensor:
    """Scale each sample so that its smallest value is 0 and its largest 1 (all zero if it is constant)."""
    field = field - field.amin((1, 2, 3), keepdim=True)
    return field / field.amax((1, 2, 3), keepdim=True).clamp(min=1e-6)


def box(image: Tensor, size: int) -> Tensor:
    """Mean over a size x size window, of the pixels of it that lie inside the image.

    For an even size the window reaches one pixel further up and left: box22 covers -11..10.
    """
    height, width = image.shape[-2:]
    before, after = size // 2, size - 1 - size // 2
    sums = F.pad(image, (before, after, before, after))
    for dim in (-2, -1):
        sums = _window_sum(sums, size, dim)
    rows, columns = (_pixels_inside(length, size, image.device) for length in (height, width))
    return sums / (rows[:, None] * columns)


def _window_sum(image: Tensor, size: int, dim: int) -> Tensor:
    """Sums of `size` neighbours, made of two sums of half as many: log2(size) additions, none of which cancels."""
    if size == 1:
        return image
    half = size // 2
    halves = _window_sum(image, half, dim)
    rest = halves.shape[dim] - half
    sums = halves.narrow(dim, 0, rest) + halves.narrow(dim, half, rest)
    if size % 2:
        sums = sums.narrow(dim, 0, rest - 1) + image.narrow(dim, size - 1, rest - 1)
    return sums


def _pixels_inside(length: int, size: int, device: torch.device) -> Tensor:
    """[length]: how many of the `size` pixels of a window around each pixel lie inside."""
    positions = torch.arange(length, device=device)
    return (positions + size - size // 2).clamp(max=length) - (positions - size // 2).clamp(min=0)


def guided_filter(guide: Tensor, image: Tensor, size: int, eps: float) -> Tensor:
    """q = mean(a) · guide + mean(b), a = cov(guide, image) / (var(guide) + eps), b = mean(image) - a · mean(guide).

    Source: He, Sun, Tang, "Guided image filtering" (ECCV 2010).
    """
    moments = box(torch.cat([guide, image, guide * image, guide * guide], dim=1), size)
    mean_guide, mean_image, mean_product, mean_square = moments.split(1, dim=1)
    a = (mean_product - mean_guide * mean_image) / (mean_square - mean_guide**2 + eps)
    b = mean_image - a * mean_guide
    mean_a, mean_b = box(torch.cat([a, b], dim=1), size).split(1, dim=1)
    return mean_a * guide + mean_b
