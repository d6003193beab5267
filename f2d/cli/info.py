"""`f2d info`: what is installed, what the machine has, and what a restoration would run on."""

import platform
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Column, Table

from f2d.cli.console import one_line_errors, out
from f2d.cli.options import Device, Precision, PrecisionOption

if TYPE_CHECKING:
    from f2d.execution import Execution

NO_WEIGHTS = "none shipped"


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
        _print_rows("what runs", _what_runs(model, execution))
        if model_rows["weights"] != NO_WEIGHTS:
            _print_weights(model)


def _print_presets() -> None:
    from f2d import checkpoints
    from f2d.nets import PRESETS
    from f2d.nets.cost import multiply_adds_per_pixel, parameter_count

    table = Table("preset", "parameters", "multiply-adds per pixel", "weights", title="presets", title_justify="left")
    shipped = checkpoints.shipped()
    for name, config in PRESETS.items():
        weights = "shipped" if name in shipped else "none shipped"
        table.add_row(name, f"{parameter_count(config):,}", f"{multiply_adds_per_pixel(config):,.0f}", weights)
    out.print(table)
    for name in shipped:
        _print_weights(name)


def _describe(model: str) -> dict[str, str]:
    from f2d import checkpoints
    from f2d.nets import PRESETS, F2DNet
    from f2d.nets.cost import multiply_adds_per_pixel, parameter_count

    without_weights = model in PRESETS and model not in checkpoints.shipped() and not Path(model).is_dir()
    config = PRESETS[model] if without_weights else F2DNet.from_pretrained(model).config
    return {
        "weights": NO_WEIGHTS if without_weights else "loaded, finite",
        "parameters": f"{parameter_count(config):,}",
        "multiply-adds per pixel": f"{multiply_adds_per_pixel(config):,.0f}",
        "sizes": f"any; padded to multiples of {config.stride} inside",
        **{name: _text(value) for name, value in config.to_dict().items()},
    }


def _what_runs(model: str, execution: "Execution") -> dict[str, str]:
    """The engine in words; of a preset without weights, with those it starts training from."""
    from f2d import checkpoints
    from f2d.engine import Engine, describe
    from f2d.nets import PRESETS, F2DNet

    drawn = model in PRESETS and model not in checkpoints.shipped() and not Path(model).is_dir()
    net = F2DNet.from_preset(model) if drawn else F2DNet.from_pretrained(model)
    return describe(Engine(net, execution.dtype, execution.device))


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _print_weights(model: str) -> None:
    """The path on a line of its own: in a table it would be cut."""
    from f2d import checkpoints

    out.print(f"weights of {escape(model)}: {escape(str(checkpoints.find(model)))}")


def _print_rows(title: str, rows: dict[str, str]) -> None:
    table = Table(Column(), Column(overflow="fold"), title=escape(title), title_justify="left", show_header=False)
    for name, value in rows.items():
        table.add_row(name, escape(value))
    out.print(table)
