"""From the PHOTO arguments and -o to pairs of files, with everything checked that needs no model."""

import os
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from f2d.cli.folders import Source, find_pictures, is_pattern
from f2d.images.formats import IMAGE_SUFFIXES, ImageError, format_of


class Job(NamedTuple):
    """One picture to make."""

    source: Path
    target: Path


class Wanted(NamedTuple):
    """What is to be written, and over what. format: a suffix such as ".png", or None for that of each input."""

    overwrite: bool = False
    recursive: bool = False
    format: str | None = None
    maps: bool = False
    samples: int = 0

    def writes(self, path: Path) -> bool:
        """Whether an output is to be written: what exists is kept, unless it is to be replaced."""
        return self.overwrite or not os.path.exists(path)  # False, too, for a name that is too long


@dataclass(frozen=True)
class Task:
    """How the photographs of one command are restored and written.

    options: what the restorer is called with, besides the seed. quality: of JPEG and WebP, None for the default.
    """

    model: str
    device: str
    precision: str
    options: dict[str, Any]
    seed: int
    wanted: Wanted
    quality: int | None


def map_path(target: Path, factor: str) -> Path:
    """Where the map of a factor is written: beside the picture, under its full name, as a.jpg is not a.png."""
    return target.with_name(f"{target.name}_map_{factor}.png")


def numbers_path(target: Path) -> Path:
    """Where the gates and presences that belong to the maps are written."""
    return target.with_name(f"{target.name}_maps.json")


def sample_path(target: Path, number: int) -> Path:
    """Where a sample is written, from 1 on; `target` itself is their mean."""
    return target.with_name(f"{target.name}_sample_{number}{target.suffix}")


def deviation_path(target: Path) -> Path:
    """Where the standard deviation of the samples is written."""
    return target.with_name(f"{target.name}_std.png")


# the name of the picture that another output belongs to: which factors there are is not known before the model is
_OUTPUT_OF = re.compile(r"(.+)_(?:map_[\w-]+\.png|maps\.json|sample_\d+\.\w+|std\.png)")


def plan_jobs(inputs: list[Path], out: Path, wanted: Wanted) -> tuple[list[Job], list[str], Path]:
    """The pictures that were asked for, whether there already or not, one line for each input that gives none, and the
    folder that is written to.

    `out` is a file name when there is one input file and `out` has an image suffix and is no folder, else a folder.
    ImageError where the command as a whole cannot work: two inputs with one output, a name or a folder that cannot be
    written.
    """
    sources, failures = find_pictures(inputs, out, recursive=wanted.recursive)
    suffix = out.suffix.lower()
    if suffix in IMAGE_SUFFIXES and not out.is_dir():
        if len(inputs) != 1 or inputs[0].is_dir() or is_pattern(inputs[0]):
            raise ImageError(f"{out}: is a file name, and there can be more than one output; give a folder")
        if wanted.format and not _same_format(wanted.format, suffix):
            raise ImageError(f"{out}: is not named as the format asked for, {wanted.format[1:]}; leave one of them out")
        jobs, folder = [Job(source.path, out) for source in sources], out.parent
    else:
        known = ", ".join(sorted(IMAGE_SUFFIXES))
        if suffix[1:2].isalpha() and not out.exists():  # run.2 is a folder's name, x.gif a picture's
            raise ImageError(f"{out}: pictures are written as {known}; if a folder is meant, make it first")
        check_no_file(out, f"a folder, or a file name with one of {known}")
        jobs, folder = [Job(source.path, out / _output_place(source, wanted.format)) for source in sources], out
    _check_distinct(jobs, wanted)
    if jobs:
        check_folder_writable(folder)
    return jobs, failures, folder


def left_to_do(jobs: list[Job], wanted: Wanted) -> tuple[list[Job], int, list[str]]:
    """Those of `jobs` with an output still to write, how many have none, and one line for each that cannot be written.

    The last outputs that are written of a picture say that all are there.
    """
    to_do, done, failures = [], 0, []
    for job in jobs:
        last = [job.target]
        last += [numbers_path(job.target)] if wanted.maps else []
        last += [deviation_path(job.target)] if wanted.samples else []
        taken = _taken(last, overwrite=True)
        if taken:
            failures.append(taken)
        elif any(wanted.writes(path) for path in last):
            to_do.append(job)
        else:
            done += 1
    return to_do, done, failures


def check_output(target: Path, *, overwrite: bool) -> None:
    """ImageError unless `target` is an image file name that can be written now."""
    if not target.exists() or target.is_file():
        format_of(target)
        check_folder_writable(target.parent)
    check_free([target], overwrite=overwrite)


def check_free(outputs: list[Path], *, overwrite: bool) -> None:
    """ImageError unless each of `outputs` can be written without losing what is there."""
    taken = _taken(outputs, overwrite=overwrite)
    if taken:
        raise ImageError(taken)


def check_no_file(folder: Path, wanted: str = "a folder") -> None:
    """ImageError where something other than a folder has its name."""
    if folder.exists() and not folder.is_dir():
        raise ImageError(f"{folder}: is {'a file' if folder.is_file() else 'no folder'}; give {wanted}")


def check_folder_writable(folder: Path) -> None:
    """Make `folder` if it is not there; ImageError unless a file can be written in it."""
    make_folder(folder)
    probe = folder / f".f2d.{os.getpid()}.part"
    try:
        try:
            probe.touch()
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        raise ImageError(f"{folder}: cannot be written ({error.strerror})") from None


def make_folder(folder: Path) -> None:
    """Make `folder`, and those above it, if it is not there; ImageError where that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImageError(f"{folder}: cannot be written ({error.strerror})") from None


def _taken(outputs: list[Path], *, overwrite: bool) -> str | None:
    """One line on the first of `outputs` that is something else, or there already."""
    for path in outputs:
        if os.path.exists(path) and not os.path.isfile(path):
            return f"{path}: is {'a folder' if os.path.isdir(path) else 'a device'}, not an image file name"
        if os.path.exists(path) and not overwrite:
            return f"{path}: exists; --overwrite replaces it"
    return None


def _owners(targets: Iterable[Path]) -> dict[Path, list[Path]]:
    """Those of `targets` that are named as maps or samples, by the picture they would belong to."""
    found = defaultdict(list)
    for path in targets:
        named = _OUTPUT_OF.fullmatch(path.name)
        if named:
            found[path.with_name(named[1])].append(path)
    return found


def _output_place(source: Source, suffix: str | None) -> Path:
    """The input's own name with the suffix asked for; else a file that is not written as it is becomes a PNG."""
    if suffix:
        return source.place.with_suffix(suffix)
    known = source.path.suffix.lower() in IMAGE_SUFFIXES
    return source.place if known else source.place.with_name(f"{source.place.name}.png")


def _same_format(one: str, other: str) -> bool:
    return format_of(Path(f"a{one}")) == format_of(Path(f"a{other}"))


def _check_distinct(jobs: list[Job], wanted: Wanted) -> None:
    claims = defaultdict(list)
    for job in jobs:
        claims[job.target].append(job.source)
    if wanted.maps or wanted.samples:  # an input may be named as the map of another one
        by_target = {job.target: job.source for job in jobs}
        for owner, targets in _owners(list(claims)).items():
            if owner in by_target:
                for target in targets:
                    claims[target].append(by_target[owner])
    for target, sources in claims.items():
        if len(sources) > 1:
            raise ImageError(
                f"{target}: would be written by {' and '.join(map(str, sources))}; restore them into separate folders"
            )
