"""Limits of the server's inputs and of a restoration's memory, checked before an image is decoded."""

from dataclasses import dataclass
from pathlib import Path

import torch

from f2d.engine.plan import PROGRAM, available_memory
from f2d.images import ImageError, stored
from f2d.images.formats import TooManyPixelsError

MAX_STEPS = 20
MAX_STRENGTH = 2.0


@dataclass(frozen=True)
class Limits:
    """megapixels (10^6) and upload (bytes): of one picture. memory: bytes of the whole server, None for four fifths of
    what is free at the start. together: restorations at once. waiting: requests in the queue. keep: seconds after
    which uploads and results are deleted. disk: bytes that they may take until then. clip_seconds, clip_megapixels:
    of one video, and of each of its frames."""

    megapixels: float = 24.0
    upload: int = 64 * 2**20
    memory: int | None = None
    together: int = 1
    waiting: int = 20
    keep: int = 3600
    disk: int = 4 * 2**30
    clip_seconds: float = 10.0
    clip_megapixels: float = 2.1

    def share(self, device: torch.device) -> int:
        """``program + (memory - program) / together``: bytes that one restoration is planned for, as the program is
        there once."""
        memory = available_memory(device) if self.memory is None else self.memory
        return PROGRAM + max(0, memory - PROGRAM) // self.together

    def check(self, path: Path) -> str | None:
        """Return Pillow's name of the format by the header, or None for an unreadable one, which `f2d.images.read` then
        explains. Raise ImageError for a file or an image that is too large."""
        size = path.stat().st_size
        if size > self.upload:
            raise ImageError(
                f"the file is {size / 2**20:.1f} MiB, but this page accepts at most {self.upload / 2**20:.4g} MiB"
            )
        try:
            format, (width, height) = stored(path)
        except TooManyPixelsError:
            raise ImageError(
                f"the image is too large: this page accepts at most {self.megapixels:g} megapixels"
            ) from None
        except ImageError:
            return None
        if width * height > self.megapixels * 1e6:
            raise ImageError(
                f"the image has {width} × {height} = {width * height / 1e6:.2f} megapixels, "
                f"but this page accepts at most {self.megapixels:g}"
            )
        return format
