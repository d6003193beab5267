"""`f2d info`: what is installed, what the machine has, and what a restoration would run on."""

import platform
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from f2d.cli.console import one_line_errors, out
from f2d.cli.options import Device, Precision, PrecisionOption


@one_line_errors
def info(
    model: Annotated[
        str | None, typer.Argument(help="A preset, or a checkpoint folder: what it is and would run on.")
    ] = None,
    device: Device = "auto",
    precision: PrecisionOption = Precision.AUTO,
) -> None:
    """Versions, devices, kernel backends with reasons, presets, and what `f2d restore` would run."""
    import torch

    import f2d
    import f2d_kernels
    from f2d.execution import choose_execution

    model_rows = None if model is None else _describe(model)
    execution = choose_execution(device, precision.value)
    gpus = (
        [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    )
    _print_rows(
        "f2d",
        {
            "version": f2d.__version__,
            "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
            "torch": torch.__version__,
            "devices": ", ".join([f"cpu ({torch.backends.cpu.get_cpu_capability()})", *gpus]),
            "a restoration runs on": str(execution),
            "with kernels of": f2d_kernels.selected_backend(execution.device.type)[0],
        },
    )
    _print_rows("kernel backends", f2d_kernels.backends())
    if model_rows is None:
        _print_presets()
    else:
        _print_rows(model, model_rows)


def _print_presets() -> None:
    from f2d import checkpoints
    from f2d.nets import PRESETS
    from f2d.nets.cost import multiply_adds_per_pixel, parameter_count

    table = Table("preset", "parameters", "multiply-adds per pixel", "weights", title="presets", title_justify="left")
    shipped = checkpoints.shipped()
    for name, config in PRESETS.items():
        weights = str(checkpoints.WEIGHTS / name) if name in shipped else "none shipped"
        table.add_row(name, f"{parameter_count(config):,}", f"{multiply_adds_per_pixel(config):,.0f}", escape(weights))
    out.print(table)


def _describe(model: str) -> dict[str, str]:
    from f2d import F2DNet
    from f2d.nets.cost import multiply_adds_per_pixel, parameter_count

    config = F2DNet.from_pretrained(model).config
    return {
        "factors": ", ".join(config.factors),
        "parameters": f"{parameter_count(config):,}",
        "multiply-adds per pixel": f"{multiply_adds_per_pixel(config):,.0f}",
        "process": f"{config.target}, theta {config.theta}, sigma2 {config.sigma2}, T = {config.num_steps}",
        "sizes": f"any; padded to multiples of {config.stride} inside",
    }


def _print_rows(title: str, rows: dict[str, str]) -> None:
    table = Table(title=title, title_justify="left", show_header=False)
    for name, value in rows.items():
        table.add_row(name, escape(value))
    out.print(table)
