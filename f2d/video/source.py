"""Open a video and decode its frames in order, with time stamps that increase."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
from av.stream import Disposition

from .frames import Layout, layout_of
from .names import VideoError
from .reading import in_order, open_file, packets

SHORTER = 1.0  # seconds that an intact file may lack, as some containers only estimate their duration
_HDR = {16: "PQ", 18: "HLG"}  # AVColorTransferCharacteristic
# Data of frames that no new frame can be given: PyAV only reads them
_LOST = {
    "A53_CC": "closed captions inside its frames",
    "DYNAMIC_HDR_PLUS": "HDR10+ metadata",
    "DOVI_METADATA": "Dolby Vision metadata",
    "SPHERICAL": "data of a 360-degree view",
}


@dataclass
class Source:
    """An open video: the stream to restore, its first frame and layout, and what was found while it was read.

    frames: about how many there are, or None. broken: packets that could not be decoded. warnings: one line each.
    count: frames decoded so far. last, duration: of the one decoded last, in units of the stream's time base.
    """

    path: Path
    container: av.container.InputContainer
    stream: av.VideoStream
    first: av.VideoFrame
    layout: Layout
    broken: int = 0
    count: int = 0
    last: int = 0
    duration: int = 0
    warnings: list[str] = field(default_factory=list)
    _found: set[str] = field(default_factory=set)  # of what is told once

    @property
    def rate(self) -> Fraction:
        """The mean number of frames a second."""
        return self.stream.average_rate or self.stream.guessed_rate or Fraction(25)

    @property
    def frames(self) -> int | None:
        if self.stream.frames:
            return self.stream.frames
        return round(self.container.duration / av.time_base * self.rate) if self.container.duration else None

    @property
    def end(self) -> int:
        """When the last frame ends, once all are decoded: as the header says, unless it promises more than there is.

        A header that counts the frames, as MP4's does, is believed if all came; others may promise SHORTER more than
        there is. The duration of the frame itself is less reliable: where frames are reordered, MP4 stores the time
        until the next one is decoded.
        """
        own = self.last + self.duration
        if self.stream.duration is None:
            return own
        stored = (self.stream.start_time or 0) + self.stream.duration
        whole = self.count == self.stream.frames or (stored - own) * self.stream.time_base <= SHORTER
        return stored if self.last < stored and whole else own

    def decoded(self, after: int | None = None) -> Iterator[av.VideoFrame]:
        """Yield the frames with time stamps greater than `after` (None: all) in the order of presentation.

        Those before are decoded too: that takes little of the time of a restoration, and seeking would land in the
        wrong place where time stamps go back. A frame without a time stamp comes one mean frame after the last. Time
        stamps that do not increase are put in order (see `in_order`), with a warning. Broken packets are skipped and
        counted. Raises VideoError if the size or the pixel format of frames changes.
        """
        last: int | None = None
        moved = self.count = 0
        step = max(1, round(1 / (self.rate * self.stream.time_base)))
        for frame in self._all():
            if frame.pts is None:
                frame.pts = 0 if last is None else last + step
            elif last is not None and frame.pts <= last:
                frame.pts = in_order(frame.pts, last + 1, step, self.stream.time_base)
                moved += 1
            last = self.last = frame.pts
            self.count += 1
            self.duration = frame.duration or step
            self._check(frame)
            if after is None or last > after:
                yield frame
        if moved:
            self.warnings.append(f"{self.path}: frames whose time stamps did not increase and were changed: {moved}")

    @property
    def _stores_no_order(self) -> bool:
        """Whether packets have only the times at which they are decoded, as in AVI."""
        return self.container.format.name == "avi"

    def _all(self) -> Iterator[av.VideoFrame]:
        """Decode the file, opened once more: not every format can be rewound to its first frame."""
        with open_file(self.path) as container:
            stream = container.streams[self.stream.index]
            stream.thread_type = "AUTO"
            times = deque[int]()  # of packets whose frames are still to come
            for packet in packets(container, {stream.index}):
                timed = self._stores_no_order and packet.dts is not None
                if timed:
                    times.append(packet.dts)
                try:
                    frames = packet.decode()
                except av.error.InvalidDataError:
                    self.broken += 1
                    if timed:
                        times.pop()
                    continue
                for frame in frames:
                    if times:
                        frame.pts = times.popleft()
                    yield frame

    def _check(self, frame: av.VideoFrame) -> None:
        form, size = frame.format.name, (frame.width, frame.height)
        if (form, *size) != (self.first.format.name, self.first.width, self.first.height):
            raise VideoError(
                f"frames change from {self.first.width}x{self.first.height} {self.first.format.name} to "
                f"{size[0]}x{size[1]} {form} at {frame.time:.2f} s, and one output cannot hold both"
            )
        found = {_LOST[data.type.name]: "are not kept" for data in frame.side_data if data.type.name in _LOST}
        if frame.interlaced_frame:
            found["interlaced frames"] = "are restored as whole ones"
        for what in (what for what in found if what not in self._found):
            self.warnings.append(f"{self.path}: has {what} from {frame.time:.2f} s on, which {found[what]}")
        self._found |= found.keys()


class About(NamedTuple):
    """What the header of a video says. seconds, frames: None where it does not."""

    width: int
    height: int
    seconds: float | None
    frames: int | None


def about(path: Path) -> About:
    """Describe a video without decoding it; raise VideoError, with its name, for a file that is not a video."""
    with _open(path) as container:
        try:
            stream = _stream(container)
        except VideoError as error:
            raise VideoError(f"{path}: {error}") from None
        seconds = container.duration / av.time_base if container.duration else None
        return About(stream.width, stream.height, seconds, stream.frames or None)


@contextmanager
def opened(path: Path) -> Iterator[Source]:
    """``with opened(path) as source:``; raises VideoError, with the file's name, if it cannot be restored."""
    with _open(path) as container:
        try:
            yield _probed(path, container)
        except VideoError as error:
            raise VideoError(f"{path}: {error}") from None
        except av.error.FFmpegError as error:
            raise VideoError(f"{path}: {_reason(error)}") from None


