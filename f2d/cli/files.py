"""Turn the PHOTO arguments and -o into pairs of files, and check all that can be checked without a model."""

import itertools
import json
import os
import re
import tempfile
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from f2d.cli.folders import LeftOut, Source, find_pictures, is_pattern
from f2d.images.formats import FORMATS, ImageError, format_of, image_name
from f2d.video import WRITABLE_SUFFIXES, EncodingOptions, is_video, output_name


class Job(NamedTuple):
    """One image or video to restore, and where its output goes."""

    source: Path
    target: Path


class OutputOptions(NamedTuple):
    """The outputs to write and what they may replace, and whether folders in folders have any (recursive).

    format is a suffix such as ".png", or None for each input's.
    """

    overwrite: bool = False
    recursive: bool = False
    format: str | None = None
    maps: bool = False
    samples: int = 0

    def writes(self, path: Path) -> bool:
        """Return whether to write an output: existing files are kept unless `overwrite` is set."""
        return self.overwrite or not os.path.exists(path)  # False, too, for a name that is too long


@dataclass(frozen=True)
class Task:
    """The options of one command: how photographs are restored and written.

    options: what the restorer is called with, besides the seed. quality: of JPEG and WebP, None for the default.
    video: how videos are written.
    """

    model: str
    device: str
    precision: str
    options: dict[str, Any]
    seed: int
    outputs: OutputOptions
    quality: int | None
    video: EncodingOptions


NUMBERS, DEVIATION = "maps.json", "std.png"  # gates and presences of the maps; standard deviation of the samples


def beside(target: Path, name: str) -> Path:
    """Return the file `name` of an output, such as ``map_rain.png``, ``sample_1.jpg``, `NUMBERS` or `DEVIATION`.

    Its name begins with that of the output and its suffix, so that those of a.jpg and a.png do not collide.
    """
    return target.with_name(f"{target.name}_{name}")


def sample_of(target: Path, number: int) -> Path:
    """Return the file of a sample of an output, counted from 1."""
    return beside(target, f"sample_{number}{target.suffix}")


def remove_further_samples(target: Path, number: int) -> None:
    """Remove samples of an output beyond `number`, which an earlier run with more of them wrote: the new mean and
    standard deviation are not theirs. Raises ImageError if one cannot be removed."""
    for k in itertools.count(number + 1):
        path = sample_of(target, k)
        if not path.is_file():
            return
        _remove(path)


def remove_other_maps(target: Path, factors: Collection[str]) -> None:
    """Remove maps of an output for other factors than `factors`, which an earlier run with another model wrote.
    Raises ImageError if one cannot be removed."""
    try:
        earlier = json.loads(beside(target, NUMBERS).read_text())["gates"]
        others = [beside(target, f"map_{name}.png") for name in earlier if name not in factors]
    except (OSError, ValueError, KeyError, TypeError):  # there are none, or the file is somebody else's
        return
    for path in others:
        _remove(path)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise ImageError(f"{path}: cannot be removed ({error.strerror})") from None


# Matches names of `beside` and captures the image they belong to; the factors are unknown without a model.
_OUTPUT_OF = re.compile(r"(.+)_(?:map_[\w-]+\.png|maps\.json|sample_\d+\.\w+|std\.png)")


class Planned(NamedTuple):
    """The requested jobs (outputs may exist), one line for each input without images, the output folder, and the files
    in the input folders that are not read."""

    jobs: list[Job]
    failures: list[str]
    folder: Path
    left_out: LeftOut


def plan_jobs(inputs: list[Path], out: Path, outputs: OutputOptions) -> Planned:
    """Find the images that `inputs` stand for, and where their outputs go.

    `out` is a file name if there is one input file and `out` has an image suffix and is not a folder; otherwise it is a
    folder. Raises ImageError if the command as a whole cannot work: two inputs with one output, or a name or folder
    that cannot be written.
    """
    sources, failures, left_out = find_pictures(inputs, out, recursive=outputs.recursive)
    suffix = out.suffix.lower()
    if (suffix in FORMATS or is_video(out)) and not out.is_dir():
        if len(inputs) != 1 or inputs[0].is_dir() or is_pattern(inputs[0]):
            raise ImageError(f"{out}: must be a folder, not a file name, because there can be several outputs")
        _check_kind(inputs[0], out)
        if outputs.format and not is_video(out) and FORMATS[outputs.format] != FORMATS[suffix]:
            raise ImageError(f"{out}: its suffix contradicts --format {outputs.format[1:]}, so pass only one of them")
        jobs, folder = [Job(source.path, out) for source in sources], out.parent
    else:
        known = ", ".join(sorted(FORMATS.keys() | WRITABLE_SUFFIXES))
        if suffix[1:2].isalpha() and not out.exists():  # run.2 is the name of a folder, x.gif that of an image
            raise ImageError(f"{out}: must end in one of {known}, or be an existing folder")
        check_no_file(out, f"a folder, or a file name with one of {known}")
        jobs, folder = [Job(source.path, out / _output_place(source, outputs.format)) for source in sources], out
    _check_distinct(jobs, outputs)
    if jobs:
        check_folder_writable(folder)
    return Planned(jobs, failures, folder, left_out)


