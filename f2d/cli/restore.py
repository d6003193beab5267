"""`f2d restore`: photographs in, restored photographs out."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from f2d.cli import STARTED
from f2d.cli.console import FAILED, err, one_line_errors, out, report_error
from f2d.cli.files import map_path, numbers_path, plan_jobs
from f2d.cli.options import Device, Model, Overwrite, Precision, PrecisionOption, Sampler, Seed

if TYPE_CHECKING:
    from f2d.restorer import Restorer


@one_line_errors
def restore(
    photos: Annotated[
        list[Path], typer.Argument(metavar="PHOTO...", help="Files, or folders of files.", show_default=False)
    ],
    target: Annotated[
        Path, typer.Option("--out", "-o", help="Folder to write to, or a file name for one photo.", show_default=False)
    ],
    model: Model = "f2d-lite",
    steps: Annotated[int, typer.Option(min=1, help="Network calls per photo.")] = 1,
    sampler: Annotated[
        Sampler, typer.Option(case_sensitive=False, help="How the transport steps; mean: the prediction, no noise.")
    ] = Sampler.MC,
    seed: Seed = 0,
    tta: Annotated[bool, typer.Option("--tta", help="Average over the three flips too: four times the work.")] = False,
    save_maps: Annotated[
        bool, typer.Option("--save-maps", help="Also write the map of each expert, and the gates as JSON.")
    ] = False,
    overwrite: Overwrite = False,
    device: Device = "auto",
    precision: PrecisionOption = Precision.AUTO,
) -> None:
    """Restore PHOTO... (files or folders, any size) into -o.

    JPEG, PNG, WebP, TIFF and BMP in 8 bits; grey, palette and CMYK pictures become RGB, transparency is kept, EXIF
    orientation is applied. One photo that fails does not stop the others: exit code 1.
    """
    jobs, failures = plan_jobs(photos, target, overwrite=overwrite, maps=save_maps)
    for failure in failures:
        report_error(failure)
    if not jobs:
        raise typer.Exit(FAILED)

    from f2d.images import ImageError, check_holds, open_image, save_image
    from f2d.nets import F2DNetConfig
    from f2d.restorer import Restorer
    from f2d.transport import sampling_times

    config = F2DNetConfig.from_pretrained(model)
    sampling_times(config.schedule, steps, sampler.value)  # a mistake there needs no weights to be known
    restorer: Restorer | None = None
    done, model_seconds = 0, 0.0
    progress = _progress(len(jobs))
    for job in jobs:
        try:
            picture = open_image(job.source)
            check_holds(picture, job.target)
            if restorer is None:  # only now, so that a command without a single readable picture loads nothing
                restorer = Restorer.load(model, device=device, precision=precision.value)
                out.print(f"{escape(model)} on {restorer.execution}")
            with _shown(progress):
                restored = restorer(picture, steps=steps, sampler=sampler.value, seed=seed, tta=tta)
                save_image(restored.image, job.target)
                if save_maps:
                    _save_maps(restorer, picture, job.target)
        except ImageError as error:
            report_error(error)
            failures.append(str(error))
        else:
            done += 1
            model_seconds += restored.seconds
            width, height = picture.size
            out.print(f"{escape(str(job.target))}  {width}x{height}  {restored.seconds:.2f} s")
        progress.advance(progress.task_ids[0])
    if done:
        out.print(
            f"{done} restored, {len(failures)} failed; model {model_seconds:.2f} s, "
            f"whole command {time.perf_counter() - STARTED:.2f} s"
        )
    if failures:
        raise typer.Exit(FAILED)


def _progress(total: int) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=err, transient=True)
    progress.add_task("restoring", total=total)
    return progress


@contextmanager
def _shown(progress: Progress) -> Iterator[None]:
    """The bar is up while a picture is worked on and gone when its line is printed; in a pipe there is none."""
    if not err.is_terminal:
        yield
        return
    with progress:
        yield


def _save_maps(restorer: "Restorer", picture, target: Path) -> None:
    from f2d.images import replacing, save_image, to_picture

    explanation = restorer.explain(picture)
    for name, values in zip(explanation.factors, explanation.maps):
        save_image(to_picture(values), map_path(target, name))
    numbers = {
        "gates": dict(zip(explanation.factors, explanation.gates.tolist())),
        "presence": dict(zip(explanation.factors, explanation.presence.tolist())),
    }
    with replacing(numbers_path(target)) as temporary:
        temporary.write_text(json.dumps(numbers, indent=2) + "\n")
