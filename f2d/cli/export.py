"""`f2d export`: write a model as one file for other programs."""

from pathlib import Path
from typing import Annotated, Any

import typer

from f2d.cli.console import FAILED, fail, one_line_errors, out, shown
from f2d.cli.files import check_folder_writable, check_free
from f2d.cli.options import Device, ModelArgument, Overwrite, PrecisionOption, Sampler, Steps

MOST = 1e-3  # a quarter of an 8-bit level
MOST_BF16 = 2e-2


@one_line_errors
def export(
    model: ModelArgument,
    target: Annotated[
        Path, typer.Option("--out", "-o", help="File to write, named .onnx or .pt2.", show_default=False)
    ],
    steps: Steps = None,
    sampler: Annotated[
        Sampler | None,
        typer.Option(
            case_sensitive=False,
            help="Sampler (default: mean for F²D-Net, euler for ResFlow); all but mean need noise as a second input.",
            show_default=False,
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Run the exported file and compare its outputs with PyTorch's.")
    ] = False,
    overwrite: Overwrite = False,
    device: Device = "auto",
    precision: PrecisionOption = "auto",
) -> None:
    r"""Export MODEL as ONNX (-o name.onnx) or as a PyTorch exported program (-o name.pt2).

    Both take images [B, 3, H, W] in [0, 1] of any batch size, height and width, and return restored images. ONNX files
    use standard operators in float32; they need: pip install "f2d\[export]". A .pt2 file contains the fast engine
    for the chosen device and precision; import f2d_kernels before you load it with torch.export.load.
    """
    if target.is_dir():
        fail(f"{target}: is a folder, but must be a file name that ends in .onnx or .pt2")
    if target.suffix == ".onnx" and (device != "auto" or precision == "bf16"):
        fail(f"{target}: --device and --precision do not apply to ONNX files, which are float32 for any device")
    check_free([target], overwrite=overwrite)

    import torch

    from f2d import export as work
    from f2d.engine.execution import choose_execution
    from f2d.nets.models import load_network

    try:
        work.check_name(target)
    except ModuleNotFoundError as missing:
        fail(missing)
    check_folder_writable(target.parent)
    net = load_network(model)
    options: dict[str, Any] = {}
    if target.suffix == ".pt2":
        execution = choose_execution(device, precision)
        options = {"dtype": execution.dtype, "device": execution.device}
    work.export(net, target, steps=steps, sampler=sampler, **options)
    out.print(f"{shown(target)}: {target.stat().st_size / 2**20:.1f} MiB")
    for name, text in work.description(target).items():
        if name != "config":
            out.print(f"  {name}: {shown(text)}")
    if check:
        allowed = MOST_BF16 if options.get("dtype") == torch.bfloat16 else MOST
        found = work.differences(target, net)
        for (batch, height, width), difference in found.items():
            out.print(f"  largest difference from PyTorch, {batch} of {width}x{height}: {difference:.1e}")
        if not all(difference <= allowed for difference in found.values()):  # max would lose NaN behind a number
            fail(f"{target}: differs from PyTorch by more than {allowed:g}", FAILED)
