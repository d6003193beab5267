"""Restore short videos for the page: limits checked before a frame is decoded, frames in turn with photographs."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from f2d.app.work import Options, Work
from f2d.engine.control import Adjust
from f2d.engine.restorer import Restored
from f2d.images import ImageError
from f2d.video import VideoError

# Suffix of an upload -> suffix of its output, which browsers play
SUFFIXES = {".mp4": ".mp4", ".m4v": ".mp4", ".mov": ".mp4", ".mkv": ".mp4", ".webm": ".webm"}
FASTEST = 60  # frames a second up to which a clip may be as long as the limit says


class Clip(NamedTuple):
    """before, after: files; after is also the download. line: the restoration in words."""

    before: Path
    after: Path
    line: str


class Clips:
    """Restorations of videos of at most `work.limits.clip_seconds` and `clip_megapixels`, beside those of `work`.

    A video needs no more memory than a photograph of its frames' size, and takes turns with photographs after every
    frame. Errors in a file raise a ValueError of one line with the file's own name.
    """

    def __init__(self, work: Work):
        self.work = work
        self.frames = round(FASTEST * work.limits.clip_seconds)

    def restore(
        self, path: Path, options: Options, progress: Callable[[int, int | None], None] = lambda done, total: None
    ) -> Clip:
        """Restore `path`, with its sound, as `f2d restore` does; progress is that of `restore_video`."""
        from f2d.video.restoring import restore_video

        self.work.check_room(path)
        try:
            self._check(path)
            target = self.work.place() / f"{path.stem}_restored{SUFFIXES[path.suffix.lower()]}"
            done = restore_video(path, target, self._calls(options), progress=progress)
        except VideoError as error:
            raise VideoError(str(error).replace(str(path), path.name)) from None
        line = (
            f"Changed by {done.change:.1f} grey levels of 255 on average · {done.frames} frames of "
            f"{done.width} × {done.height} · {done.seconds:.1f} s, {self.work.execution()}"
        )
        return Clip(path, target, "\n".join([line, *(text.replace(str(path), path.name) for text in done.warnings)]))

    def _check(self, path: Path) -> None:
        """Raise VideoError for a file beyond the limits, as far as its header tells."""
        from f2d.video.source import about

        limits = self.work.limits
        if path.suffix.lower() not in SUFFIXES:
            raise VideoError(f"{path}: must be one of {', '.join(SUFFIXES)}")
        if path.stat().st_size > limits.upload:
            raise VideoError(f"{path}: must have at most {limits.upload / 2**20:.4g} MiB")
        width, height, seconds, frames = about(path)
        if width * height > limits.clip_megapixels * 1e6:
            raise VideoError(
                f"{path}: has frames of {width} × {height} = {width * height / 1e6:.2f} megapixels, "
                f"but this page accepts at most {limits.clip_megapixels:g}"
            )
        if seconds is not None and seconds > limits.clip_seconds + 0.5:
            raise VideoError(
                f"{path}: lasts {seconds:.1f} seconds, but this page accepts at most {limits.clip_seconds:g}"
            )
        if frames is not None and frames > self.frames:
            raise VideoError(f"{path}: has {frames} frames, but this page accepts at most {self.frames}")

    def _calls(self, options: Options) -> Callable[..., Restored]:
        """Return what restores one frame; VideoError after as many as are accepted, whatever the header said."""
        count = 0

        def restore(image: Tensor, /, *, adjust: Adjust | None) -> Restored:
            nonlocal count
            count += 1
            if count > self.frames:
                raise VideoError(f"has more than {self.frames} frames, which is as many as this page accepts")
            try:
                return self.work.call(image, options, adjust=adjust)
            except ImageError as error:
                raise VideoError(str(error)) from None

        return restore
