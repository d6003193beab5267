"""Philox 4x32-10 and Box-Muller in plain PyTorch: the position-keyed noise that every backend reproduces.

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
"""

import math

import torch
from torch import Tensor

from f2d_kernels.arguments import GaussianTransition, LognormalTransition

MASK = 0xFFFFFFFF
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Compute four 32-bit words (int64 in 0..2^32-1) from a 128-bit counter and a 64-bit key, broadcastable int64."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        # int64 products wrap modulo 2^64, which keeps both halves correct
        p0, p1 = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1, c2, c3 = (p1 >> 32) & MASK ^ c1 ^ k0, p1 & MASK, (p0 >> 32) & MASK ^ c3 ^ k1, p0 & MASK
        k0, k1 = (k0 + WEYL[0]) & MASK, (k1 + WEYL[1]) & MASK
    return c0, c1, c2, c3


def uniform(word: Tensor) -> Tensor:
    """u = float(word) · 2^-32 + 2^-33 in float32, in (0, 1]."""
    return word.to(torch.float32) * 2.0**-32 + 2.0**-33


def normal(shape: torch.Size, seed: Tensor, stream: int, top: int, left: int) -> Tensor:
    """eps [B,C,H,W] in float64: Box-Muller on lanes (0,1) and (2,3) of the Philox words keyed by each element's
    position.

    key = (seed low, seed high); counter = (x >> 2, y, c + 65536 · stream, s), lane = x & 3, where x, y is the
    position in the whole image, and s is the sample's index if the batch has one seed, 0 if each sample has its own.
    """
    batch, channels, height, width = shape
    device = seed.device

    def axis(size: int, dim: int, start: int = 0) -> Tensor:
        return torch.arange(start, start + size, device=device).view([-1 if d == dim else 1 for d in range(4)])

    columns = axis(width, 3, left)
    sample = axis(batch, 0) if seed.numel() == 1 else torch.zeros((1, 1, 1, 1), dtype=torch.int64, device=device)
    key = seed.view(-1, 1, 1, 1)
    words = philox(
        (columns >> 2, axis(height, 2, top), axis(channels, 1) + 65536 * stream, sample),
        (key & MASK, (key >> 32) & MASK),
    )
    lane = columns & 3
    first = uniform(torch.where(lane < 2, words[0], words[2])).double()
    second = uniform(torch.where(lane < 2, words[1], words[3])).double()
    angle = 2 * math.pi * second
    eps = torch.sqrt(-2 * torch.log(first)) * torch.where(lane % 2 == 0, torch.cos(angle), torch.sin(angle))
    return eps.expand(shape)


def noise_of(a: GaussianTransition | LognormalTransition, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """eps [B,C,H,W] in `dtype`, given or drawn. Drawn noise is rounded to float32 first, so that a seed means the same
    noise in every precision."""
    if a.noise is not None:
        return a.noise.to(dtype)
    assert a.seed is not None
    return normal(shape, a.seed, a.stream, a.top, a.left).float().to(dtype)
