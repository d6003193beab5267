"""Restore photographs one after the other: write the outputs, print a line for each, and count failures."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress

from f2d.cli.console import bar_of, out, shown, up, without_library_messages
from f2d.cli.counts import Counts
from f2d.cli.files import (
    DEVIATION,
    NUMBERS,
    Job,
    Task,
    beside,
    make_folder,
    remove_further_samples,
    remove_other_maps,
    sample_of,
)
from f2d.cli.ranks import Place, own_device
from f2d.cli.videos import restore_videos
from f2d.engine import BudgetError, control
from f2d.engine.restorer import Restored, Restorer
from f2d.images import ImageError, Photo, check_holds, read, replacing, save_image, stored, to_picture, write
from f2d.nets.models import Config, load_config
from f2d.transport import sampling
from f2d.video import is_video

# BATCH images of at most SMALL pixels share one call on a GPU, which larger ones fill alone. Each image draws the noise
# it would draw alone. A CPU gains nothing (four of 256x256: 1.29 s together, 1.26 s one by one), and rounding differs.
BATCH, SMALL = 8, 300_000


def restore_all(jobs: list[Job], task: Task, counts: Counts, place: Place) -> None:
    """Restore and write `jobs`, the share of `place`.

    Mistakes that can be found without weights are found before these are loaded, and weights are not loaded unless a
    photograph can be read.
    """
    check_options(load_config(task.model), task)
    share = f", rank {place.rank} of {place.world}: {len(jobs)} photographs" if place.world > 1 else ""

    def load() -> Restorer:
        restorer = Restorer.load(task.model, device=own_device(task.device, place), precision=task.precision)
        out.print(f"{shown(task.model)} on {restorer.execution}{share}")
        return restorer

    restoring = Restoring(task, counts, load)
    restoring.run([job for job in jobs if not is_video(job.source)], progress=place.rank == 0)
    restore_videos([job for job in jobs if is_video(job.source)], task, counts, restoring.call, place.rank == 0)


def check_options(config: Config, task: Task) -> None:
    """Raise ValueError for an option that this model does not support."""
    steps, _ = sampling(config.transport, task.options.get("steps"), task.options.get("sampler"))
    control.strengths(config.factors, task.options.get("strength"), task.options.get("only"))
    if task.outputs.maps and not config.factors:
        raise ValueError(f"--save-maps: {task.model} has no factors, and therefore no maps or gates")
    if task.outputs.samples and steps == 1:
        raise ValueError(
            "--samples needs --steps above 1, because a single step predicts the mean whatever the seed and samples "
            "would hardly differ"
        )


class Restoring:
    """Restores photographs one after the other.

    The restorer is loaded once one of them has been read, or the header of a large one.
    """

    def __init__(self, task: Task, counts: Counts, load: Callable[[], Restorer]):
        self._task, self._counts, self._load = task, counts, load

    def run(self, jobs: list[Job], *, progress: bool) -> None:
        """Restore `jobs`; print a line for each, and count those that fail."""
        bar = bar_of("restoring", len(jobs))
        for group in self._groups(jobs, bar):
            with up(bar, progress):
                lines = list(self._restored(group))
            for line in lines:
                out.print(line)
            bar.advance(bar.task_ids[0], len(group))

    def _groups(self, jobs: Iterable[Job], bar: Progress) -> Iterator[list[tuple[Job, Photo]]]:
        """Yield the readable photographs in order: one at a time, or several small ones of one size for a GPU call."""
        group: list[tuple[Job, Photo]] = []
        for job in jobs:
            try:
                self._check_fits(job)
                with without_library_messages():
                    photo = read(job.source)
                check_holds(photo, job.target)
            except ImageError as error:
                self._counts.fail(error)
                bar.advance(bar.task_ids[0])
                continue
            if group and photo.size != group[0][1].size:
                yield group
                group = []
            group.append((job, photo))
            if len(group) == self._batch(photo):
                yield group
                group = []
        if group:
            yield group

    def _check_fits(self, job: Job) -> None:
        """Raise ImageError for a photograph that cannot be restored within the memory, before it is decoded: a file of
        20 kB can decode to gigabytes. A small one is left to the restorer, which need not be loaded for it yet."""
        width, height = stored(job.source).size
        try:
            if width * height > SMALL:
                self._restorer.plan_for((width, height), **self._task.options)
        except BudgetError as error:
            raise ImageError(f"{job.source}: {error}") from None

    def _batch(self, photo: Photo) -> int:
        """Return how many photographs of the size of `photo` are restored together."""
        small = photo.size[0] * photo.size[1] <= SMALL
        return self._together if small and not self._task.outputs.samples else 1

    @cached_property
    def _restorer(self) -> Restorer:
        return self._load()

    @cached_property
    def _together(self) -> int:
        return 1 if self._restorer.execution.device.type == "cpu" else BATCH

    def _restored(self, group: list[tuple[Job, Photo]]) -> Iterator[str]:
        """Yield a line for each photograph of the group that was restored."""
        try:
            result = self.call(torch.stack([photo.tensor() for _, photo in group]), self._task.seed)
        except (ImageError, MemoryError) as error:
            for job, _ in group:
                self._counts.fail(f"{job.source}: {str(error) or 'does not fit into memory'}")
            return
        for i, (job, photo) in enumerate(group):
            try:
                yield self._written(job, photo, result, i, result.seconds / len(group))
            except ImageError as error:
                self._counts.fail(error)
            except MemoryError:
                self._counts.fail(f"{job.target}: does not fit into memory")

    def _written(self, job: Job, photo: Photo, result: Restored, i: int, seconds: float) -> str:
        """Write all outputs of one photograph; the image comes last, since it shows that all the others exist."""
        write_new, outputs = self._write_new, self._task.outputs
        kept = not outputs.writes(job.target)
        make_folder(job.target.parent)
        values = result.image[i]
        if outputs.samples:
            values, deviation, more = self._samples(job, photo, values)
            seconds += more
            write_new(beside(job.target, DEVIATION), lambda path: write(deviation, path))
        if outputs.maps:
            if outputs.overwrite:
                remove_other_maps(job.target, result.factors)
            for name, factor_map in zip(result.factors, result.maps[i]):
                write_new(beside(job.target, f"map_{name}.png"), partial(save_image, to_picture(factor_map)))
            write_new(beside(job.target, NUMBERS), lambda path: _write_numbers(path, result, i))
        restored = photo.replaced(values)
        notes: list[str] = []
        write_new(job.target, lambda path: notes.extend(write(restored, path, quality=self._task.quality)))
        self._counts.restored += 1
        self._counts.model_seconds += seconds
        width, height = photo.size
        change = photo.change_to(restored)
        told = [f"the first of {photo.frames} frames"] if photo.frames > 1 else []
        told += ["kept as it was, with what was missing written beside it"] if kept else []
        told += [f"the mean of {outputs.samples} samples, written beside it"] if outputs.samples and not kept else []
        told += ["maps written beside it"] if outputs.maps and not kept else []
        remarks = shown(" ".join("; ".join((*told, *photo.notes, *notes)).split()))
        return (
            f"{shown(job.target)}  {width}x{height}  {seconds:.2f} s  "
            f"change {change.mean:.1f} levels, at most {change.largest:.0f}" + (f"  ({remarks})" if remarks else "")
        )

    def _samples(self, job: Job, photo: Photo, first: torch.Tensor) -> tuple[torch.Tensor, Photo, float]:
        """Write the samples one by one; return their mean and standard deviation (Welford), and the seconds of all but
        the first."""
        mean, squares, seconds = torch.zeros_like(first), torch.zeros_like(first), 0.0
        number = self._task.outputs.samples
        if self._task.outputs.overwrite:
            remove_further_samples(job.target, number)
        for k in range(1, number + 1):
            sample = first
            if k > 1:
                result = self.call(photo.tensor()[None], self._task.seed + k - 1)
                sample, seconds = result.image[0], seconds + result.seconds
            delta = sample - mean
            mean += delta / k
            squares += delta * (sample - mean)
            self._write_new(
                sample_of(job.target, k),
                partial(write, photo.replaced(sample), quality=self._task.quality),
            )
        deviation = squares.div(number - 1).clamp_min(0).sqrt()
        plain = Photo(photo.levels, metadata=replace(photo.metadata, icc=b"", png={}))
        return mean, plain.replaced(deviation, depth=16), seconds

    def call(self, images: torch.Tensor, seed: int, **more: Any) -> Restored:
        """Restore a batch with the options of the task; raise ImageError if it fits neither into memory nor on disk."""
        signed = (seed + 2**63) % 2**64 - 2**63  # the same 64 bits as a signed integer, which a tensor of seeds holds
        restorer = self._restorer  # a model that cannot be loaded is no fault of a photograph
        try:
            return restorer(images, seed=signed, **self._task.options, **more)
        except (BudgetError, OSError) as error:
            raise ImageError(str(error)) from None

    def _write_new(self, path: Path, write_to: Callable[[Path], object]) -> None:
        if self._task.outputs.writes(path):
            write_to(path)


def _write_numbers(path: Path, result: Restored, i: int) -> None:
    numbers = {
        "gates": dict(zip(result.factors, result.gates[i].tolist())),
        "presence": dict(zip(result.factors, result.presence[i].tolist())),
    }
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(numbers, indent=2) + "\n")
