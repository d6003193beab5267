"""`f2d restore --engine ray`: the same restoration by many processes on many machines."""

import re
from pathlib import Path
from typing import Any

import typer
from rich.markup import escape

from f2d.cli.console import FAILED, bar_of, err, fail, out, report_error, up

MISSING = 'f2d restore --engine ray needs Ray and pyarrow, which are not installed: pip install "f2d[ray]"'


def as_uri(path: Path) -> str:
    """Return the argument as it was given: a path joins the two slashes of s3://bucket/folder into one."""
    return re.sub(r"^([a-z][a-z0-9+.-]+):/(?=[^/])", r"\1://", str(path))


def restore_on_cluster(
    sources: list[Path],
    target: Path,
    *,
    model: str,
    address: str | None,
    workers: int | None,
    cpus: float,
    gpus: float,
    overwrite: bool,
    recursive: bool,
    **options: Any,
) -> None:
    """Restore one source into `target`, print each failure and the numbers of the whole job, and set the exit code."""
    if len(sources) != 1:
        fail(f"--engine ray takes one folder, list or Parquet file, got {len(sources)} arguments")
    try:
        from f2d.cluster import Actors, restore_on_ray
    except ModuleNotFoundError as missing:
        if missing.name not in ("ray", "pyarrow"):
            raise
        fail(MISSING)
    bar = bar_of("restoring", 0)

    def started(images: int, actors: int) -> None:
        bar.update(bar.task_ids[0], total=images)
        out.print(f"{escape(model)} on {actors} Ray actors: {images} images")

    def progress(_: str, error: str) -> None:
        if error:
            report_error(error)
        bar.advance(bar.task_ids[0])

    with up(bar, err.is_terminal):
        outcome = restore_on_ray(
            as_uri(sources[0]),
            as_uri(target),
            model=model,
            address=address,
            actors=Actors(workers, cpus, gpus),
            recursive=recursive,
            overwrite=overwrite,
            started=started,
            progress=progress,
            **options,
        )
    skipped = f", {outcome.skipped} skipped (they exist, and --overwrite replaces them)" if outcome.skipped else ""
    rate = outcome.restored / outcome.seconds if outcome.seconds else 0.0
    out.print(
        f"{outcome.restored} restored, {outcome.failed} failed{skipped}; {rate:.2f} images per second, "
        f"model {outcome.model_seconds:.2f} s, whole job {outcome.seconds:.2f} s"
    )
    if outcome.failed:
        raise typer.Exit(FAILED)
