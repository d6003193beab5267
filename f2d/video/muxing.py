"""Put the restored video together with the other streams, chapters and tags of its source."""

import heapq
import io
import math
import re
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
from av.format import Flags
from av.stream import Disposition

from .encoding import Settings, new_encoder, ordinary_priority, set_up
from .frames import display_matrix
from .reading import BACK, in_order, open_file, packets
from .segments import Encoded, Segments, Times
from .source import SHORTER, Source

_MATRIX = 44  # bytes from the word tkhd to the display matrix, in version 0 of that box
# Tags that describe the file or encoding itself: the muxer writes its own
_OWN_TAGS = {"major_brand", "minor_version", "compatible_brands", "encoder", "duration", "vendor_id"}
_STATISTICS = ("BPS", "NUMBER_OF_", "_STATISTICS")  # mkvmerge writes these


def assemble(source: Source, segments: Segments, settings: Settings, path: Path) -> None:
    """Write `path`: the video of `segments`, and unchanged copies of all other streams, chapters and tags of `source`.

    Streams and tags that the container cannot hold are not copied, with a warning in `source`.
    """
    options = {"fflags": "+bitexact"}  # Matroska would have random numbers in it, and two runs different bytes
    with open_file(source.path) as given:
        tags = _tags(given)
        if settings.muxer in ("mp4", "mov"):
            # its unit rounds late starts: exact for the frames, and fine for sound
            unit = source.stream.time_base.denominator
            options["movie_timescale"] = str(unit * math.ceil(48000 / unit))
            if any(name.lower().startswith("com.") for name in tags):  # of phones: com.apple.quicktime.make
                options["movflags"] = "+use_metadata_tags"
        with av.open(str(path.absolute()), "w", format=settings.muxer, options=options) as out:
            out.metadata.update(tags)
            _fill(out, given, source, segments, settings)
    with open_file(path) as made:
        kept = {name.lower() for name in made.metadata}
    # FFmpeg gives a tag with a language a second time, as title-deu
    if lost := [name for name in tags if not {name.lower(), re.sub("-[a-z]{3}$", "", name.lower())} & kept]:
        source.warnings.append(f"{source.path}: tags that {settings.muxer} cannot hold are not kept: {', '.join(lost)}")


def _fill(out: Any, given: Any, source: Source, segments: Segments, settings: Settings) -> None:
    streams = {}
    for stream in given.streams:
        if stream.index == source.stream.index:
            restored = _tag(_add_restored(out, source, segments, settings), stream)
        elif stream.type == "data" and ("timecode" in stream.metadata or given.chapters()):
            continue  # tracks of MOV and MP4 that the muxer writes, from a tag of the video and from the chapters
        elif settings.muxer == "matroska" and stream.disposition & Disposition.attached_pic:
            _attach(out, source.path, stream)
        elif _holds(settings.muxer, stream):
            streams[stream.index] = _tag(out.add_stream_from_template(stream, opaque=True), stream)
        else:
            source.warnings.append(
                f"{source.path}: stream {stream.index} ({stream.type}, {stream.name or 'unknown codec'}) is not "
                f"copied, because {settings.muxer} cannot hold it"
            )
    if given.chapters():
        out.set_chapters(given.chapters())
    with ordinary_priority():
        out.start_encoding()
    merged = heapq.merge(
        _restored_packets(restored, source, segments),
        _copied_packets(given, streams, source, strict=not out.format.flags & Flags.ts_nonstrict.value),
        key=lambda timed: timed[0],
    )
    end = float(source.end * source.stream.time_base)
    for time, packet in merged:
        if packet.stream is not restored:
            end = max(end, time + float((packet.duration or 0) * packet.time_base))
        out.mux(packet)
    _check_end(source, given, end)


def _check_end(source: Source, given: Any, end: float) -> None:
    """Warn if the source is shorter than its header says."""
    if given.duration is not None:
        promised = ((given.start_time or 0) + given.duration) / av.time_base
        if promised - end > SHORTER:
            source.warnings.append(
                f"{source.path}: is truncated: it ends after {end:.1f} of {promised:.1f} s, and is restored up to there"
            )


def _add_restored(out: Any, source: Source, segments: Segments, settings: Settings) -> Any:
    matrix = display_matrix(source.first)
    if matrix is not None:
        return _add_turned(out, source, segments, settings, matrix)
    encoder = new_encoder(source, settings)
    stream = out.add_stream(encoder.name, rate=source.rate)
    set_up(stream.codec_context, source, settings)
    stream.time_base = source.stream.time_base
    return stream


