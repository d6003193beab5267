"""How the photographs of one command are restored and written, known without importing PyTorch."""

from dataclasses import dataclass
from typing import Any

from f2d.cli.files import Wanted


@dataclass(frozen=True)
class Task:
    """options: what the restorer is called with, besides the seed. quality: of JPEG and WebP, None for the default."""

    model: str
    device: str
    precision: str
    options: dict[str, Any]
    seed: int
    wanted: Wanted
    quality: int | None
