"""Store large feature maps row by row, in memory or in files, and read them in bands."""

import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Rows(Protocol):
    """Anything that provides rows: a stored `Field`, several joined fields, an image, or a function of one."""

    height: int
    width: int

    def read(self, top: int, bottom: int) -> Tensor:
        """Return [1, C, bottom - top, width] for 0 <= top < bottom <= height; callers must not write to it."""


class ChannelMoments:
    """``mean_c`` and ``variance_c`` of a feature map seen band by band, equal to those of the whole.

    A band adds Σ (x - a_c) and Σ (x - a_c)², a_c its first band's mean, summed in float32 inside a band (float64 for
    float64) and in float64 between bands: no cancellation however far the mean is from zero.
    """

    origin: Tensor | None = None

    def __init__(self) -> None:
        self.count = 0
        self.sum = self.squares = torch.zeros((), device="cpu")

    def add(self, band: Tensor) -> None:
        """Add a band [1, C, h, W]."""
        values = band.movedim(1, 3).flatten(0, 2).to(torch.promote_types(band.dtype, torch.float32))
        if self.origin is None:
            self.origin = values.mean(dim=0)
        values = values - self.origin
        self.count += values.shape[0]
        self.sum = self.sum + values.sum(dim=0).double()
        self.squares = self.squares + values.square_().sum(dim=0).double()

    @property
    def mean(self) -> Tensor:
        """[C], float64."""
        assert self.origin is not None  # at least one band was added
        return self.origin.double() + self.sum / self.count

    @property
    def variance(self) -> Tensor:
        """[C], float64, population."""
        return (self.squares / self.count - (self.sum / self.count).square()).clamp_min(0)


def group_moments(parts: Sequence[ChannelMoments], groups: int, eps: float, dtype: torch.dtype) -> Tensor:
    """[2, 1, C]: group mean and ``1 / sqrt(variance + eps)`` per channel, as `layers.moments` of the joined parts.

    Channels have the same number of pixels, so a group's variance is the mean of theirs plus that of their means.
    """
    means = torch.cat([part.mean for part in parts]).unflatten(0, (groups, -1))
    variances = torch.cat([part.variance for part in parts]).unflatten(0, (groups, -1))
    mean = means.mean(dim=1)
    variance = variances.mean(dim=1) + means.var(dim=1, correction=0)
    per_group = torch.stack([mean, (variance + eps).rsqrt()])[:, None]
    return per_group.repeat_interleave(means.shape[1], dim=2).to(dtype)


class Scratch:
    """Storage of fields: on `device`, or in unnamed files of `folder` that vanish with the field or the process."""

    def __init__(self, device: torch.device, folder: str | os.PathLike | None = None):
        self.device, self.folder = device, folder

    def field(self, height: int, width: int) -> "Field":
        return _InMemory(height, width) if self.folder is None else _InFile(height, width, self.device, self.folder)


class Field(ABC):
    """A feature map [1, C, height, width], written from top to bottom and read in any order, with its `moments`."""

    def __init__(self, height: int, width: int):
        self.height, self.width, self.moments, self.written = height, width, ChannelMoments(), 0

    @property
    def parts(self) -> tuple[ChannelMoments, ...]:
        return (self.moments,)

    def append(self, band: Tensor) -> None:
        """Append the next rows, [1, C, h, W]."""
        self.moments.add(band)
        self.write(self.written, band)
        self.written += band.shape[2]

    @abstractmethod
    def write(self, top: int, band: Tensor) -> None:
        """Overwrite rows from `top` on; the moments are not updated."""

    @abstractmethod
    def read(self, top: int, bottom: int) -> Tensor:
        """Read rows as `Rows.read`."""


class _InMemory(Field):
    rows: Tensor | None = None  # [1, height, W, C]

    def write(self, top: int, band: Tensor) -> None:
        rows = band.permute(0, 2, 3, 1)
        if self.rows is None:
            self.rows = rows.new_empty(1, self.height, *rows.shape[2:])
        self.rows[:, top : top + rows.shape[1]] = rows

    def read(self, top: int, bottom: int) -> Tensor:
        assert self.rows is not None  # something was written
        return self.rows[:, top:bottom].permute(0, 3, 1, 2)


class _InFile(Field):
    def __init__(self, height: int, width: int, device: torch.device, folder: str | os.PathLike):
        super().__init__(height, width)
        self.device = device
        # the file is closed, and its space freed, with the field
        self.file = tempfile.TemporaryFile(dir=os.fspath(folder))  # noqa: SIM115

    def write(self, top: int, band: Tensor) -> None:
        rows = band.permute(0, 2, 3, 1).contiguous().cpu()
        self.shape, self.dtype = rows.shape[2:], rows.dtype
        self.file.seek(top * rows[0, 0].nbytes)
        self.file.write(rows.view(torch.uint8).numpy())  # type: ignore[arg-type]  # an array is a buffer
        self.file.flush()  # raises the error of a full disk here

    def read(self, top: int, bottom: int) -> Tensor:
        rows = torch.empty(1, bottom - top, *self.shape, dtype=self.dtype)
        self.file.seek(top * rows[0, 0].nbytes)
        if self.file.readinto(rows.view(torch.uint8).numpy()) < rows.nbytes:  # type: ignore[arg-type]
            raise OSError("a scratch file of features is shorter than what was written to it")
        return rows.to(self.device).permute(0, 3, 1, 2)


class Joined:
    """Fields of the same size joined along the channels."""

    def __init__(self, *fields: Field):
        self.fields, self.height, self.width = fields, fields[0].height, fields[0].width

    @property
    def parts(self) -> tuple[ChannelMoments, ...]:
        return tuple(part for field in self.fields for part in field.parts)

    def read(self, top: int, bottom: int) -> Tensor:
        bands = [field.read(top, bottom) for field in self.fields]
        return torch.cat(bands, dim=1).contiguous(memory_format=torch.channels_last)


@dataclass(eq=False)
class View:
    """Rows that ``read(top, bottom)`` computes from others at every read."""

    height: int
    width: int
    read: Callable[[int, int], Tensor]


def mapped(rows: Rows, change: Callable[[Tensor], Tensor]) -> View:
    """Return ``change(rows)``; the change must be pixelwise."""
    return View(rows.height, rows.width, lambda top, bottom: change(rows.read(top, bottom)))
