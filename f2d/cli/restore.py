"""`f2d restore`: restore photographs and videos."""

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from f2d.cli.console import FAILED, fail, one_line_errors, tidy_when_terminated
from f2d.cli.counts import Counts, tell_left_out
from f2d.cli.files import Job, OutputOptions, Task, left_to_do, plan_jobs
from f2d.cli.options import (
    Codec,
    Device,
    Format,
    MaxMemory,
    Model,
    Overwrite,
    PrecisionOption,
    SamplerOption,
    Seed,
    Steps,
)
from f2d.cli.quantities import names, size_in_bytes, strengths
from f2d.cli.ranks import finish, place_here
from f2d.cli.videos import allowed
from f2d.replacing import remove_leftovers
from f2d.video import EncodingOptions

# groups of their own in --help
VideoOption = partial(typer.Option, rich_help_panel="Videos")
RayOption = partial(typer.Option, rich_help_panel="Ray cluster")


@one_line_errors
def restore(
    photos: Annotated[
        list[str],
        typer.Argument(metavar="PHOTO...", help='Files, folders, or patterns such as "*.jpg".', show_default=False),
    ],
    target: Annotated[
        str,
        typer.Option(
            "--out", "-o", help="Output folder, or a file name for a single photo or video.", show_default=False
        ),
    ],
    model: Model = "f2d-lite",
    steps: Steps = None,
    sampler: SamplerOption = None,
    seed: Seed = 0,
    samples: Annotated[
        int,
        typer.Option(min=0, help="Write this many samples, their mean and their standard deviation; needs --steps."),
    ] = 0,
    tta: Annotated[
        bool, typer.Option("--tta", help="Average the result over the image and three flips; takes four times as long.")
    ] = False,
    only: Annotated[
        str | None,
        typer.Option(metavar="FACTORS", help="Correct only these factors, for example rain,haze.", show_default=False),
    ] = None,
    strength: Annotated[
        list[str] | None,
        typer.Option(metavar="FACTOR=X", help="Scale one factor's correction, for example low=0.5; may be repeated."),
    ] = None,
    save_maps: Annotated[
        bool, typer.Option("--save-maps", help="Also write each expert's map, and the gates as JSON.")
    ] = False,
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Recurse into subfolders and keep their structure.")
    ] = False,
    format: Annotated[
        Format | None, typer.Option(case_sensitive=False, help="Output format (default: that of each photo).")
    ] = None,
    quality: Annotated[
        int | None, typer.Option(min=1, max=100, help="JPEG and WebP quality (default 95).", show_default=False)
    ] = None,
    codec: Annotated[
        Codec | None,
        VideoOption(
            case_sensitive=False,
            help="Video codec (default: h264, unless the bit depth or the container needs another).",
            show_default=False,
        ),
    ] = None,
    crf: Annotated[
        int | None,
        VideoOption(
            min=0, max=63, help="Video quality, where 0 is the best (default: 18 for h264).", show_default=False
        ),
    ] = None,
    smooth: Annotated[
        float,
        VideoOption(
            min=0,
            metavar="SECONDS",
            help="Reduce flicker: smooth the network's decisions about whole frames over this time; 0 turns it off.",
        ),
    ] = 0.5,
    overwrite: Overwrite = False,
    device: Device = "auto",
    precision: PrecisionOption = "auto",
    max_memory: MaxMemory = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Never split an image into bands, whatever memory it needs.")
    ] = False,
    engine: Annotated[
        Literal["local", "ray"],
        RayOption(help="Where to restore: local (this process), or ray (a Ray cluster, with any storage)."),
    ] = "local",
    address: Annotated[
        str | None,
        RayOption(help="Address of the Ray cluster to join (default: start one on this machine).", show_default=False),
    ] = None,
    workers: Annotated[
        int | None,
        RayOption(
            min=1, help="Number of Ray actors (default: as many as the cluster has resources for).", show_default=False
        ),
    ] = None,
    worker_cpus: Annotated[
        float | None, RayOption(min=0, help="CPUs that each Ray actor reserves (default: 1).", show_default=False)
    ] = None,
    worker_gpus: Annotated[
        float | None,
        RayOption(
            min=0, help="GPUs that each Ray actor reserves; fractions are allowed (default: 0).", show_default=False
        ),
    ] = None,
) -> None:
    r"""Restore PHOTO... (photographs and videos: files, folders or patterns, any size) into -o.

    Reads JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF, HEIC, JPEG 2000 and PPM with 8 or 16 bits, grey or colour. If f2d
    cannot write the format of a photo, its output is a PNG. Transparency and metadata are kept; EXIF orientation is
    applied. Existing outputs are skipped, so an interrupted command can simply be rerun. If a photo fails or its format
    is not supported, the others are still restored, and the exit code is 1. Under torchrun (or any launcher that sets
    RANK and WORLD_SIZE) the photos are split among the processes.

    Videos (MP4, MOV, MKV, WebM, AVI, TS, ...) keep time stamps, rotation, colour tags, bit depth, sound, subtitles and
    chapters. An interrupted video resumes where it stopped. Extras: pip install "f2d\[video]" for videos, "f2d\[heif]"
    for HEIC.
    """
    place = place_here()
    if samples == 1:
        fail("--samples must be 0 or at least 2, got 1")
    suffix = None if format is None else f".{format}"
    if quality is not None and format is not None and suffix not in (".jpg", ".webp"):
        fail(f"--quality applies to jpg and webp only, as {format} is lossless")
    outputs = OutputOptions(overwrite, recursive, suffix, save_maps, samples)
    asked = {
        "strength": strengths(strength or []),
        "only": names(only),
        "max_memory": size_in_bytes(max_memory),
        "exact": exact or None,
        "steps": steps,
        "sampler": sampler,
    }
    options = {"tta": tta} | {name: value for name, value in asked.items() if value is not None}
    video = EncodingOptions(codec, crf, smooth)
    task = Task(model, device, precision, options, seed, outputs, quality, video)

    cluster = {"--address": address, "--workers": workers, "--worker-cpus": worker_cpus, "--worker-gpus": worker_gpus}
    if engine == "ray":
        from f2d.cli.cluster import restore_on_cluster

        refused = {"--save-maps": save_maps, "--samples": samples, "--codec": codec, "--crf": crf}
        for name in (name for name, value in refused.items() if value):
            fail(f"--engine ray restores photos into photos only, so omit {name}")
        if place.world > 1:
            fail("--engine ray starts its own processes, so run it without torchrun")
        cpus = 1 if worker_cpus is None else worker_cpus
        restore_on_cluster(photos, target, task, address, workers, cpus, worker_gpus or 0)
        return
    for name in (name for name, value in cluster.items() if value is not None):
        fail(f"{name} needs --engine ray")
    jobs, failures, _, left_out = plan_jobs([Path(photo) for photo in photos], Path(target), outputs)
    jobs = allowed(jobs, task, failures)
    counts = Counts()
    if place.rank:
        failures = []  # every rank finds the same failures of the command's inputs, and rank 0 reports them
    jobs = _largest_first(jobs)
    mine, counts.skipped, taken = left_to_do(sorted(place.share(jobs)), outputs)
    for failure in (*failures, *taken):
        counts.fail(failure)
    if not place.rank:
        tell_left_out(left_out)
    remove_leftovers(job.target for job in mine)
    with tidy_when_terminated():
        try:
            if mine:
                from f2d.cli.restoring import restore_all

                restore_all(mine, task, counts, place)
        finally:
            counts.summarize(place)
    failed = bool(counts.failed or left_out.photographs)
    finish(place, failed=failed)
    if failed:
        raise typer.Exit(FAILED)


def _largest_first(jobs: list[Job]) -> list[Job]:
    """Order the jobs so that ranks take turns with the large files.

    Every rank must find the same order at any time: a file replaced in place changes its size, and counts as 0.
    """

    def key(job: Job) -> tuple[int, Job]:
        try:
            return -job.source.stat().st_size * (job.source.resolve() != job.target.resolve()), job
        except (OSError, RuntimeError):  # a loop of links raises either, depending on the version of Python
            return 0, job

    return sorted(jobs, key=key)
