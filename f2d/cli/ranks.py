"""One folder on many machines: which photographs are whose, and one report of all, over the shared output folder alone.

The share of a rank follows from the list of photographs and from nothing else. No claim is taken that a dead process
could keep: whatever died, the command run again does exactly what has no output yet. For the report every rank keeps a
file in a hidden folder of the output folder and touches it while it lives; rank 0 waits for each until it is finished,
or has not been touched for a minute. Only changes count, not clocks, which differ between machines; a file that an
earlier run left behind does not change.
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

BEAT, SILENCE, GRACE = 1.0, 60.0, 5.0  # seconds: between touches, until a rank is given up, and if its process is gone
FOLDER = ".f2d-ranks"
T = TypeVar("T")


class Place(NamedTuple):
    """rank in 0..world - 1; local: the rank on its machine, which chooses the GPU."""

    rank: int
    world: int
    local: int

    def share(self, items: Sequence[T]) -> list[T]:
        """Every world-th of `items`, beginning with the rank's own number: no item is two ranks', none is nobody's."""
        return list(items[self.rank :: self.world])


ALONE = Place(0, 1, 0)


def place_here(environ: Mapping[str, str] = os.environ) -> Place:
    """From RANK, WORLD_SIZE and LOCAL_RANK, which torchrun and its like set; ValueError where they make no sense."""
    if not ("RANK" in environ and "WORLD_SIZE" in environ):
        return ALONE
    try:
        rank, world = int(environ["RANK"]), int(environ["WORLD_SIZE"])
        local = int(environ.get("LOCAL_RANK", rank))
    except ValueError:
        raise ValueError("RANK, WORLD_SIZE and LOCAL_RANK are set, and are not all whole numbers") from None
    if not (0 <= rank < world and local >= 0):
        raise ValueError(f"RANK is {rank} and WORLD_SIZE {world}; a rank lies in 0..WORLD_SIZE - 1")
    return Place(rank, world, local)


def own_device(name: str, place: Place) -> str:
    """The GPU of this rank where `name` leaves the choice ("auto", "cuda") and the machine has several; else `name`."""
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
        # what is there now may be of an earlier run; what changes from here on is alive
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
            self._folder.rmdir()  # by the last one

    def report(self, counts: dict[str, Any]) -> bool:
        """For ranks other than 0, once they are done: True when rank 0 has taken `counts` over."""
        self._write(counts)
        watch = _Watch(lambda: self._look(0))
        while watch.alive():
            if not self._file(self.place.rank).exists():
                return True
            time.sleep(BEAT / 4)
        return False

    def gather(self) -> Iterator[tuple[int, dict[str, Any] | None]]:
        """For rank 0, once it is done: (rank, its counts, or None if it stopped without a report) of the others."""
        waiting = {rank: _Watch(partial(self._look, rank), self._first[rank]) for rank in range(1, self.place.world)}
        while waiting:
            for rank, watch in list(waiting.items()):
                alive = watch.alive()
                reported = watch.changed and watch.state is not None and bool(watch.state.counts)
                if alive and not reported:
                    continue
                del waiting[rank]
                with contextlib.suppress(OSError):
                    self._file(rank).unlink()  # which tells the rank that it can go
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
            with contextlib.suppress(OSError):  # taken over by rank 0
                os.utime(self._file(self.place.rank))


class _State(NamedTuple):
    process: str
    counts: dict[str, Any]
    touched: int


class _Watch:
    """Whether a rank's file still changes; `changed`: whether it ever did since `first` was seen."""

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
    """Two containers can have one name, and processes of the same number."""
    try:
        return f"{socket.gethostname()}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return socket.gethostname()


def _is_gone(process: str) -> bool:
    """Whether it was a process of this machine and has ended."""
    machine, _, number = process.rpartition(" ")
    return machine == _machine() and has_ended(int(number))
