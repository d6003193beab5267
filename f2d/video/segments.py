"""Finished parts of a video on disk, so that an interrupted command resumes.

They lie in a hidden folder beside the output: numbered pairs of `N.packets`, the encoded packets in the order of the
encoder, and `N.json`, which is written last and says that the segment is complete. Every segment starts with a key
frame.
"""

import hashlib
import json
import os
import shutil
import struct
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from f2d.replacing import replacing

_HEADER = struct.Struct("<q?I")  # pts, key frame, bytes that follow


class Encoded(NamedTuple):
    """One encoded frame; times in units of the stream's time base."""

    pts: int
    key: bool
    data: bytes


class Times(NamedTuple):
    """When an encoded frame is decoded, and how long it is shown."""

    decoded: int
    duration: int


class Segment(NamedTuple):
    """A finished segment. times: of its frames, in the order of the encoder. state: the caller's at its end."""

    times: list[int]
    state: dict[str, Any]

    @property
    def depth(self) -> int:
        """The number of frames by which the encoder delayed its output to reorder them."""
        rank = {pts: i for i, pts in enumerate(sorted(self.times))}
        return max(i - rank[pts] for i, pts in enumerate(self.times))


class Segments:
    """The segments of the output `target` that were made with the same `key`; those of another key are removed."""

    def __init__(self, target: Path, key: dict[str, Any]):
        name = hashlib.sha1(os.fsencode(target.name)).hexdigest()[:16]
        self.folder = target.with_name(f".f2d-{name}.segments")
        self.count, self.frames, self.last = 0, 0, None
        text = json.dumps({"format": [_HEADER.format, Segment._fields]} | key, sort_keys=True)
        mark = self.folder / "key.json"
        if not mark.exists() or mark.read_text() != text:
            self.remove()
            self.folder.mkdir()
            with replacing(mark) as temporary:
                temporary.write_text(text)
        for segment in self._finished():
            self.count, self.frames, self.last = self.count + 1, self.frames + len(segment.times), segment

    def write(self, packets: Iterable[Encoded], state: Any) -> None:
        """Write the packets of one segment; state() is called once all are written."""
        times = []
        with replacing(self._path("packets", self.count)) as temporary, open(temporary, "wb") as file:
            for packet in packets:
                file.write(_HEADER.pack(packet.pts, packet.key, len(packet.data)))
                file.write(packet.data)
                times.append(packet.pts)
        segment = Segment(times, state())
        with replacing(self._path("json", self.count)) as temporary:
            temporary.write_text(json.dumps(segment._asdict()))
        self.count, self.frames, self.last = self.count + 1, self.frames + len(times), segment

    def packets(self, end: int) -> Iterator[tuple[Encoded, Times]]:
        """Yield every packet of all segments in the order of decoding, with its times. end: when the last frame ends.

        A frame is shown until the next one. Decoding times are the presentation times in order, `depth` frames late:
        they increase across segments, whatever the frame rate does, and none comes after its frame's presentation.
        The first ones come so early that the decoding times, too, end as long after their start as the presentation
        does: MP4 stores the duration of a track as theirs. None comes closer to its presentation than the first: of
        those before 0, FFmpeg's muxer takes the closest for the start.
        """
        assert self.last is not None
        depth = max(segment.depth for segment in self._finished())
        tail = deque(self._times(), maxlen=depth + 1)
        final = self.last.times[-1]  # decoded last
        early = end - tail[0] - (min((time for time in tail if time > final), default=end) - final)
        first, order = next(self._times()), next(self._finished()).times
        step = min((max(1, (order[k] - first) // k) for k in range(1, min(depth, len(order)))), default=early)
        before = (first - max(early * (depth - k) // depth, early - step * k) for k in range(depth))
        decoding = chain(before, self._times())
        following = chain(islice(self._times(), 1, None), [end])
        for number, segment in enumerate(self._finished()):
            durations = {time: next(following) - time for time in sorted(segment.times)}
            with open(self._path("packets", number), "rb") as file:
                for packet in _read(file):
                    yield packet, Times(next(decoding), durations[packet.pts])

    def remove(self) -> None:
        """Remove the folder and all that is in it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _finished(self) -> Iterator[Segment]:
        number = 0
        while (path := self._path("json", number)).exists():
            yield Segment(**json.loads(path.read_text()))
            number += 1

    def _times(self) -> Iterator[int]:
        return (time for segment in self._finished() for time in sorted(segment.times))

    def _path(self, kind: str, number: int) -> Path:
        return self.folder / f"{number}.{kind}"


def _read(file: BinaryIO) -> Iterator[Encoded]:
    while header := file.read(_HEADER.size):
        pts, key, size = _HEADER.unpack(header)
        yield Encoded(pts, key, file.read(size))
