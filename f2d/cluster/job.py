"""The job on the cluster: actors read, restore and write; the driver counts."""

import logging
import re
import socket
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import pyarrow
import ray
import ray.data
import ray.exceptions

from f2d.images.formats import ImageError, image_name
from f2d.integrations.ray import RestoreImages, reason
from f2d_kernels import __version__

from .sources import Item, ParquetImages, Storage, check_distinct, find_items

BATCH = 8  # images an actor takes at a time: their files are read and written together, which hides a store's latency
BLOCKS = 16  # blocks of images for each actor, so that a slow one does not hold up the end
TRIES = 3  # how often an image whose worker dies is begun


class Outcome(NamedTuple):
    """The numbers of a job. seconds: of the whole job, without starting Ray; model_seconds: of all actors together.
    left_out: files of the folder that are not read, by suffix."""

    restored: int
    failed: int
    skipped: int
    seconds: float
    model_seconds: float
    left_out: dict[str, int]


class Actors(NamedTuple):
    """The number of actors (None: as many as the cluster has room for), and what each of them reserves."""

    number: int | None = None
    cpus: float = 1
    gpus: float = 0


class RestoreFiles:
    """One actor: restores the images of columns path, row and place, and returns place, error and seconds."""

    def __init__(self, source: str, destination: str, model: str, options: dict[str, Any], version: str, tries: Any):
        if version != __version__:
            raise ValueError(f"a worker has f2d {__version__}, but it must have {version}, the version of the command")
        self._source, self._destination = Storage.at(source), Storage.at(destination)
        self._restore = RestoreImages(model, **options)
        self._pool, self._tries = ThreadPoolExecutor(BATCH), tries
        self._parquet: tuple[str, ParquetImages] | None = None  # the last one

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        items = [Item(*row) for row in zip(batch["path"], batch["row"], batch["place"])]
        together = self._pool.map if all(item.row < 0 for item in items) else map  # a Parquet file has one reader
        found = list(together(self._read, items))
        written, seconds = [], []
        for item, data in zip(items, found):
            took = 0.0
            if not isinstance(data, Exception):
                try:
                    if ray.get(self._tries.begin.remote(item.place)) > TRIES:
                        raise ImageError(
                            f"{item.place}: its worker died {TRIES} times, perhaps because it ran out of memory"
                        )
                    data, took = self._restore.restored(data, item.place)
                except Exception as error:  # one image must not end the job
                    data = error
                self._tries.end.remote(item.place)
            seconds.append(took)
            written.append(self._pool.submit(self._write, item, data))
        errors = [future.result() for future in written]
        return {"place": batch["place"], "error": np.array(errors, object), "seconds": np.array(seconds)}

    def _read(self, item: Item) -> bytes | Exception:
        try:
            if item.row < 0:
                return self._source.read(item.path)
            if self._parquet is None or self._parquet[0] != item.path:
                self._parquet = item.path, ParquetImages(self._source, item.path)
            return self._parquet[1].bytes(int(item.row))
        except Exception as error:
            return error

    def _write(self, item: Item, data: bytes | Exception) -> str:
        """Write one output; return the reason if there is none."""
        try:
            if not isinstance(data, Exception):
                self._destination.write(self._destination.path(item.place), data)
                return ""
        except Exception as error:
            data = error
        text = reason(data)
        return text if text.startswith(item.place) else f"{item.place}: {text}"


class Tries:
    """An actor that outlives the workers and counts how often each image was begun and not ended."""

    def __init__(self) -> None:
        self._begun = Counter[str]()

    def begin(self, place: str) -> int:
        self._begun[place] += 1
        return self._begun[place]

    def end(self, place: str) -> None:
        del self._begun[place]