def left_to_do(jobs: list[Job], outputs: OutputOptions) -> tuple[list[Job], int, list[str]]:
    """Return the jobs with outputs still to write, how many have none, and one line for each that cannot be written.

    The outputs of an image that are written last show that all of them exist. A standard deviation without the last
    sample may be that of fewer samples, which cannot stay beside more. Nor can maps or samples stay beside an image
    that is written anew without them, as they would pass for its own.
    """
    to_do, done, failures = [], 0, []
    targets = {job.target for job in jobs}  # an input may have the name of another's map
    unasked = [] if outputs.maps else [(NUMBERS, "--save-maps")]
    unasked += [] if outputs.samples else [(DEVIATION, "--samples")]
    for job in jobs:
        last = [job.target]
        last += [beside(job.target, NUMBERS)] if outputs.maps else []
        last += [beside(job.target, DEVIATION)] if outputs.samples else []
        taken = _taken(last, overwrite=True)
        final = sample_of(job.target, outputs.samples) if outputs.samples else None
        if taken:
            failures.append(taken)
        elif final and outputs.writes(final) and not outputs.writes(last[-1]):
            failures.append(
                f"{last[-1]}: may come from fewer than {outputs.samples} samples, because {final.name} is missing "
                "(--overwrite replaces it)"
            )
        elif outputs.writes(job.target) and (earlier := _earlier(job.target, unasked, targets)):
            failures.append(earlier)
        elif any(outputs.writes(path) for path in last):
            to_do.append(job)
        else:
            done += 1
    return to_do, done, failures


def check_output(target: Path, *, overwrite: bool) -> None:
    """Raise ImageError unless `target` is an image file name that can be written now."""
    if not target.exists() or target.is_file():
        format_of(target)
        check_folder_writable(target.parent)
    check_free([target], overwrite=overwrite)


def check_free(outputs: list[Path], *, overwrite: bool) -> None:
    """Raise ImageError unless each of `outputs` can be written without replacing a file that must be kept."""
    taken = _taken(outputs, overwrite=overwrite)
    if taken:
        raise ImageError(taken)


def check_no_file(folder: Path, wanted: str = "a folder") -> None:
    """Raise ImageError if `folder` is the name of something other than a folder."""
    if folder.exists() and not folder.is_dir():
        raise ImageError(f"{folder}: must be {wanted}, but is {'a file' if folder.is_file() else 'not one'}")


def check_folder_writable(folder: Path) -> None:
    """Create `folder` if it is missing; raise ImageError unless a file can be written in it."""
    make_folder(folder)
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ImageError(f"{folder}: cannot be written ({error.strerror})") from None


def make_folder(folder: Path) -> None:
    """Create `folder` and its parents if they are missing; raise ImageError if that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImageError(f"{folder}: cannot be written ({error.strerror})") from None


def _taken(outputs: list[Path], *, overwrite: bool) -> str | None:
    """Return one line about the first of `outputs` that exists, or is not a file."""
    for path in outputs:
        if os.path.exists(path) and not os.path.isfile(path):
            return f"{path}: is {'a folder' if os.path.isdir(path) else 'a device'}, not an image file name"
        if os.path.exists(path) and not overwrite:
            return f"{path}: exists (--overwrite replaces it)"
    return None


def _owners(targets: Iterable[Path]) -> dict[Path, list[Path]]:
    """Group the `targets` that are named as maps or samples by the image they would belong to."""
    found = defaultdict(list)
    for path in targets:
        named = _OUTPUT_OF.fullmatch(path.name)
        if named:
            found[path.with_name(named[1])].append(path)
    return found


def _output_place(source: Source, suffix: str | None) -> Path:
    """Return the input's name with the requested suffix; without one, formats that cannot be written become PNG."""
    if is_video(source.path):
        return output_name(source.place)
    return image_name(source.place, suffix)


def _check_kind(source: Path, out: Path) -> None:
    """Raise ImageError unless both are images, or `source` is a video and `out` can be written as one."""
    if is_video(source):
        kind, known = "a video", WRITABLE_SUFFIXES
    elif is_video(out):
        kind, known = "an image", frozenset(FORMATS)
    else:
        return
    if out.suffix.lower() not in known:
        raise ImageError(f"{out}: must end in one of {', '.join(sorted(known))}, as {source} is {kind}")


def _earlier(target: Path, unasked: list[tuple[str, str]], targets: set[Path]) -> str:
    """Return why a file beside `target` would be out of date once that is written without the option, or ""."""
    for name, option in unasked:
        path = beside(target, name)
        if path not in targets and os.path.isfile(path):
            return f"{path}: belongs to an earlier output, so pass {option} to replace it, or change -o"
    return ""


def _check_distinct(jobs: list[Job], outputs: OutputOptions) -> None:
    claims = defaultdict(list)
    for job in jobs:
        claims[job.target].append(job.source)
    if outputs.maps or outputs.samples:  # an input may have the name of another's map
        by_target = {job.target: job.source for job in jobs}
        for owner, targets in _owners(list(claims)).items():
            if owner in by_target:
                for target in targets:
                    claims[target].append(by_target[owner])
    for target, sources in claims.items():
        if len(sources) > 1:
            raise ImageError(
                f"{target}: would be written by {' and '.join(map(str, sources))}, so use separate output folders"
            )
    if outputs.overwrite:
        _check_sources_stay(jobs)


def _check_sources_stay(jobs: list[Job]) -> None:
    """Raise ImageError if an output would replace what a link among the inputs leads to, before that is read."""
    readers = defaultdict(list)
    for job in jobs:
        readers[os.path.realpath(job.source)].append(job)
    for job in jobs:
        place = os.path.join(os.path.realpath(job.target.parent), job.target.name)
        others = [other.source for other in readers[place] if other != job]
        if others:
            raise ImageError(f"{job.target}: would be replaced, but {others[0]} links to it, so use an output folder")
