"""Options that several commands share."""

from enum import Enum
from typing import Annotated

import typer


class Sampler(str, Enum):
    """The samplers of all transports, known without importing PyTorch; a model has those of its own."""

    MC = "MC"
    NMC = "NMC"
    EM = "EM"
    MEAN = "mean"
    EULER = "euler"


class Precision(str, Enum):
    """`f2d.engine.execution.PRECISIONS`, known without importing PyTorch."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BF16 = "bf16"


class Format(str, Enum):
    """A format to write, by the suffix it gets."""

    JPG = "jpg"
    PNG = "png"
    WEBP = "webp"
    TIF = "tiff"
    BMP = "bmp"


Model = Annotated[str, typer.Option(help="A preset, a checkpoint folder, or owner/name on the Hub.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
Seed = Annotated[int, typer.Option(min=0, max=2**64 - 1, help="Seed of everything that is drawn.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist.")]
PrecisionOption = Annotated[Precision, typer.Option(help="Precision of the network; the transport is float32 always.")]