def restore_on_ray(
    source: str,
    destination: str,
    *,
    model: str = "f2d-lite",
    address: str | None = None,
    actors: Actors = Actors(),  # noqa: B008
    recursive: bool = False,
    overwrite: bool = False,
    format: str | None = None,
    started: Callable[[int, int], None] = lambda images, actors: None,
    progress: Callable[[str, str], None] = lambda place, error: None,
    **options: Any,
) -> Outcome:
    """Restore `source` (see `find_items`) into `destination`, a folder on any file system, with actors of Ray Data.

    Outputs that exist are skipped unless `overwrite`, so that a job that was stopped resumes when it is started again.
    An image that cannot be restored is one failure and never ends the job. An actor that dies is started again by Ray,
    and its images with it; an image whose actors die `TRIES` times is one failure, too. started is called with the
    number of images and of actors, progress with the place of each image that is done and its error ("" if none).
    options: of `RestoreImages`. Results are those of `f2d restore`, bit for bit.

    Raises ValueError for a source without images, a destination without a bucket, an `address` where no cluster can be
    joined and workers with another version of f2d, OSError for storage that cannot be used, and the errors of
    `Restorer.load`.
    """
    items, others = find_items(source, recursive=recursive)
    target, origin = Storage.at(destination), Storage.at(source)
    if target.filesystem == origin.filesystem and target.folder != origin.folder:  # outputs of an earlier run
        items = [item for item in items if not item.path.startswith(f"{target.folder}/")]
    suffix = f".{format}" if format else None
    items = [item._replace(place=str(image_name(PurePosixPath(item.place), suffix))) for item in items]
    check_distinct(items)
    target.prepare()
    target.remove_leftovers()
    there = set() if overwrite else {target.below(path) for path in target.files(recursive=True)}
    left = [item for item in items if item.place not in there]
    if not left:
        return Outcome(0, 0, len(items), 0.0, 0.0, others)
    _connect(address)
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    number = min(actors.number or room(ray.cluster_resources(), actors), len(left))
    started(len(left), number)
    begun = time.perf_counter()
    size = max(1, min(BATCH, len(left) // (number * BLOCKS)))
    tables = [_table(left[i : i + size]) for i in range(0, len(left), size)]
    # started again elsewhere if its machine is lost, as the other actors are
    tries = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Tries).remote()
    done = ray.data.from_arrow(tables).map_batches(
        RestoreFiles,
        fn_constructor_args=(source, destination, model, {**options, "format": format}, __version__, tries),
        batch_size=size,
        compute=ray.data.ActorPoolStrategy(size=number),
        num_cpus=actors.cpus,
        num_gpus=actors.gpus,
    )
    failed, model_seconds = 0, 0.0
    try:
        for row in done.iter_rows():
            failed += bool(row["error"])
            model_seconds += row["seconds"]
            progress(row["place"], row["error"])
    except ray.exceptions.RayError as error:  # an actor that cannot start: its traceback ends with the reason
        raise ValueError(str(error).strip().splitlines()[-1]) from error
    target.remove_leftovers()  # of actors that were killed meanwhile
    seconds = time.perf_counter() - begun
    return Outcome(len(left) - failed, failed, len(items) - len(left), seconds, model_seconds, others)


def _connect(address: str | None) -> None:
    """Join the cluster at `address`, or start one on this machine, unless this process has done so."""
    if ray.is_initialized():
        return
    try:
        if place := re.fullmatch(r"(?:ray://)?(.+):(\d+)", address or ""):  # Ray itself tries for minutes
            socket.create_connection((place[1].strip("[]"), int(place[2])), timeout=10).close()
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError, OverflowError) as error:  # RuntimeError: another version of Ray
        if address is None:
            raise
        raise ValueError(f"{address}: cannot connect to a Ray cluster there ({error})") from error


def _table(items: list[Item]) -> pyarrow.Table:
    return pyarrow.table(dict(zip(Item._fields, map(list, zip(*items)))))


def room(resources: dict[str, float], actors: Actors) -> int:
    """Return the number of actors that a cluster with these resources has room for; ValueError if there is none."""
    wanted = {name: number for name, number in (("CPU", actors.cpus), ("GPU", actors.gpus)) if number}
    if not wanted:
        raise ValueError("an actor must reserve CPUs or GPUs (--worker-cpus, --worker-gpus)")
    found = min(int(resources.get(name, 0) / number + 1e-6) for name, number in wanted.items())
    if not found:
        raise ValueError(f"the cluster has no resources for an actor with {actors.cpus} CPUs and {actors.gpus} GPUs")
    return found
