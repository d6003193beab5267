"""Replace files atomically: a reader sees either the old file or the new one."""

import hashlib
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

ABANDONED = 600  # seconds without a write after which a temporary file counts as abandoned


class WriteError(OSError):
    """A file of the user's that cannot be written: ``FILE: cannot be written (REASON)``."""

    def __str__(self) -> str:
        return f"{self.filename}: cannot be written ({self.strerror})"


@contextmanager
def replacing(path: Path, *, alone: bool = False) -> Iterator[Path]:
    """``with replacing(path) as temporary:`` write to `temporary`, which becomes `path` or is removed on failure.

    alone: nobody else writes to `path`, so what killed processes left of it is removed first; this looks through the
    folder, so call `remove_leftovers` once for many files. WriteError, an OSError, names `path` if the disk is full,
    the folder is gone or read-only, and so on.
    """
    temporary = path.with_name(f"{_prefix(path)}{os.getpid()}.part")
    if alone:
        remove_leftovers([path])
    try:
        with naming(path, temporary):
            yield temporary
            with open(temporary, "rb+") as file:  # Windows only synchronizes what may be written
                os.fsync(file.fileno())  # or a power cut could leave the new name with no contents
            os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_texts(folder: Path, texts: Mapping[str, str]) -> None:
    """Write files of a folder, created if missing, in UTF-8 with newlines as they are; each as `replacing` does.

    Bytes of file names that are not Unicode are escaped."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        with replacing(folder / name, alone=True) as part:
            part.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


@contextmanager
def naming(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Raise WriteError about `path` for an OSError about it, about `temporary`, or about no file that it names."""
    try:
        yield
    except OSError as error:
        ours = {None, os.fspath(path), None if temporary is None else os.fspath(temporary)}
        told = None if error.filename is None else os.fsdecode(error.filename)
        if error.errno is None or told not in ours:  # one that says all in its own words, or of another file
            raise
        raise WriteError(error.errno, error.strerror, os.fspath(path)) from None


def remove_leftovers(paths: Iterable[Path], folders: Iterable[Path] = ()) -> None:
    """Remove temporary files that killed processes left beside `paths`, which only the caller is about to write, and
    in `folders`, which are the caller's alone.

    These are temporary files of `paths` by processes that have ended, and old ones of any file: other machines may be
    writing to the same folder, with process numbers that mean nothing here.
    """
    prefixes: dict[Path, set[str]] = {folder: {""} for folder in folders}
    for path in paths:
        prefixes.setdefault(path.parent, set()).add(_prefix(path))
    for folder, ours in prefixes.items():
        for part in folder.glob(".f2d-*.part"):
            prefix, number = part.name[: -len(".part")].rsplit(".", 1)
            with suppress(OSError):
                old = time.time() - part.stat().st_mtime > ABANDONED
                mine = "" in ours or f"{prefix}." in ours
                if old or (mine and has_ended(int(number) if number.isdecimal() else 0)):
                    part.unlink()


def has_ended(process: int) -> bool:
    """Whether no process on this machine has that number; False if that cannot be determined."""
    if sys.platform == "win32" or process <= 0:  # signal 0 means Ctrl-C on Windows
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _prefix(path: Path) -> str:
    """Return a prefix from a hash of the file's name, as the name with additions could exceed the length limit."""
    return f".f2d-{hashlib.sha1(os.fsencode(path.name)).hexdigest()[:16]}."
