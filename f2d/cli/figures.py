"""`f2d figures`: draw evaluations for papers and pages, as images or vector graphics."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from f2d.cli.console import fail, one_line_errors, out, shown
from f2d.cli.files import check_no_file
from f2d.cli.options import Device, Evaluations, Overwrite


@one_line_errors
def figures(
    evaluations: Evaluations,
    target: Annotated[Path, typer.Option("--out", "-o", help="Folder for the figures.", show_default=False)],
    case: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Image to draw, by its name in results.csv; may be repeated (default: one image from each of four "
            "categories).",
            show_default=False,
        ),
    ] = None,
    format: Annotated[
        Literal["png", "pdf", "svg"], typer.Option(case_sensitive=False, help="File format of the figures.")
    ] = "png",
    steps: Annotated[int, typer.Option(min=2, help="Sampling steps of the trajectory figure.")] = 10,
    crop: Annotated[
        tuple[int, int, int, int] | None,
        typer.Option(
            metavar="X Y WIDTH HEIGHT",
            help="Crop comparison, errors and maps to this rectangle, in pixels from the upper left corner.",
            show_default=False,
        ),
    ] = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    r"""Draw figures from EVAL...: methods side by side, error maps, experts, and each model's gate maps and trajectory.

    These files are written to -o: comparison, errors, maps (the experts' maps beside the ground-truth masks), weights
    (how much each expert acts where its factor is present and absent), NAME-gates and NAME-trajectory (the states x_t).
    Needs: pip install "f2d\[eval]"
    """
    check_no_file(target)
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError:
        fail('f2d figures needs matplotlib, which is not installed: pip install "f2d[eval]"')
    from f2d.figures.draw import draw
    from f2d.figures.panels import Crop

    part = None if crop is None else Crop(*crop)
    how: dict[str, Any] = {"suffix": format, "steps": steps, "crop": part, "device": device, "overwrite": overwrite}
    for path in draw(evaluations, target, case or [], **how):
        out.print(shown(path))
