"""Measure the server's folder and delete its old files."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

BLOCK = 4096


def used(folder: Path) -> int:
    """Return the bytes used below `folder`; files and folders count as at least one block, as on a disk."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):  # gone meanwhile
            total += max(BLOCK, path.lstat().st_size)
    return total


def delete_old(folder: Path, age: float, stay: set[Path]) -> set[Path]:
    """Delete everything below `folder` last written more than `age` seconds ago, except `stay`; return deleted files.

    An empty folder is deleted `age` seconds after its last file, since an upload first makes a folder, then its file.
    """
    before, gone = time.time() - age, set()
    for path in sorted(folder.rglob("*"), reverse=True):  # contents before their folder
        with suppress(OSError):  # deleted meanwhile, not empty, or not deletable: continue with the others
            if path in stay or path.lstat().st_mtime > before:
                continue
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            else:
                path.unlink()
                gone.add(path)
    return gone


@contextmanager
def deleting(folder: Path, age: float, stay: set[Path], forget: Callable[[set[Path]], None]) -> Iterator[None]:
    """Call `delete_old` ten times per `age` inside the block, in a thread that survives errors.

    forget is called with the deleted files.
    """
    end = threading.Event()

    def run() -> None:
        while not end.wait(max(1.0, age / 10)):
            try:
                forget(delete_old(folder, age, stay))
            except Exception:
                logging.getLogger(__name__).exception("old pictures were not deleted; the next try follows")

    thread = threading.Thread(target=run, name="f2d-app-deleting", daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()
