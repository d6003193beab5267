"""Split one folder among many processes, and collect one report of all of them through the shared output folder alone.

The share of a rank follows from the list of photographs and from nothing else. There are no locks that a dead process
could hold: whichever process died, rerunning the command restores exactly the photographs without an output. For the
report every rank keeps a file in a hidden subfolder of the output folder and touches it while it lives. Rank 0 waits
for each rank until it has finished, or its file has not been touched for a minute. Only changes of the file count, not
clocks, which differ between machines; a file that an earlier run left behind does not change.
"""

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from f2d.replacing import has_ended, replacing

BEAT, SILENCE, GRACE = 1.0, 60.0, 5.0  # seconds between touches, and until a rank is given up: alive, ended process
FOLDER = ".f2d-ranks"
T = TypeVar("T")


class Place(NamedTuple):
    """A rank in 0..world - 1, and its local rank on its machine, which chooses the GPU."""

    rank: int
    world: int
    local: int

    def share(self, items: Sequence[T]) -> list[T]:
        """Return every world-th of `items`, starting at the rank's number: each item belongs to exactly one rank."""
        return list(items[self.rank :: self.world])


ALONE = Place(0, 1, 0)


def place_here(environ: Mapping[str, str] = os.environ) -> Place:
    """Read RANK, WORLD_SIZE and LOCAL_RANK, which launchers like torchrun set; raise ValueError if they are wrong."""
    if not ("RANK" in environ and "WORLD_SIZE" in environ):
        return ALONE
    try:
        rank, world = int(environ["RANK"]), int(environ["WORLD_SIZE"])
        local = int(environ.get("LOCAL_RANK", rank))
    except ValueError:
        raise ValueError("RANK, WORLD_SIZE and LOCAL_RANK are set but are not all whole numbers") from None
    if not (0 <= rank < world and local >= 0):
        raise ValueError(f"RANK is {rank} and WORLD_SIZE is {world}, but RANK must lie in 0..WORLD_SIZE - 1")
    return Place(rank, world, local)


def own_device(name: str, place: Place) -> str:
    """Return this rank's GPU if `name` leaves the choice ("auto", "cuda") and there are several; otherwise `name`."""
    if place.world == 1 or name not in ("auto", "cuda"):
        return name
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return f"cuda:{place.local % gpus}" if gpus > 1 else name


class Board:
    """The reports of all ranks: ``with Board(out, place) as board: ... board.report(counts)``, then rank 0 gathers."""

    def __init__(self, out: Path, place: Place):
        self.place = place
        self._folder = out / FOLDER
        self._stop = threading.Event()
        self._beats = threading.Thread(target=self._beat, daemon=True)
        self._process = f"{_machine()} {os.getpid()}"

    def __enter__(self) -> "Board":
        self._folder.mkdir(exist_ok=True)
        # files seen now may belong to an earlier run; a file that changes from here on belongs to a live rank
        self._first = {rank: self._look(rank) for rank in range(self.place.world)}
        self._write({})
        self._beats.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._beats.join()
        with contextlib.suppress(OSError):
            self._file(self.place.rank).unlink()
        with contextlib.suppress(OSError):
            self._folder.rmdir()  # succeeds for the last rank

    def report(self, counts: dict[str, Any]) -> bool:
        """Report to rank 0 from another rank that is done; return True once rank 0 has taken over `counts`."""
        self._write(counts)
        watch = _Watch(lambda: self._look(0))
        while watch.alive():
            if not self._file(self.place.rank).exists():
                return True
            time.sleep(BEAT / 4)
        return False

    def gather(self) -> Iterator[tuple[int, dict[str, Any] | None]]:
        """Yield (rank, its counts, or None if it stopped without a report) for the other ranks, once rank 0 is done."""
        waiting = {rank: _Watch(partial(self._look, rank), self._first[rank]) for rank in range(1, self.place.world)}
        while waiting:
            for rank, watch in list(waiting.items()):
                alive = watch.alive()
                reported = watch.changed and watch.state is not None and bool(watch.state.counts)
                if alive and not reported:
                    continue
                del waiting[rank]
                with contextlib.suppress(OSError):
                    self._file(rank).unlink()  # tells the rank that it may exit
                yield rank, watch.state.counts if watch.state is not None and reported else None
            time.sleep(BEAT / 4 if waiting else 0)

    def _file(self, rank: int) -> Path:
        return self._folder / f"{rank}.json"

    def _write(self, counts: dict[str, Any]) -> None:
        with replacing(self._file(self.place.rank)) as temporary:
            temporary.write_text(json.dumps({"process": self._process, "counts": counts}))

    def _look(self, rank: int) -> "_State | None":
        try:
            with open(self._file(rank), encoding="utf-8") as file:  # opening, unlike stat, asks a file server afresh
                content = json.load(file)
                return _State(content["process"], content["counts"], os.fstat(file.fileno()).st_mtime_ns)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _beat(self) -> None:
        while not self._stop.wait(BEAT):
            with contextlib.suppress(OSError):  # rank 0 has taken over the report
                os.utime(self._file(self.place.rank))


class _State(NamedTuple):
    process: str
    counts: dict[str, Any]
    touched: int


class _Watch:
    """Watch whether a rank's file still changes; `changed` says whether it ever has since `first` was seen."""

    def __init__(self, look: Callable[[], _State | None], first: _State | None = None):
        self._look, self.state, self.changed, self._since = look, first, False, time.monotonic()

    def alive(self) -> bool:
        state = self._look()
        if state != self.state:
            self.state, self.changed, self._since = state, True, time.monotonic()
        quiet = time.monotonic() - self._since
        gone = self.changed and (state is None or _is_gone(state.process))
        return quiet < (GRACE if gone else SILENCE)


def _machine() -> str:
    """Name the machine and its process namespace, since two containers can share a host name and process numbers."""
    try:
        return f"{socket.gethostname()}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return socket.gethostname()


def _is_gone(process: str) -> bool:
    """Whether `process` ran on this machine and has ended."""
    machine, _, number = process.rpartition(" ")
    return machine == _machine() and has_ended(int(number))
