"""The types of the registry of cases, which defines what is measured, at which sizes and against what.

An op of `f2d_kernels` is one `Op` in `bench/cases/<op>.py`; each of its cases is named after the model's stage from
which it comes. `bench.run` and the pytest-benchmark tests read `ops()`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

MODES = ("forward", "backward", "both")
Arguments = dict[str, Any]  # keyword arguments of the op: tensors, lists of tensors, numbers


@dataclass(frozen=True)
class Case:
    """One op at one size. name: preset/stage/size/..., unique within the op.

    variant: cases of different variants (a seed, or given noise) are summarised separately. train: measure forward,
    backward and both; otherwise only forward, without gradients. quick: whether `--quick` runs it. options: sizes that
    only this op has.
    """

    op: str
    name: str
    batch: int
    channels: int
    height: int
    width: int
    dtype: torch.dtype = torch.float32
    channels_last: bool = False
    variant: str = ""
    train: bool = False
    quick: bool = False
    options: dict[str, Any] = field(default_factory=dict, hash=False)

    @property
    def modes(self) -> tuple[str, ...]:
        return MODES if self.train else ("forward",)

    @property
    def image(self) -> tuple[int, int, int, int]:
        return self.batch, self.channels, self.height, self.width

    @property
    def image_bytes(self) -> int:
        """BCHW · e, with e bytes per element."""
        return self.batch * self.channels * self.plane_bytes

    @property
    def plane_bytes(self) -> int:
        """HW · e, one channel of one sample."""
        return self.height * self.width * self.dtype.itemsize


@dataclass(frozen=True)
class Traffic:
    """Least traffic of one call in bytes, and its number of read and write streams, which the ceiling loop imitates."""

    read: int
    written: int
    reads: int
    writes: int

    @property
    def total(self) -> int:
        return self.read + self.written

    def __add__(self, other: "Traffic") -> "Traffic":
        return Traffic(
            self.read + other.read,
            self.written + other.written,
            max(self.reads, other.reads),
            max(self.writes, other.writes),
        )


@dataclass(frozen=True)
class Op:
    """One public function of `f2d_kernels` and its baselines.

    inputs(case, device): draws the arguments of one call. ours, eager, published, exact: are called with them as
    keywords; exact receives them in float64 and is the reference, on backend "reference". eager: the natural ways to
    write the op in PyTorch, name -> function; torch.compile compiles the one named `compiled`. others: further
    providers of the same result. gradients: the arguments that require gradients in training cases. forward, backward:
    least traffic. own_noise: the argument that scales the noise, if baselines draw other noise than ours; they are
    checked with it at zero.
    """

    name: str
    cases: tuple[Case, ...]
    inputs: Callable[[Case, torch.device], Arguments]
    ours: Callable[..., Any]
    exact: Callable[..., Any]
    eager: dict[str, Callable[..., Any]]
    compiled: str
    published: Callable[..., Any]
    gradients: tuple[str, ...]
    forward: Callable[[Case], Traffic]
    backward: Callable[[Case], Traffic]
    others: dict[str, Callable[..., Any]] = field(default_factory=dict)
    own_noise: str | None = None

    def traffic(self, case: Case, mode: str) -> Traffic:
        if mode == "both":
            return self.forward(case) + self.backward(case)
        return self.forward(case) if mode == "forward" else self.backward(case)


def draw(shape: tuple[int, ...], case: Case, device: torch.device, *, channels_last: bool | None = None) -> Tensor:
    """Draw standard normal numbers [..., C, H, W] in the dtype and memory layout of the case."""
    if case.channels_last if channels_last is None else channels_last:
        *lead, channels, height, width = shape
        return torch.randn(*lead, height, width, channels, device=device).to(case.dtype).movedim(-1, -3)
    return torch.randn(shape, device=device).to(case.dtype)


def uniform(shape: tuple[int, ...], low: float, high: float, device: torch.device) -> Tensor:
    """Draw uniform float32 numbers between low and high, for gates, maps and schedules."""
    return torch.rand(shape, device=device) * (high - low) + low
