"""Split the images of one command among the processes of a launcher such as torchrun.

The share of a rank only depends on the list of images. Each process prints its own summary and sets its own exit code.
The launcher reports a process that dies, and rerunning the command completes the missing work.
"""

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple, TypeVar

from f2d.cli.console import warn

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
        _warn_under_srun(environ)
        return ALONE
    try:
        rank, world = int(environ["RANK"]), int(environ["WORLD_SIZE"])
        local = int(environ.get("LOCAL_RANK", rank))
    except ValueError:
        raise ValueError("RANK, WORLD_SIZE and LOCAL_RANK must be whole numbers") from None
    if not (0 <= rank < world and local >= 0):
        raise ValueError(f"RANK is {rank} and WORLD_SIZE is {world}, but RANK must lie in 0..WORLD_SIZE - 1")
    return Place(rank, world, local)


def _warn_under_srun(environ: Mapping[str, str]) -> None:
    """Warn in the first of several processes of srun, which may as well have folders of their own.

    SLURM_STEP_NUM_TASKS is set by srun alone; SLURM_NTASKS also in a batch script, which is one process.
    """
    number = environ.get("SLURM_STEP_NUM_TASKS", "1")
    if number != "1" and environ.get("SLURM_PROCID") == "0":
        warn(
            f"srun started {number} processes, and the images are not split among them unless RANK, WORLD_SIZE and "
            "LOCAL_RANK are set: srun sh -c 'RANK=$SLURM_PROCID WORLD_SIZE=$SLURM_NTASKS LOCAL_RANK=$SLURM_LOCALID "
            "f2d ...'"
        )


def finish(place: Place, *, failed: bool) -> None:
    """Say under torchrun that this process is done; if it failed, wait until all are.

    torchrun stops the other processes as soon as one exits with an error, as one unreadable image makes it do.
    """
    if place.world == 1 or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return
    from torch.distributed.rendezvous import rendezvous

    with suppress(RuntimeError):  # the launcher is gone
        store = next(iter(rendezvous("env://")))[0]
        done = store.add("f2d", 1)
        while failed and done < place.world:
            time.sleep(0.1)
            done = store.add("f2d", 0)


def own_device(name: str, place: Place) -> str:
    """Return this rank's GPU if `name` leaves the choice ("auto", "cuda") and there are several; otherwise `name`."""
    if place.world == 1 or name not in ("auto", "cuda"):
        return name
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return f"cuda:{place.local % gpus}" if gpus > 1 else name
