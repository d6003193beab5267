"""`f2d report`: write one HTML page about evaluations."""

import os
from pathlib import Path
from typing import Annotated

import typer

from f2d.cli.console import err, fail, one_line_errors, out, shown
from f2d.cli.files import check_folder_writable, check_free
from f2d.cli.options import Device, Evaluations, Overwrite


@one_line_errors
def report(
    evaluations: Evaluations,
    target: Annotated[Path, typer.Option("--out", "-o", help="HTML page to write.", show_default=False)],
    images: Annotated[
        int,
        typer.Option(
            min=1, max=200, help="Number of images to show, spread over the categories; the page stays below 30 MB."
        ),
    ] = 16,
    no_details: Annotated[
        bool,
        typer.Option(
            "--no-details", help="Omit maps, gates and the spread of samples, so that the model need not run."
        ),
    ] = False,
    overwrite: Overwrite = False,
    device: Device = "auto",
) -> None:
    r"""Write one HTML page about EVAL...: tables, charts, and images to compare with a slider.

    The page is a single file that works offline. Evaluations of the same data are shown side by side.
    Needs: pip install "f2d\[eval]"
    """
    if target.suffix.lower() not in (".html", ".htm"):
        fail(f"{target}: must be a file name that ends in .html")
    check_free([target], overwrite=overwrite)
    check_folder_writable(target.parent)

    from f2d.report.page import write_report

    with err.status("reading") as status:
        notes = write_report(
            evaluations,
            target,
            images=images,
            details=not no_details,
            device=device,
            progress=lambda case: status.update(f"drawing {shown(case)}"),
        )
    for note in notes:
        err.print(f"[yellow]note:[/] {shown(note)}")
    out.print(f"{shown(target.resolve())}, {os.path.getsize(target) / 1e6:.1f} MB")
