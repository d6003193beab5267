"""From the PHOTO arguments and -o to pairs of files, with everything checked that needs no model."""

import os
import re
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from f2d.images import IMAGE_SUFFIXES, ImageError, check_writable_as_image


class Job(NamedTuple):
    """One picture to make."""

    source: Path
    target: Path


def map_path(target: Path, factor: str) -> Path:
    """Where the map of a factor is written: beside the picture, under its full name, as a.jpg is not a.png."""
    return target.with_name(f"{target.name}_map_{factor}.png")


def numbers_path(target: Path) -> Path:
    """Where the gates and presences that belong to the maps are written."""
    return target.with_name(f"{target.name}_maps.json")


# the name of the picture that a file of maps belongs to: which factors there are is not known before the model is
_MAP_OF = re.compile(r"(.+)_(?:map_[\w-]+\.png|maps\.json)")


def plan_jobs(inputs: list[Path], out: Path, *, overwrite: bool, maps: bool) -> tuple[list[Job], list[str]]:
    """The pictures to make, and one line for each input that cannot be one (missing, or its output exists).

    `out` is a file name when there is one input file and `out` has an image suffix and is no folder, else a folder.
    Folders given as input stand for the pictures directly in them. maps: the maps are written too.
    ImageError where the command as a whole cannot work: nothing to do, two inputs with one output, a name or a folder
    that cannot be written.
    """
    sources, failures = _sources(inputs)
    suffix = out.suffix.lower()
    if suffix in IMAGE_SUFFIXES and not out.is_dir():
        if len(inputs) != 1 or inputs[0].is_dir():
            raise ImageError(f"{out}: is a file name, and there can be more than one output; give a folder")
        jobs, folder = [Job(source, out) for source in sources], out.parent
    else:
        known = ", ".join(sorted(IMAGE_SUFFIXES))
        if suffix[1:2].isalpha() and not out.exists():  # run.2 is a folder's name, x.gif a picture's
            raise ImageError(f"{out}: pictures are written as {known}; if a folder is meant, make it first")
        check_no_file(out, f"a folder, or a file name with one of {known}")
        jobs, folder = [Job(source, out / _output_name(source)) for source in sources], out
    _check_distinct(jobs, maps)
    if jobs:
        check_folder_writable(folder)
    with_maps = _owners(list(folder.iterdir())) if maps and jobs else {}
    free = []
    for job in jobs:
        outputs = [job.target, *with_maps.get(job.target.name, [])]
        taken = _taken(outputs, overwrite=overwrite)
        if taken:
            failures.append(taken)
        else:
            free.append(job)
    return free, failures


def check_output(target: Path, *, overwrite: bool) -> None:
    """ImageError unless `target` is an image file name that can be written now."""
    if not target.exists() or target.is_file():
        check_writable_as_image(target)
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
    probe = folder / f".f2d.{os.getpid()}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            probe.touch()
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        raise ImageError(f"{folder}: cannot be written ({error.strerror})") from None


def _taken(outputs: list[Path], *, overwrite: bool) -> str | None:
    """One line on the first of `outputs` that is something else, or there already."""
    for path in outputs:
        if path.exists() and not path.is_file():
            return f"{path}: is {'a folder' if path.is_dir() else 'a device'}, not an image file name"
        if path.exists() and not overwrite:
            return f"{path}: exists; --overwrite replaces it"
    return None


def _owners(paths: list[Path]) -> dict[str, list[Path]]:
    """Those of `paths` that are named as maps, by the name of the picture they belong to."""
    found = defaultdict(list)
    for path in paths:
        named = _MAP_OF.fullmatch(path.name)
        if named:
            found[named[1]].append(path)
    return found


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


def _check_distinct(jobs: list[Job], maps: bool) -> None:
    claims = defaultdict(list)
    for job in jobs:
        claims[job.target].append(job.source)
    if maps:  # an input may be named as the map of another one
        by_name = {job.target.name: job.source for job in jobs}
        for owner, targets in _owners(list(claims)).items():
            if owner in by_name:
                for target in targets:
                    claims[target].append(by_name[owner])
    for target, sources in claims.items():
        if len(sources) > 1:
            raise ImageError(
                f"{target}: would be written by {' and '.join(map(str, sources))}; restore them into separate folders"
            )