def _add_turned(out: Any, source: Source, segments: Segments, settings: Settings, matrix: bytes) -> Any:
    """Add the stream of the restored video with a display matrix.

    PyAV lets no one set the matrix of a new stream, but copies that of a template. So the first packet is written into
    an MP4 in memory, whose header holds the matrix at a known place, and that file's stream is the template.
    """
    memory = io.BytesIO()
    with av.open(memory, "w", format="mp4") as stub:
        stream = stub.add_stream(new_encoder(source, settings).name, rate=source.rate)
        set_up(stream.codec_context, source, settings)
        stream.time_base = source.stream.time_base
        with ordinary_priority():
            stub.start_encoding()
        header = stream.codec_context.extradata
        stub.mux(_packet(*next(segments.packets(source.end)), stream, source))
    data = bytearray(memory.getvalue())
    place = data.index(b"tkhd") + _MATRIX
    data[place : place + 36] = struct.pack(">9i", *struct.unpack("=9i", matrix))
    with av.open(io.BytesIO(data)) as stub:
        turned = out.add_stream_from_template(stub.streams.video[0], opaque=True)
    turned.codec_context.extradata = header  # as the encoder made it: the muxer knows by it how packets are framed
    turned.codec_context.framerate, turned.time_base = source.rate, source.stream.time_base
    return turned


def _attach(out: Any, path: Path, stream: Any) -> None:
    """Attach a cover picture, as Matroska has it: as a stream it would be a second video."""
    with open_file(path) as again:
        picture = next(packet for packet in again.demux(again.streams[stream.index]) if packet.size)
    kind = "png" if stream.codec_context.name == "png" else "jpeg"
    name, mime = stream.metadata.get("filename", f"cover.{kind}"), stream.metadata.get("mimetype", f"image/{kind}")
    out.add_attachment(name, mime, bytes(picture))


def _tag(stream: Any, like: Any) -> Any:
    """Give a new stream the disposition and the tags of another."""
    stream.disposition = Disposition(like.disposition)
    stream.metadata.update(_tags(like))
    return stream


def _tags(like: Any) -> dict[str, str]:
    """Return the tags of a file or stream that do not describe its encoding."""
    return {
        name: text
        for name, text in like.metadata.items()
        if name.lower() not in _OWN_TAGS and not name.startswith(_STATISTICS)
    }


def _holds(muxer: str, stream: Any) -> bool:
    """Whether a container can hold a stream as it is: found out by writing a header."""
    try:
        with av.open(io.BytesIO(), "w", format=muxer) as out:
            out.add_stream_from_template(stream, opaque=True)
            out.start_encoding()
    except (ValueError, av.error.FFmpegError):
        return False
    return True


def _restored_packets(stream: Any, source: Source, segments: Segments) -> Iterator[tuple[float, av.Packet]]:
    for encoded, times in segments.packets(source.end):
        packet = _packet(encoded, times, stream, source)
        yield float(times.decoded * packet.time_base), packet


def _packet(encoded: Encoded, times: Times, stream: Any, source: Source) -> av.Packet:
    packet = av.Packet(encoded.data)
    packet.stream, packet.time_base = stream, source.stream.time_base
    packet.pts, packet.dts, packet.duration = encoded.pts, *times
    packet.is_keyframe = encoded.key
    return packet


def _copied_packets(
    container: Any, streams: dict[int, Any], source: Source, *, strict: bool
) -> Iterator[tuple[float, av.Packet]]:
    """Yield the packets of all copied streams with their times. strict: decoding times must increase, even of sound."""
    wanted = {stream.index for stream in container.streams if stream.index in streams and stream.type != "attachment"}
    if not wanted:
        return
    last, moved = dict[int, int](), Counter[int]()
    for packet in packets(container, wanted):
        if not packet.size:  # what demux ends with
            continue
        index, stream = packet.stream.index, streams[packet.stream.index]
        packet.stream = stream
        ratio, packet.time_base = packet.time_base / stream.time_base, stream.time_base
        packet.duration = round((packet.duration or 0) * ratio)
        change = 0
        if packet.dts is not None:
            given = round(packet.dts * ratio)
            least = last[index] + (strict and stream.type not in ("subtitle", "data")) if index in last else given
            packet.dts = last[index] = in_order(given, least, packet.duration, stream.time_base)
            change = packet.dts - given
            moved[index] += change * stream.time_base > BACK
        if packet.pts is not None:
            packet.pts = round(packet.pts * ratio) + change
        time = packet.pts if packet.dts is None else packet.dts
        yield (float("-inf") if time is None else float(time * packet.time_base)), packet
    for index, count in moved.items():
        if count:
            source.warnings.append(
                f"{source.path}: packets of stream {index} whose time stamps go back and were changed: {count}"
            )
