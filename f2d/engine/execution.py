"""Choose where and in which precision a network runs on this machine, and give the reason."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from f2d.engine.plan import BudgetError

PRECISIONS = ("auto", "float32", "bf16")
# PyTorch's allocators raise a RuntimeError, in these words on a CPU, a GPU, Windows, and from C++
_NO_MEMORY = re.compile("(out of|allocate|not enough) memory|bad_alloc", re.IGNORECASE)


class DoesNotFitError(BudgetError):
    """Memory ran out while an image was processed."""


@contextmanager
def telling_memory(what: str) -> Iterator[None]:
    """Raise DoesNotFitError, ``WHAT does not fit into memory``, for whatever the allocators raise inside."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not _NO_MEMORY.search(str(error)):
            raise
        raise DoesNotFitError(f"{what} does not fit into memory") from None


@dataclass(frozen=True)
class Execution:
    """Device, precision of the convolutions ("float32" or "bf16"; the transport is always float32), and the reason."""

    device: torch.device
    precision: str
    reason: str

    @property
    def dtype(self) -> torch.dtype:
        """The type of the engine's convolutions and feature maps."""
        return torch.bfloat16 if self.precision == "bf16" else torch.float32

    def synchronize(self) -> None:
        """Wait until the device is done, so that a clock read next includes its work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def __str__(self) -> str:
        where = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else str(self.device)
        if self.device.type == "cpu":
            threads = torch.get_num_threads()
            where += f", {threads} thread{'s' * (threads > 1)}"
        return f"{where}, {self.precision} ({self.reason})"


def choose_execution(device: str = "auto", precision: str = "auto") -> Execution:
    """Choose the device ("auto": a GPU if there is one, else the CPU) and precision ("auto", "float32" or "bf16").

    device may be any of PyTorch's names. Precision "auto" is bf16 if the hardware can multiply it, otherwise float32.
    Raises ValueError for an unavailable device and an unknown precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    chosen = _device(device)
    if precision != "auto":
        return Execution(chosen, precision, "requested")
    reason = _native_bf16(chosen)
    return Execution(chosen, "bf16", reason) if reason else Execution(chosen, "float32", "no hardware support for bf16")


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type == "cpu" and device.index:  # PyTorch accepts any number here
            raise ValueError(f"device {name!r} cannot be used here: there is one CPU, named 'cpu'")
        torch.zeros(1, device=device).cpu()
    # PyTorch raises any of these for a device it was not built for
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device {name!r} cannot be used here: {str(error).split('. ')[0]}") from None
    return device


def _native_bf16(device: torch.device) -> str | None:
    """Name the hardware that multiplies bf16 on `device`, or None."""
    if device.type == "cuda":
        return "the GPU has bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else None
    if device.type != "cpu":
        return None
    # cpuinfo's answers, in every torch from 2.11 on (get_capabilities(), which is public, may be younger).
    # Without either, bf16 convolutions are emulated and slower than float32.
    if torch.cpu._is_amx_tile_supported():
        return "AMX"
    return "AVX512-BF16" if torch.cpu._is_avx512_bf16_supported() else None
