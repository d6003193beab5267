"""Open video files and read their packets, with continuous time stamps where recordings were joined."""

from collections.abc import Collection, Iterator
from fractions import Fraction
from pathlib import Path

import av
from av.format import Flags

# FFmpeg also reads text files that name other files (playlists, concat scripts): those must not be reached by a video
FORMATS = (
    *("mov", "matroska", "avi", "mpegts", "mpeg", "mpegvideo", "asf", "flv", "ogg", "mxf", "nut", "dv", "dhav", "ivf"),
    *("h264", "hevc", "vvc", "obu", "m4v", "vc1", "mjpeg", "yuv4mpegpipe", "rm", "wtv", "gxf"),
)
BACK = 0.1  # seconds: time stamps that go back further are wrong or begin another recording, as for ffmpeg


def open_file(path: Path) -> av.container.InputContainer:
    """Open a file as a video; raise FFmpegError or OSError."""
    whitelists = {"format_whitelist": ",".join(FORMATS), "protocol_whitelist": "file"}
    # absolute: "part 1: rain.mp4" would be taken for an address with a protocol
    return av.open(str(path.absolute()), metadata_errors="replace", options=whitelists)


def restarts(container: av.container.InputContainer) -> bool:
    """Whether time stamps of this format may start again within a file, as those of joined transport streams do."""
    return bool(container.format.flags & Flags.ts_discont.value)


def in_order(time: int, least: int, step: int, base: Fraction) -> int:
    """Return `time`, or `least` if that is later: as soon as possible, so that the next one need not be moved.

    If it is later by more than BACK, `time` is wrong, and the next ones may be as well: they follow a `step` apart.
    """
    if time >= least:
        return time
    return least if (least - time) * base <= BACK else least - 1 + max(1, step)


def packets(container: av.container.InputContainer, streams: Collection[int]) -> Iterator[av.Packet]:
    """Yield the packets of the streams with these indices, at the end with the empty ones that flush the decoders.

    Where the time stamps of a stream go back, another recording was appended. All streams of that recording are shifted
    by the same time, so that it begins where the last one ended. Decoding times increase.
    """
    if not restarts(container):
        yield from container.demux([container.streams[index] for index in streams])
        return
    shifts, end = [Fraction(0)], Fraction(0)
    recording, last, given = dict[int, int](), dict[int, int](), dict[int, int]()
    for packet in container.demux():  # of all streams, so that the shifts do not depend on which are wanted
        index, base = packet.stream.index, packet.time_base
        if packet.dts is not None:
            number, before = recording.get(index, 0), last.get(index)
            if before is not None and (before - packet.dts) * base > BACK:
                number += 1
                if number == len(shifts):
                    shifts.append(end - packet.dts * base)
            recording[index], last[index] = number, packet.dts
            shift = round(shifts[number] / base)
            packet.pts = None if packet.pts is None else packet.pts + shift
            packet.dts = given[index] = max(packet.dts + shift, given.get(index, packet.dts + shift - 1) + 1)
            end = max(end, (packet.dts + (packet.duration or 0)) * base)
        if index in streams:
            yield packet
