"""Replace files atomically: a reader sees either the old file or the new one."""

import hashlib
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_ABANDONED = 600  # seconds without a write after which a temporary file counts as abandoned


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """``with replacing(path) as temporary:`` write to `temporary`, which becomes `path` or is removed on failure."""
    temporary = path.with_name(f"{_prefix(path)}{os.getpid()}.part")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink()


def remove_leftovers(paths: Iterable[Path]) -> None:
    """Remove temporary files that killed processes left beside `paths`, which only the caller is about to write.

    These are temporary files of `paths` by processes that have ended, and old ones of any file: other machines may be
    writing to the same folder, with process numbers that mean nothing here.
    """
    prefixes: dict[Path, set[str]] = {}
    for path in paths:
        prefixes.setdefault(path.parent, set()).add(_prefix(path))
    for folder, ours in prefixes.items():
        for part in folder.glob(".f2d-*.part"):
            prefix, number = part.name[: -len(".part")].rsplit(".", 1)
            with suppress(OSError):
                old = time.time() - part.stat().st_mtime > _ABANDONED
                if old or (f"{prefix}." in ours and has_ended(int(number) if number.isdecimal() else 0)):
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
