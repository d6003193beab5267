"""Find the images and videos that files, folders and patterns stand for, each with its place in the output folder."""

import glob
import itertools
import os
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from f2d.images.formats import why_unread
from f2d.video import VIDEO_SUFFIXES, missing_extra


class Source(NamedTuple):
    """An image or video file (path), and its path below the output folder (place), which keeps the folder structure."""

    path: Path
    place: Path


class LeftOut(Counter[str]):
    """How many files of each suffix (lower case, "" for none) lie in the given folders and are not read."""

    @property
    def photographs(self) -> int:
        """The number of files that are images or videos, judged by their suffix."""
        return sum(number for suffix, number in self.items() if _why_unread(suffix))

    def __str__(self) -> str:
        reasons: dict[str, list[str]] = {}
        for suffix, number in sorted(self.items()):
            reasons.setdefault(_why_unread(suffix) or "", []).append(f"{number} {suffix or 'without a suffix'}")
        parts = [", ".join(files) + (f" ({reason})" if reason else "") for reason, files in reasons.items()]
        return f"ignored {'1 file' if self.total() == 1 else f'{self.total()} files'}: {', '.join(parts)}"


class Found(NamedTuple):
    """The images to restore, one line for every input without any, and the other files of folders."""

    sources: list[Source]
    failures: list[str]
    left_out: LeftOut


def find_pictures(inputs: list[Path], out: Path, *, recursive: bool) -> Found:
    """Find the images that `inputs` stand for, each once.

    A file stands for itself, whatever its suffix. A folder stands for the images in it and, if `recursive`, in its
    subfolders; links to folders are followed, and each folder is entered once. Patterns (``photos/**/*.jpg``) are
    expanded for shells that do not; places are relative to the part before the first wildcard. Hidden files, and the
    folder `out` if it lies inside an input, are skipped.
    """
    sources: list[Source] = []
    failures: list[str] = []
    others: set[Path] = set()
    for path in inputs:
        try:
            if path.is_dir():
                found = _in_folder(path, out, recursive, failures, others)
            elif os.path.lexists(path):
                found = [Source(path, Path(path.name))]
            elif glob.has_magic(str(path)):
                found = _matches(path, out, recursive, failures, others)
            else:
                failures.append(f"{path}: no such file or folder")
                continue
        except OSError as error:
            failures.append(f"{path}: cannot be read ({error.strerror})")
            continue
        if not found:
            failures.append(_nothing_in(path, recursive))
        sources += found
    sources = list({source.path: source for source in sources}.values())
    left_out = others - {source.path for source in sources}
    return Found(sources, failures, LeftOut(path.suffix.lower() for path in left_out))


def is_pattern(path: Path) -> bool:
    """Return whether `path` has wildcards and is not the name of an existing file."""
    return not os.path.lexists(path) and glob.has_magic(str(path))


def _why_unread(suffix: str) -> str | None:
    """Return why files with this suffix are not read: "" if they are none to restore, None if they are read."""
    return missing_extra() if suffix in VIDEO_SUFFIXES else why_unread(suffix)


def _nothing_in(path: Path, recursive: bool) -> str:
    if not path.is_dir():
        return f"{path}: matches no photo or video that f2d reads"
    return f"{path}: contains no photo or video that f2d reads" + (
        "" if recursive else " (--recursive also searches its subfolders)"
    )


def _in_folder(root: Path, out: Path, recursive: bool, failures: list[str], others: set[Path]) -> list[Source]:
    """Return the images in `root`; add other files to `others`, and one line for what cannot be read to `failures`."""
    entered = {_identity(out)} - {_identity(root), None}
    folders, links, found = [root], list[Path](), list[Path]()
    while folders or links:
        # links come last, so that a folder reached both ways keeps its place in the real tree
        folder = folders.pop() if folders else links.pop(0)
        identity = _identity(folder)
        if identity in entered:
            continue
        entered.add(identity)
        try:
            entries = sorted(folder.iterdir())
        except OSError as error:
            failures.append(f"{folder}: cannot be read ({error.strerror})")
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if os.path.isdir(entry):
                (links if entry.is_symlink() else folders).append(entry)
            elif _why_unread(entry.suffix.lower()) is None:
                found.append(entry)
            else:
                others.add(entry)
        if not recursive:
            break
    return [Source(path, path.relative_to(root)) for path in sorted(found)]


def _matches(pattern: Path, out: Path, recursive: bool, failures: list[str], others: set[Path]) -> list[Source]:
    base = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), pattern.parts[:-1]))
    hidden = out.resolve() if base.resolve() in out.resolve().parents else None
    any_suffix = not glob.has_magic(pattern.suffix) and pattern.suffix != ""
    found = []
    for name in sorted(glob.glob(str(pattern), recursive=True)):
        path = Path(name)
        if hidden and (hidden == path.resolve() or hidden in path.resolve().parents):
            continue
        if path.is_dir():
            inside = _in_folder(path, out, True, failures, others) if recursive else []
            found += [Source(source.path, path.relative_to(base) / source.place) for source in inside]
        elif any_suffix or _why_unread(path.suffix.lower()) is None:
            found.append(Source(path, path.relative_to(base)))
        elif not path.name.startswith("."):
            others.add(path)
    return found


def _identity(folder: Path) -> tuple[int, int] | None:
    """Return what identifies a folder, however it was reached; None if it does not exist."""
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
