"""From the PHOTO arguments and -o to pairs of files, with everything checked that needs no model."""

import os
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from f2d.images import IMAGE_SUFFIXES, ImageError, check_writable_as_image


class Job(NamedTuple):
    """One picture to make."""

    source: Path
    target: Path


def plan_jobs(inputs: list[Path], out: Path, *, overwrite: bool) -> tuple[list[Job], list[str]]:
    """The pictures to make, and one line for each input that cannot be one (missing, or its output exists).

    `out` is a file name when there is one input file and `out` has an image suffix and is no folder, else a folder.
    Folders given as input stand for the pictures directly in them. ImageError where the command as a whole cannot work:
    nothing to do, two inputs with one output, an output that cannot be written.
    """
    sources, failures = _sources(inputs)
    if out.suffix.lower() in IMAGE_SUFFIXES and not out.is_dir():
        if len(inputs) != 1 or inputs[0].is_dir():
            raise ImageError(f"{out}: is a file name, and there can be more than one output; give a folder")
        jobs, folder = [Job(source, out) for source in sources], out.parent
    else:
        jobs, folder = [Job(source, out / _output_name(source)) for source in sources], out
    _check_distinct(jobs)
    if jobs:
        check_folder_writable(folder)
    if not overwrite:
        failures += [f"{job.target}: exists; --overwrite replaces it" for job in jobs if job.target.exists()]
        jobs = [job for job in jobs if not job.target.exists()]
    return jobs, failures


def check_output(target: Path, *, overwrite: bool) -> None:
    """ImageError unless `target` is an image file name that can be written now."""
    check_writable_as_image(target)
    if target.is_dir():
        raise ImageError(f"{target}: is a folder, not a file name")
    check_folder_writable(target.parent)
    if target.exists() and not overwrite:
        raise ImageError(f"{target}: exists; --overwrite replaces it")


def check_folder_writable(folder: Path) -> None:
    """Make `folder` if it is not there; ImageError unless a file can be written in it."""
    probe = folder / f".f2d.{os.getpid()}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ImageError(f"{folder}: cannot be written ({error.strerror})") from None


def _sources(inputs: list[Path]) -> tuple[list[Path], list[str]]:
    sources, failures = [], []
    for path in inputs:
        if path.is_dir():
            found = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
            if not found:
                failures.append(f"{path}: no {', '.join(sorted(IMAGE_SUFFIXES))} files in this folder")
            sources += found
        elif path.exists():
            sources.append(path)
        else:
            failures.append(f"{path}: no such file")
    return list(dict.fromkeys(sources)), failures


def _output_name(source: Path) -> str:
    """The input's own name; a file of another suffix that Pillow can read all the same becomes a PNG."""
    return source.name if source.suffix.lower() in IMAGE_SUFFIXES else f"{source.name}.png"


def _check_distinct(jobs: list[Job]) -> None:
    by_target = defaultdict(list)
    for job in jobs:
        by_target[job.target].append(str(job.source))
    for target, sources in by_target.items():
        if len(sources) > 1:
            raise ImageError(
                f"{target}: would be written by {' and '.join(sources)}; restore them into separate folders"
            )
