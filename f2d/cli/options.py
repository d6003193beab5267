"""Options that several commands share."""

from enum import Enum
from typing import Annotated

import typer


class Sampler(str, Enum):
    """The samplers of all transports, known without importing PyTorch; each model has some of them."""

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
    """An output format, named by its suffix."""

    JPG = "jpg"
    PNG = "png"
    WEBP = "webp"
    TIF = "tiff"
    BMP = "bmp"


class Codec(str, Enum):
    """`f2d.video.CODECS`."""

    H264 = "h264"
    H265 = "h265"
    AV1 = "av1"
    VP9 = "vp9"
    FFV1 = "ffv1"


class Engine(str, Enum):
    """What runs a restoration: this process, or actors of a Ray cluster."""

    LOCAL = "local"
    RAY = "ray"


Model = Annotated[str, typer.Option(help="A preset, a checkpoint folder, or owner/name on the Hub.")]
Device = Annotated[str, typer.Option(help="Device: auto, cpu, cuda, cuda:1, ...")]
Seed = Annotated[int, typer.Option(min=0, max=2**64 - 1, help="Random seed.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Overwrite existing outputs.")]
PrecisionOption = Annotated[
    Precision, typer.Option(help="Precision of the network; the transport always runs in float32.")
]
