"""`f2d restore --engine ray`: the same restoration by many processes on many machines."""

from pathlib import Path

import typer

from f2d.cli.console import FAILED, bar_of, err, fail, out, report_error, shown, up
from f2d.cli.counts import done, tell_left_out
from f2d.cli.files import Task
from f2d.cli.folders import LeftOut
from f2d.images.formats import FORMATS

MISSING = 'f2d restore --engine ray needs Ray and pyarrow, which are not installed: pip install "f2d[ray]"'


def restore_on_cluster(
    sources: list[str], target: str, task: Task, address: str | None, workers: int | None, cpus: float, gpus: float
) -> None:
    """Restore one source into the folder `target`, print each failure and the totals, and set the exit code."""
    if len(sources) != 1:
        fail(f"--engine ray takes one folder, list or Parquet file, got {len(sources)} arguments")
    if Path(target).suffix.lower() in FORMATS:
        fail(f"{target}: must be a folder, as --engine ray restores folders, lists and Parquet files")
    try:
        from f2d.cluster import Actors, restore_on_ray
    except ModuleNotFoundError as missing:
        if missing.name not in ("ray", "pyarrow"):
            raise
        fail(MISSING)
    from f2d.cli.restoring import check_options
    from f2d.nets.models import load_config

    check_options(load_config(task.model), task)
    outputs, bar = task.outputs, bar_of("restoring", 0)

    def started(images: int, actors: int) -> None:
        bar.update(bar.task_ids[0], total=images)
        out.print(f"{shown(task.model)} on {actors} Ray actor{'s' * (actors > 1)}: {images} images")

    def progress(_: str, error: str) -> None:
        if error:
            report_error(error)
        bar.advance(bar.task_ids[0])

    with up(bar, err.is_terminal):
        outcome = restore_on_ray(
            sources[0],
            target,
            model=task.model,
            address=address,
            actors=Actors(workers, cpus, gpus),
            recursive=outputs.recursive,
            overwrite=outputs.overwrite,
            started=started,
            progress=progress,
            device=task.device,
            precision=task.precision,
            seed=task.seed,
            format=outputs.format and outputs.format[1:],
            quality=task.quality,
            **task.options,
        )
    left_out = LeftOut(outcome.left_out)
    tell_left_out(left_out)
    rate = outcome.restored / outcome.seconds if outcome.seconds else 0.0
    out.print(
        f"{done(outcome.restored, outcome.failed, outcome.skipped)}; {rate:.2f} images per second, "
        f"model {outcome.model_seconds:.2f} s, whole job {outcome.seconds:.2f} s"
    )
    if outcome.failed or left_out.photographs:
        raise typer.Exit(FAILED)
