"""Blocks in the ways of writing that are about: each has `norms`, how many pairs of them are to be fused."""

import torch
import torch as th
import torch.nn.functional as F
from torch import nn


def exists(x):
    return x is not None


def swish(x):
    return x * torch.sigmoid(x)


class Swish(nn.Module):
    def forward(self, x):
        return x * x.sigmoid()


class GroupNorm32(nn.GroupNorm):
    def forward(self, x):
        return super().forward(x.float()).type(x.dtype)


class Nested(nn.Module):
    """Everything in one expression."""

    norms = 3

    def __init__(self):
        super().__init__()
        self.norms_in_a_list = nn.ModuleList(nn.GroupNorm(2, 8) for _ in range(2))
        self.last = GroupNorm32(4, 8)
        self.conv = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x, emb):
        h = self.conv(F.silu(self.norms_in_a_list[0](x)))
        h = h + swish(self.norms_in_a_list[-1](self.conv(h)))
        return swish(self.last(h) * (1 + emb) + emb)


class Denoising(nn.Module):
    """As denoising-diffusion-pytorch has it, and RDDM: the modulation is optional, in an `if` between the two."""

    norms = 1

    def __init__(self):
        super().__init__()
        self.proj = nn.Conv2d(8, 8, 3, padding=1)
        self.norm = nn.GroupNorm(4, 8)
        self.act = nn.SiLU()

    def forward(self, x, emb=None):
        scale_shift = None if emb is None else (emb, emb * 0.5)
        x = self.proj(x)
        x = self.norm(x)
        if exists(scale_shift):
            scale, shift = scale_shift
            x = x * (scale + 1) + shift
        return self.act(x)


class Guided(nn.Module):
    """As guided diffusion has it, and ResShift: norms inside nn.Sequential, taken out of it for the modulation."""

    norms = 2

    def __init__(self):
        super().__init__()
        self.in_layers = nn.Sequential(GroupNorm32(4, 8), nn.SiLU(), nn.Conv2d(8, 8, 3, padding=1))
        self.out_layers = nn.Sequential(GroupNorm32(4, 8), Swish(), nn.Dropout(0.5), nn.Conv2d(8, 8, 3, padding=1))

    def forward(self, x, emb):
        h = self.in_layers(x)
        emb_out = th.cat([emb, emb * 2], 1)
        if emb_out is not None:
            out_norm, out_rest = self.out_layers[0], self.out_layers[1:]
            scale, shift = th.chunk(emb_out, 2, dim=1)
            h = out_norm(h) * (1 + scale) + shift
            h = out_rest(h)
        return x + h


class Latent(nn.Module):
    """Statement by statement, as autoencoders of latent diffusion have it."""

    norms = 2

    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(4, 8, eps=1e-6), nn.GroupNorm(4, 8, eps=1e-6, affine=False)
        self.conv = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x, emb=None):
        h = x
        h = self.norm1(h)
        h = swish(h)
        h = self.conv(h)
        h = self.norm2(h)
        h = self.conv(swish(h))
        return x + h


BLOCKS = (Nested, Denoising, Guided, Latent)


class Twice(nn.Module):
    """Norms whose results are wanted elsewhere too, or go through something else."""

    norms = 0

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.GroupNorm(2, 8) for _ in range(4))
        self.relu = nn.ReLU()

    def forward(self, x, emb=None):
        h = self.a(x)
        y = F.silu(h)
        h = self.b(y + h)
        y = y + h
        h = F.silu(h)
        h = self.relu(self.c(h + y))
        h = self.d(h)
        if h.mean() > 0:
            h = h * 2
        h = F.silu(h)
        return h
