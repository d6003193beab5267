"""Options that several commands share."""

from pathlib import Path
from typing import Annotated, Literal

import typer

Precision = Literal["auto", "float32", "bf16"]  # `f2d.engine.execution.PRECISIONS`, known without importing PyTorch
Sampler = Literal["MC", "NMC", "EM", "mean", "euler"]  # of all transports; each model has some of them
Format = Literal["jpg", "png", "webp", "tiff", "bmp"]  # an output format, named by its suffix
Codec = Literal["h264", "h265", "av1", "vp9", "ffv1"]  # `f2d.video.CODECS`

ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="Preset, checkpoint folder, or owner/name on the Hugging Face Hub.")
]
Evaluations = Annotated[
    list[Path],
    typer.Argument(metavar="EVAL...", help="Result folders of f2d eval, all on the same data.", show_default=False),
]
Model = Annotated[str, typer.Option(help="Preset, checkpoint folder, or owner/name on the Hugging Face Hub.")]
Steps = Annotated[
    int | None,
    typer.Option(min=1, help="Network calls per image (default: 1 for F²D-Net, 4 for ResFlow).", show_default=False),
]
SamplerOption = Annotated[
    Sampler | None,
    typer.Option(
        case_sensitive=False,
        help="Sampler: mc (default), nmc, em or mean (one deterministic step) for F²D-Net; euler for ResFlow.",
        show_default=False,
    ),
]
MaxMemory = Annotated[
    str | None, typer.Option(metavar="SIZE", help="Memory limit, for example 4G (default: 80 % of the free memory).")
]
Device = Annotated[str, typer.Option(help="Device: auto, cpu, cuda, cuda:1, ...")]
Seed = Annotated[int, typer.Option(min=0, max=2**64 - 1, help="Random seed.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Overwrite existing outputs.")]
PrecisionOption = Annotated[
    Precision, typer.Option(help="Precision of the network; the transport always runs in float32.")
]
