"""Random draws, smooth fields and filters for building maps. Images are [B,C,H,W] in [0, 1] unless stated otherwise.

The results of each sample of a batch are bit-exact with those of the sample alone.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# weights of R, G, B in the published generator, which reads RGB as BGR
GREY = (0.114, 0.587, 0.299)


class Draws:
    """Random numbers that depend only on (seed, name), drawn on the CPU so that a GPU produces the same image.

    Every quantity has its own stream, so adding or omitting one factor changes no other factor's parameters.
    """

    def __init__(self, seed: int, name: str, device: torch.device):
        # a 64-bit mix of both decorrelates neighbouring seeds and names
        # the mix loses bit 63 of the seed, so seeds below 0 or from 2^63 are offset from those that would collide
        seed += (seed >> 63) * 0xD1B54A32D192ED03
        mixed = (seed * 0x9E3779B97F4A7C15 + int.from_bytes(name.encode()[:8], "little")) & (2**64 - 1)
        mixed = (mixed ^ (mixed >> 31)) * 0xBF58476D1CE4E5B9 & (2**64 - 1)
        self.generator = torch.Generator().manual_seed(mixed - 2**63)
        self.device = device

    def drawn(self, draw: Callable[..., Tensor], *shape: int) -> Tensor:
        """Call `torch.rand` or `torch.randn` on the CPU in float32, whatever the defaults, as other types differ."""
        return draw(shape, generator=self.generator, dtype=torch.float32, device="cpu")

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * self.drawn(torch.rand, 1).item()

    def choice(self, probability: float) -> bool:
        return self.drawn(torch.rand, 1).item() < probability

    def array(self, *shape: int) -> np.ndarray:
        return self.drawn(torch.rand, *shape).numpy()

    def rand(self, *shape: int) -> Tensor:
        return self.drawn(torch.rand, *shape).to(self.device)

    def randn(self, *shape: int) -> Tensor:
        return self.drawn(torch.randn, *shape).to(self.device)


class BatchDraws:
    """The draws of B samples, each from its own stream, so that a sample gets the same numbers as it would alone."""

    def __init__(self, seeds: Sequence[int], name: str, device: torch.device):
        self.streams = [Draws(seed, name, device) for seed in seeds]
        self.device = device

    def uniform(self, low: float, high: float) -> Tensor:
        """Draw one number per sample, [B,1,1,1]."""
        return column([stream.uniform(low, high) for stream in self.streams], self.device)

    def rand(self, *shape: int) -> Tensor:
        """Draw from U(0, 1), [B,*shape]."""
        return torch.stack([stream.drawn(torch.rand, *shape) for stream in self.streams]).to(self.device)

    def randn(self, *shape: int) -> Tensor:
        """Draw from N(0, 1), [B,*shape]."""
        return torch.stack([stream.drawn(torch.randn, *shape) for stream in self.streams]).to(self.device)


def column(values: Sequence[float], device: torch.device) -> Tensor:
    """Return one number per sample as a tensor [B,1,1,1]."""
    return torch.tensor(values, dtype=torch.float32, device=device).view(-1, 1, 1, 1)


def grey(image: Tensor) -> Tensor:
    """0.114 R + 0.587 G + 0.299 B, [B,1,H,W]."""
    red, green, blue = image.split(1, dim=1)
    return GREY[0] * red + GREY[1] * green + GREY[2] * blue


def power(base: Tensor, exponent: float | Tensor) -> Tensor:
    """base^exponent for base >= 0, exponent > 0 (or any exponent where base > 0).

    torch.pow rounds differently in the last elements of each thread's share, so its result depends on the threads.
    """
    return torch.exp(exponent * base.log())


def smooth_field(draws: BatchDraws, height: int, width: int, octaves: int = 4) -> Tensor:
    """Sum bicubically enlarged random grids of 2, 4, 8, ... cells and scale the sum to [0, 1]; returns [B,1,H,W].

    Enlarging a grid G is a matrix product R G Cᵀ, and the sum over all grids is one more: [R₁G₁ R₂G₂ ...] [C₁ C₂ ...]ᵀ.
    """
    cells = [2 ** (octave + 1) + 1 for octave in range(octaves)]
    down, across = ([_bicubic(length, n).to(draws.device) for n in cells] for length in (height, width))
    grids = draws.rand(sum(n * n for n in cells)).double().split([n * n for n in cells], dim=-1)
    # in float64, so that the order of summation does not change the float32 result
    scaled = [0.5**k * grids[k].view(-1, 1, n, n) for k, n in enumerate(cells)]
    rows = torch.cat([matrix @ grid for matrix, grid in zip(down, scaled, strict=True)], dim=-1)
    return stretch((rows @ torch.cat(across, dim=-1).T).float())


@lru_cache(maxsize=64)
def _bicubic(length: int, cells: int) -> Tensor:
    """Return the bicubic interpolation weights [length,cells] of `cells` corners, the outer two on the borders."""
    corners = torch.eye(cells, dtype=torch.float32, device="cpu")[None, None]
    return F.interpolate(corners, (length, cells), mode="bicubic", align_corners=True)[0, 0].double()


def stretch(field: Tensor) -> Tensor:
    """Scale each sample so that its smallest value is 0 and its largest 1 (all 0 if it is constant)."""
    field = field - field.amin((1, 2, 3), keepdim=True)
    return field / field.amax((1, 2, 3), keepdim=True).clamp(min=1e-6)


def box(image: Tensor, size: int) -> Tensor:
    """Average over the pixels of a size x size window that lie inside the image.

    A window of even size reaches one pixel further up and left: box22 covers -11..10.
    """
    height, width = image.shape[-2:]
    before, after = size // 2, size - 1 - size // 2
    sums = F.pad(image, (before, after, before, after))
    for dim in (-2, -1):
        sums = _window_sum(sums, size, dim)
    rows, columns = (_pixels_inside(length, size, image.device) for length in (height, width))
    return sums / (rows[:, None] * columns)


def _window_sum(image: Tensor, size: int, dim: int) -> Tensor:
    """Sum `size` neighbours by adding two sums of half as many: log2(size) additions without cancellation."""
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
    """Count, for the window of `size` pixels around each pixel, how many lie inside; returns [length]."""
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
