"""`f2d restore`: photographs in, restored photographs out."""

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from f2d.cli.console import FAILED, fail, one_line_errors, tidy_when_terminated
from f2d.cli.counts import Counts
from f2d.cli.files import Job, Task, Wanted, left_to_do, plan_jobs
from f2d.cli.options import Device, Format, Model, Overwrite, Precision, PrecisionOption, Sampler, Seed
from f2d.cli.quantities import names, size_in_bytes, strengths
from f2d.cli.ranks import Board, place_here
from f2d.replacing import remove_leftovers


@one_line_errors
def restore(
    photos: Annotated[
        list[Path],
        typer.Argument(metavar="PHOTO...", help='Files, folders, or patterns such as "*.jpg".', show_default=False),
    ],
    target: Annotated[
        Path, typer.Option("--out", "-o", help="Folder to write to, or a file name for one photo.", show_default=False)
    ],
    model: Model = "f2d-lite",
    steps: Annotated[
        int | None, typer.Option(min=1, help="Network calls per photo; F²D-Net 1, ResFlow 4.", show_default=False)
    ] = None,
    sampler: Annotated[
        Sampler | None,
        typer.Option(
            case_sensitive=False,
            help="How the transport steps; F²D-Net MC, or mean: the prediction, no noise; ResFlow euler.",
            show_default=False,
        ),
    ] = None,
    seed: Seed = 0,
    samples: Annotated[
        int, typer.Option(min=0, help="Write so many samples, their mean and standard deviation; needs --steps.")
    ] = 0,
    tta: Annotated[bool, typer.Option("--tta", help="Average over the three flips too: four times the work.")] = False,
    only: Annotated[
        str | None, typer.Option(metavar="FACTORS", help="Correct these alone, such as rain,haze.", show_default=False)
    ] = None,
    strength: Annotated[
        list[str] | None,
        typer.Option(metavar="FACTOR=X", help="Correct a factor X times as much, such as low=0.5; again for others."),
    ] = None,
    save_maps: Annotated[
        bool, typer.Option("--save-maps", help="Also write the map of each expert, and the gates as JSON.")
    ] = False,
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Folders with all folders below; the tree is kept.")
    ] = False,
    format: Annotated[
        Format | None, typer.Option(case_sensitive=False, help="Format to write; that of each photo by default.")
    ] = None,
    quality: Annotated[
        int | None, typer.Option(min=1, max=100, help="Of JPEG and WebP (default 95).", show_default=False)
    ] = None,
    overwrite: Overwrite = False,
    device: Device = "auto",
    precision: PrecisionOption = Precision.AUTO,
    max_memory: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Memory the command may take, such as 4G; four fifths of what is free."),
    ] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Every photo whole, however much memory that takes.")] = False,
) -> None:
    """Restore PHOTO... (files, folders or patterns, any size) into -o.

    JPEG, PNG, WebP, TIFF and BMP, 8 and 16 bits, grey or colour; transparency and metadata are kept, EXIF orientation
    is applied. What is there already is skipped, so that a command that was stopped can be run again. One photo that
    fails does not stop the others: exit code 1. Under torchrun, or whatever sets RANK and WORLD_SIZE, the photos are
    shared out.
    """
    place = place_here()
    if samples == 1:
        fail("--samples needs two or more")
    suffix = None if format is None else f".{format.value}"
    if quality is not None and format is not None and suffix not in (".jpg", ".webp"):
        fail(f"--quality is for jpg and webp; {format.value} loses nothing")
    wanted = Wanted(overwrite, recursive, suffix, save_maps, samples)
    asked = {
        "strength": strengths(strength or []),
        "only": names(only),
        "max_memory": size_in_bytes(max_memory),
        "exact": exact or None,
        "steps": steps,
        "sampler": sampler and sampler.value,
    }
    options = {"tta": tta} | {name: value for name, value in asked.items() if value is not None}
    task = Task(model, device, precision.value, options, seed, wanted, quality)

    jobs, failures, folder = plan_jobs(photos, target, wanted)
    counts = Counts()
    if place.rank:
        failures = []  # every rank finds the same ones
    jobs = _largest_first(jobs)
    mine, counts.skipped, taken = left_to_do(sorted(place.share(jobs)), wanted)
    for failure in (*failures, *taken):
        counts.fail(failure)
    remove_leftovers(job.target for job in mine)
    board = Board(folder, place) if jobs and place.world > 1 else None
    with tidy_when_terminated(), board or nullcontext():
        try:
            if mine:
                from f2d.cli.restoring import restore_all

                restore_all(mine, task, counts, place)
            if board and counts.merge(board, jobs):
                return
        except KeyboardInterrupt:
            counts.summarize()
            raise
    counts.summarize(place.world)
    if counts.failed:
        raise typer.Exit(FAILED)


def _largest_first(jobs: list[Job]) -> list[Job]:
    """The order in which ranks take turns, so that none has all the large files.

    It must be the same whenever a rank looks: what is replaced in place changes its size meanwhile, and counts as 0.
    """

    def key(job: Job) -> tuple[int, Job]:
        try:
            return -job.source.stat().st_size * (job.source.resolve() != job.target.resolve()), job
        except (OSError, RuntimeError):  # a loop of links is either, by the version of Python
            return 0, job

    return sorted(jobs, key=key)
