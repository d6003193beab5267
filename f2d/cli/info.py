"""`f2d info`: show what is installed, what the machine has, and what a restoration would run on."""

import platform
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Column, Table

from f2d.cli.console import one_line_errors, out, shown
from f2d.cli.options import Device, PrecisionOption

if TYPE_CHECKING:
    from f2d.engine.execution import Execution
    from f2d.nets.models import Config, Network

NO_WEIGHTS = "none shipped"


@one_line_errors
def info(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="Model to describe: a preset, checkpoint folder, or owner/name on the Hugging Face Hub.",
        ),
    ] = None,
    device: Device = "auto",
    precision: PrecisionOption = "auto",
) -> None:
    """Show versions, devices, kernel backends (and why any are missing), presets, and what `f2d restore` would use."""
    import torch

    import f2d_kernels
    from f2d.checkpoints import pinned
    from f2d.engine.execution import choose_execution

    if model is not None:
        model = pinned(model)
    net = None if model is None else _network(model)
    execution = choose_execution(device, precision)
    gpus = (
        [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    )
    _print_rows(
        "f2d",
        {
            "version": f2d_kernels.__version__,
            "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
            "torch": torch.__version__,
            "devices": ", ".join([f"cpu ({torch.backends.cpu.get_cpu_capability()})", *gpus]),
            "restoration runs on": str(execution),
            "kernel backend": f2d_kernels.selected_backend(execution.device.type)[0],
        },
    )
    _print_rows("kernel backends", f2d_kernels.backends())
    if net is None or model is None:
        _print_presets()
        return
    drawn = _without_weights(model)
    _print_rows(model, {"weights": NO_WEIGHTS if drawn else "loaded, finite", **_sizes(net.config)})
    _print_rows("what runs", _what_runs(net, execution))
    if not drawn:
        _print_weights(model)


def _print_presets() -> None:
    from f2d import checkpoints
    from f2d.nets.cost import multiply_adds_per_pixel, parameter_count
    from f2d.nets.models import PRESETS

    table = Table("preset", "parameters", "multiply-adds per pixel", "weights", title="presets", title_justify="left")
    shipped = checkpoints.shipped()
    for name, config in PRESETS.items():
        weights = "shipped" if name in shipped else NO_WEIGHTS
        table.add_row(name, f"{parameter_count(config):,}", f"{multiply_adds_per_pixel(config):,.0f}", weights)
    out.print(table)
    for name in shipped:
        _print_weights(name)


def _without_weights(model: str) -> bool:
    """Return whether `model` is a preset without shipped weights."""
    from f2d import checkpoints
    from f2d.nets.models import PRESETS

    return model in PRESETS and model not in checkpoints.shipped() and not Path(model).is_dir()


def _network(model: str) -> "Network":
    """Load the network; a preset without weights gets the initial weights of training."""
    from f2d.nets.models import PRESETS, build, load_network

    return build(PRESETS[model]) if _without_weights(model) else load_network(model)


def _sizes(config: "Config") -> dict[str, str]:
    from f2d.nets.cost import multiply_adds_per_pixel, parameter_count

    return {
        "parameters": f"{parameter_count(config):,}",
        "multiply-adds per pixel": f"{multiply_adds_per_pixel(config):,.0f}",
        "sizes": f"any; padded internally to multiples of {config.stride}",
        **{name: _text(value) for name, value in config.to_dict().items()},
    }


def _what_runs(net: "Network", execution: "Execution") -> dict[str, str]:
    """Describe the engine, and the steps and sampler that it uses by default."""
    from f2d.engine import engine_of
    from f2d.engine.describe import describe
    from f2d.transport import sampling

    steps, sampler = sampling(net.transport)
    calls = f"{steps} network call{'s' * (steps > 1)}"
    by_default = f"{calls} with sampler {sampler} by default; samplers: {', '.join(net.transport.samplers)}"
    return {"a restoration": by_default, **describe(engine_of(net, execution.dtype, execution.device))}


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _print_weights(model: str) -> None:
    """Print the path on a line of its own, since a table would cut it."""
    from f2d import checkpoints

    out.print(f"weights of {shown(model)}: {shown(checkpoints.find(model))}")


def _print_rows(title: str, rows: dict[str, str]) -> None:
    table = Table(Column(), Column(overflow="fold"), title=shown(title), title_justify="left", show_header=False)
    for name, value in rows.items():
        table.add_row(name, escape(value))
    out.print(table)
