"""`f2d demo`: degrade and restore free photographs, offline."""

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Column, Table

from f2d.cli import STARTED
from f2d.cli.console import err, one_line_errors, out, shown
from f2d.cli.files import check_folder_writable, check_free, check_no_file
from f2d.cli.options import Device, Model, Overwrite, PrecisionOption
from f2d.images import save_image


@one_line_errors
def demo(
    target: Annotated[Path, typer.Option("--out", "-o", help="Folder for the figures.")] = Path("demo"),
    model: Model = "f2d-lite",
    overwrite: Overwrite = False,
    device: Device = "auto",
    precision: PrecisionOption = "auto",
) -> None:
    """Degrade sample photographs with overlapping haze, rain, snow and low light, restore and measure them.

    The photographs come with the package. Seeds are fixed, so every run gives the same images.
    """
    check_no_file(target)

    from f2d.demo import CASES, run
    from f2d.engine.restorer import Restorer

    figures = {case: target / f"{i}_{case.photo}_{case.category}.png" for i, case in enumerate(CASES, 1)}
    check_free(list(figures.values()), overwrite=overwrite)
    check_folder_writable(target)
    restorer = Restorer.load(model, device=device, precision=precision)
    out.print(f"{shown(model)} on {restorer.execution}")
    numbers = (Column(name, justify="right") for name in ("before, dB", "after, dB", "gain", "seconds"))
    table = Table("photo", "category", *numbers)
    gains = []
    with err.status("restoring"):
        for result in run(restorer):
            save_image(result.figure, figures[result.case])
            gain = result.after - result.before
            gains.append(gain)
            cells = (f"{result.before:.2f}", f"{result.after:.2f}", _signed(gain), f"{result.seconds:.2f}")
            table.add_row(result.case.photo, result.case.category.replace("_", " + "), *cells)
    table.add_section()
    table.add_row("mean", "", "", "", _signed(sum(gains) / len(gains)), "")
    out.print(table)
    maps = ", with the experts' maps," if restorer.config.factors else ""
    out.print(f"degraded | restored | clean{maps} in {shown(target.resolve())}:")
    for path in figures.values():
        out.print(f"  {shown(path.name)}")
    out.print(f"whole command {time.perf_counter() - STARTED:.1f} s")


def _signed(gain: float) -> str:
    return f"[{'green' if gain > 0 else 'red'}]{gain:+.2f}[/]"
