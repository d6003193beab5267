"""Measure the server's folder and delete its old files."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

BLOCK = 4096


def used(folder: Path) -> int:
    """Bytes of what is below `folder`, each file and folder counted as a block at least: empty ones take room too."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):  # gone meanwhile
            total += max(BLOCK, path.lstat().st_size)
    return total


def delete_old(folder: Path, age: float, stay: set[Path]) -> set[Path]:
    """Delete what was last written more than `age` seconds ago below `folder`, but not `stay`: the files deleted.

    A folder that is emptied goes `age` after its last file: an upload is made in two steps, a folder and its file.
    """
    before, gone = time.time() - age, set()
    for path in sorted(folder.rglob("*"), reverse=True):  # what is in a folder before the folder
        with suppress(OSError):  # gone meanwhile, not empty, or not to be deleted: the rest is deleted all the same
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
    """`delete_old` ten times in `age` while inside, in a thread that no error ends. forget: told what was deleted."""
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
