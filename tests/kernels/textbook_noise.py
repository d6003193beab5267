"""The position-keyed noise as KERNELS.md words it, and as an op draws it."""

import math

import numpy as np
import torch

from f2d_kernels import lognormal_transition

from .cases import DEVICE

ONES = 0xFFFFFFFF
KNOWN_ANSWERS = [  # KERNELS.md, after Random123's kat_vectors
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES,) * 4, (ONES,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def drawn(shape, seed, **position):
    """The noise itself: with x = 1, mu = 0, log_mean = 0, log_std = 1 the op returns exp(eps)."""
    zeros = torch.zeros(shape, device=DEVICE, dtype=torch.float64)
    return lognormal_transition(zeros + 1, zeros, 0.0, 1.0, seed=seed, **position).log()


def textbook_eps(seed: int, stream: int, sample: int, channel: int, y: int, x: int) -> float:
    """KERNELS.md's text, element by element, in Python integers and numpy float32: independent of every backend."""
    counter = [(x >> 2) & ONES, y & ONES, (channel + 65536 * stream) & ONES, sample]
    key = [seed & ONES, (seed >> 32) & ONES]
    for _ in range(10):
        high0, low0 = divmod(counter[0] * 0xD2511F53, 2**32)
        high1, low1 = divmod(counter[2] * 0xCD9E8D57, 2**32)
        counter = [high1 ^ counter[1] ^ key[0], low1, high0 ^ counter[3] ^ key[1], low0]
        key = [(key[0] + 0x9E3779B9) & ONES, (key[1] + 0xBB67AE85) & ONES]
    pair = counter[:2] if x & 3 < 2 else counter[2:]
    u0, u1 = (float(np.float32(w) * np.float32(2**-32) + np.float32(2**-33)) for w in pair)
    radius = math.sqrt(-2 * math.log(u0))
    return radius * (math.cos if x % 2 == 0 else math.sin)(2 * math.pi * u1)
