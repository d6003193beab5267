"""Restore videos: what of a command applies to them, the progress bar, a line for each."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from rich.progress import ProgressColumn, Task
from rich.text import Text

from f2d.cli.console import bar_of, err, out, shown, warn
from f2d.cli.files import Job, make_folder
from f2d.cli.files import Task as Command
from f2d.images.formats import ImageError
from f2d.replacing import WriteError
from f2d.video import VideoError, is_video, missing_extra

if TYPE_CHECKING:
    from f2d.cli.counts import Counts
    from f2d.video.restoring import Done


def allowed(jobs: list[Job], task: Command, failures: list[str]) -> list[Job]:
    """Return the jobs that can be done with what is installed; one line for all videos without PyAV goes to `failures`.

    Raises ValueError for options that videos do not have.
    """
    videos = [job for job in jobs if is_video(job.source)]
    if not videos:
        return jobs
    for option, given in (("--save-maps", task.outputs.maps), ("--samples", task.outputs.samples)):
        if given:
            raise ValueError(f"{option} is for photographs, and {videos[0].source} is a video")
    missing = missing_extra()
    if missing is None:
        return jobs
    more = f" and {len(videos) - 1} more" if len(videos) > 1 else ""
    failures.append(f"{videos[0].source}{more}: {missing}")
    return [job for job in jobs if not is_video(job.source)]


def restore_videos(jobs: list[Job], task: Command, counts: "Counts", call: Callable, progress: bool) -> None:
    """Restore `jobs` one after the other; call: `Restoring.call`."""
    for job in jobs:
        try:
            done = _restored(job, task, call, progress)
        except (VideoError, WriteError) as error:
            counts.fail(error)
            continue
        except (ImageError, MemoryError, OSError) as error:
            counts.fail(f"{job.source}: {str(error) or 'does not fit into memory'}")
            continue
        for warning in done.warnings:
            warn(warning)
        counts.restored += 1
        counts.model_seconds += done.seconds
        new = done.frames - done.kept
        kept = f" ({done.kept} from the interrupted run)" if done.kept else ""
        out.print(
            f"{shown(job.target)}  {done.width}x{done.height}  {done.frames} frames{kept}  {done.codec}  "
            f"{done.seconds:.2f} s ({new / max(done.seconds, 1e-9):.1f} frames/s)  change {done.change:.1f} levels"
        )


def _restored(job: Job, task: Command, call: Callable, progress: bool) -> "Done":
    from f2d.engine.execution import choose_execution
    from f2d.evaluation.method import digest
    from f2d.video.restoring import restore_video
    from f2d_kernels import __version__

    make_folder(job.target.parent)
    # segments of an interrupted run are kept only if the same weights would make the same ones here
    execution = choose_execution(task.device, task.precision)
    key: dict[str, Any] = {"weights": digest(task.model), "on": str(execution), "seed": task.seed, "f2d": __version__}
    bar, frames = bar_of(shown(job.source.name), None, _Rate()), 0

    def advance(done: int, total: int | None) -> None:
        nonlocal frames
        frames = done
        bar.update(bar.task_ids[0], completed=done, total=total)
        if progress and err.is_terminal:  # from the first frame on, when the line about the model has been printed
            bar.start()

    try:
        return restore_video(
            job.source,
            job.target,
            partial(call, seed=task.seed),
            task.video,
            key=key | {name: str(value) for name, value in task.options.items()},
            progress=advance,
        )
    except (KeyboardInterrupt, SystemExit):
        if frames:
            out.print(f"{shown(job.target)}  stopped at frame {frames}: rerun the command to continue")
        raise
    finally:
        if bar.live.is_started:  # one that never was would print an empty line
            bar.stop()


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("" if not task.speed else f"{task.speed:.1f} frames/s")
