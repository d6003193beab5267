"""Restore a video frame by frame, with memory that does not grow with its length."""

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import av

from f2d.replacing import WriteError, replacing

from . import hdr
from .colour import changed, to_rgb
from .encoding import ENCODERS, Settings, choose, open_encoder
from .frames import frame_of, planes_of
from .muxing import assemble
from .names import EncodingOptions, VideoError
from .segments import Encoded, Segments
from .smoothing import Restore, Smoother, State
from .source import Source, opened

# Frames of a segment, and the most pixels of one: what an interruption costs, and at most how far key frames lie apart
SEGMENT, PIXELS = 120, 2**28

Progress = Callable[[int, int | None], None]


class Done(NamedTuple):
    """A restored video: its frames, size in pixels and codec, the model's seconds, and one line for each warning.

    kept: frames that an earlier run had restored. change: mean change of a pixel in grey levels of 255.
    """

    frames: int
    kept: int
    width: int
    height: int
    codec: str
    seconds: float
    change: float
    warnings: list[str]


def restore_video(
    path: Path,
    target: Path,
    restore: Restore,
    options: EncodingOptions = EncodingOptions(),  # noqa: B008  # immutable
    *,
    key: dict[str, Any] | None = None,
    progress: Progress = lambda done, total: None,
) -> Done:
    """``frame + (restore(frame) - frame)``, the difference in the frame's own colour space, for all frames of `path`.

    restore must always use the same seed, so that every frame gets the same noise. It receives upright frames as RGB
    [1, 3, H, W], clamped to [0, 1]. Time stamps, rotation, colour tags and bit depth are kept, and all other streams,
    chapters and tags are copied. progress(frames done, number of frames or None) is called after each frame. `target`
    appears when it is complete. Until then, finished segments lie beside it, and a call with the same source, `options`
    and `key` (everything `restore` depends on, as JSON types) continues from them.

    Raises VideoError for a video that cannot be read, restored or encoded, with its name and the reason, and
    WriteError, an OSError, for a `target` that cannot be written.
    """
    if target.is_dir():
        raise WriteError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(target))
    with opened(path) as source, _naming(target):
        settings = choose(source, target.suffix.lower(), options.codec, options.crf)
        encoder = ENCODERS[settings.codec]
        if encoder.parameters is None and hdr.parameters(source.first, encoder.name):
            source.warnings.append(
                f"{path}: static HDR metadata is not kept with {settings.codec}, only with h265 and av1"
            )
        segments = Segments(target, _key(source, settings, options) | {"restore": key})
        try:
            work = _Work(source, restore, options, segments)
            work.run(settings, progress)
            with replacing(target) as temporary:
                assemble(source, segments, settings, temporary)
        except VideoError:  # found in the video itself, so that a rerun would fail as well
            segments.remove()
            raise
        segments.remove()
        if source.broken:
            source.warnings.append(f"{path}: packets that could not be decoded and were skipped: {source.broken}")
        return work.done(settings)


@contextmanager
def _naming(target: Path) -> Iterator[None]:
    """Raise WriteError about `target` for errors of the hidden files beside it that it is made of."""
    try:
        yield
    except OSError as error:
        folder, path = target.parent.absolute(), Path(os.fsdecode(error.filename or "")).absolute()
        ours = path.is_relative_to(folder) and path.relative_to(folder).as_posix().startswith(".f2d-")
        if error.errno is None or not ours:
            raise
        raise WriteError(error.errno, error.strerror, os.fspath(target)) from None


def _key(source: Source, settings: Settings, options: EncodingOptions) -> dict[str, Any]:
    status = source.path.stat()
    return {
        "source": [str(source.path.resolve()), status.st_size, status.st_mtime_ns],
        "settings": [*settings, options.smoothing],
        "libraries": {name: list(version) for name, version in av.library_versions.items()},
    }


class _Work:
    def __init__(self, source: Source, restore: Restore, options: EncodingOptions, segments: Segments):
        self._source, self._restore, self._segments = source, restore, segments
        self._smoother = Smoother(options.smoothing) if options.smoothing > 0 else None
        self._kept, self._seconds, self._change = segments.frames, 0.0, 0.0
        if segments.last is not None:
            self._change = segments.last.state["change"]
            if self._smoother is not None:
                self._smoother.state = State(**segments.last.state["smoother"])

    def run(self, settings: Settings, progress: Progress) -> None:
        """Restore the frames that no finished segment has."""
        last = self._segments.last
        frames = self._source.decoded(None if last is None else max(last.times))
        first = self._source.first
        length = max(1, min(SEGMENT, PIXELS // (first.width * first.height)))
        for frame in frames:
            segment = islice(chain([frame], frames), length)
            self._segments.write(self._encoded(segment, settings, progress), self._state)

    def done(self, settings: Settings) -> Done:
        first, frames = self._source.first, self._segments.frames
        return Done(
            *(frames, self._kept, first.width, first.height, settings.codec, self._seconds),
            *(255 * self._change / max(1, frames), self._source.warnings),
        )

    def _state(self) -> dict[str, Any]:
        return {"change": self._change, "smoother": self._smoother and self._smoother.state._asdict()}

    def _encoded(self, frames: Iterable[av.VideoFrame], settings: Settings, progress: Progress) -> Iterator[Encoded]:
        """Restore and encode the frames of one segment."""
        encoder = open_encoder(self._source, settings)
        for count, frame in enumerate(frames, start=1):
            for packet in encoder.encode(self._restored(frame)):
                yield _stored(packet)
            progress(self._segments.frames + count, self._source.frames)
        for packet in encoder.encode(None):
            yield _stored(packet)

    def _restored(self, frame: av.VideoFrame) -> av.VideoFrame:
        layout = self._source.layout
        planes = planes_of(frame, layout)
        image = to_rgb(planes, layout.colour).clamp(0, 1)
        upright = layout.upright(image)
        if self._smoother is None:
            result = self._restore(upright, adjust=None)
            change, seconds = result.image.clamp(0, 1) - upright, result.seconds
        else:
            change, seconds = self._smoother.change(self._restore, upright, float(frame.time))
        change = layout.stored(change)
        self._seconds += seconds
        self._change += float(change.abs().mean())
        return frame_of(changed(planes, change, layout.colour), layout, frame)


def _stored(packet: av.Packet) -> Encoded:
    return Encoded(packet.pts, packet.is_keyframe, bytes(packet))