def _open(path: Path) -> av.container.InputContainer:
    try:
        return open_file(path)
    except av.error.ArgumentError:  # what the whitelist of formats does not have
        raise VideoError(f"{path}: cannot be read as a video (it is something else)") from None
    except (av.error.FFmpegError, OSError) as error:
        raise VideoError(f"{path}: cannot be read as a video ({_reason(error)})") from None


def _stream(container: av.container.InputContainer) -> av.VideoStream:
    """Return the video stream to restore; raise VideoError if there is none."""
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        raise VideoError("has no video stream")
    stream = streams[0]
    if stream.codec_context is None:
        raise VideoError("its video codec is not known to this build of FFmpeg")
    if stream.metadata.get("alpha_mode") == "1":  # VP9 and VP8, whose decoders leave the transparency out
        raise VideoError("transparency is not supported, so convert the video to a format without alpha")
    return stream


def _probed(path: Path, container: av.container.InputContainer) -> Source:
    stream = _stream(container)
    source = Source(path, container, stream, None, None)  # type: ignore[arg-type]  # both follow from the first frame
    first = next(source._all(), None)
    if first is None:
        raise VideoError("has no frame that can be decoded")
    if first.interlaced_frame:
        raise VideoError(
            "is interlaced, and the network restores whole frames, so deinterlace it first (ffmpeg -i IN -vf bwdif OUT)"
        )
    source.first, source.layout, source.broken = first, layout_of(first), 0  # broken ones are met again
    if first.color_trc in _HDR:
        source.warnings.append(
            f"{path}: is HDR ({_HDR[first.color_trc]}), which the network takes for sRGB, all that it was trained on"
        )
    videos = sum(not other.disposition & Disposition.attached_pic for other in container.streams.video)
    if videos > 1:
        source.warnings.append(f"{path}: has {videos} video streams, and the first is restored")
    return source


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return text[:1].lower() + text[1:]
