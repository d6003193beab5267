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
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from f2d.replacing import replacing

_HEADER = struct.Struct("<qq?I")  # pts, duration, key frame, bytes that follow


class Encoded(NamedTuple):
    """One encoded frame; times in units of the stream's time base."""

    pts: int
    duration: int
    key: bool
    data: bytes


class Segment(NamedTuple):
    """A finished segment. times: of its frames, increasing. depth: frames by which the encoder reorders.

    state: the caller's state at the start of the next segment.
    """

    times: list[int]
    depth: int
    state: dict[str, Any]


class Segments:
    """The segments of the output `target` that were made with the same `key`; those of another key are removed."""

    def __init__(self, target: Path, key: dict[str, Any]):
        name = hashlib.sha1(os.fsencode(target.name)).hexdigest()[:16]
        self.folder = target.with_name(f".f2d-{name}.segments")
        self.count, self.frames, self.last = 0, 0, None
        text = json.dumps(key, sort_keys=True)
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
                file.write(_HEADER.pack(packet.pts, packet.duration, packet.key, len(packet.data)))
                file.write(packet.data)
                times.append(packet.pts)
        order = sorted(times)
        rank = {pts: i for i, pts in enumerate(order)}
        depth = max((i - rank[pts] for i, pts in enumerate(times)), default=0)
        segment = Segment(order, depth, state())
        with replacing(self._path("json", self.count)) as temporary:
            temporary.write_text(json.dumps(segment._asdict()))
        self.count, self.frames, self.last = self.count + 1, self.frames + len(times), segment

    def packets(self) -> Iterator[tuple[Encoded, int]]:
        """Yield every packet of all segments in the order of decoding, with its decoding time.

        Decoding times are the presentation times in order, `depth` frames late: they increase across segments, whatever
        the frame rate does, and none comes after its frame's presentation.
        """
        depth = max((segment.depth for segment in self._finished()), default=0)
        times = _delayed((time for segment in self._finished() for time in segment.times), depth)
        for number in range(self.count):
            with open(self._path("packets", number), "rb") as file:
                for packet in _read(file):
                    yield packet, next(times)

    def remove(self) -> None:
        """Remove the folder and all that is in it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _finished(self) -> Iterator[Segment]:
        number = 0
        while (path := self._path("json", number)).exists():
            yield Segment(**json.loads(path.read_text()))
            number += 1

    def _path(self, kind: str, number: int) -> Path:
        return self.folder / f"{number}.{kind}"


def _delayed(times: Iterator[int], depth: int) -> Iterator[int]:
    """``times`` after `depth` times before the first of them, one frame apart."""
    first = next(times, None)
    if first is None:
        return
    second = next(times, None)
    step = 1 if second is None else second - first
    yield from (first - step * k for k in range(depth, 0, -1))
    yield first
    if second is not None:
        yield second
    yield from times


def _read(file: BinaryIO) -> Iterator[Encoded]:
    while header := file.read(_HEADER.size):
        pts, duration, key, size = _HEADER.unpack(header)
        yield Encoded(pts, duration, key, file.read(size))
