"""`f2d report`: evaluations in, one HTML page out."""

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from f2d.cli.console import err, fail, one_line_errors, out, shown
from f2d.cli.files import check_folder_writable, check_free
from f2d.cli.options import Device, Overwrite


@one_line_errors
def report(
    evaluations: Annotated[
        list[Path], typer.Argument(metavar="EVAL...", help="Folders that f2d eval wrote.", show_default=False)
    ],
    target: Annotated[Path, typer.Option("--out", "-o", help="The page to write.", show_default=False)],
    images: Annotated[
        int, typer.Option(min=1, max=200, help="Pictures to show, evenly over the categories; the page stays < 30 MB.")
    ] = 16,
    no_details: Annotated[
        bool, typer.Option("--no-details", help="Without what the model must be run for: maps, gates, spread.")
    ] = False,
    overwrite: Overwrite = False,
    device: Device = "auto",
) -> None:
    r"""Make one HTML page about EVAL...: tables, charts, and pictures to compare with a slider.

    The page is a single file that works without a network. Several evaluations of the same data stand side by side.
    Needs: pip install "f2d\[eval]"
    """
    if target.suffix.lower() not in (".html", ".htm"):
        fail(f"{target}: a page is written as .html; give such a name")
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
    out.print(f"{escape(str(target.resolve()))}, {os.path.getsize(target) / 1e6:.1f} MB")
