"""Tiny clips of every kind, and restorations whose results are known."""

import io
import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from f2d.engine.restorer import Restored

av = pytest.importorskip("av", reason="needs PyAV (the extra f2d[video]), which is not installed")

QUARTER = (0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)  # display matrix: a quarter turn clockwise


def result(image: Tensor) -> Restored:
    none = torch.empty(0)
    return Restored(image, 0.0, (), none, none, none)


def identity(image: Tensor, /, *, adjust: Any = None) -> Restored:
    return result(image.clone())


def planes_at(index: int, form: Any, width: int, height: int) -> list[np.ndarray]:
    """Code values of frame `index`: smooth, different everywhere, over the whole range, and moving."""
    sizes = [(width, height)] + [(form.chroma_width(width), form.chroma_height(height))] * 2
    if form.is_rgb:
        sizes = [(width, height)] * 3
    top = 2 ** form.components[0].bits - 1
    planes = []
    for number, (w, h) in enumerate(sizes[: len(form.components)]):
        y, x = np.mgrid[0:h, 0:w]
        wave = np.sin(2 * np.pi * (x / w * (number + 1) + y / h + index / 20))
        planes.append(np.round((0.5 + 0.49 * wave) * top))
    return planes


def gentle(index: int, form: Any, width: int, height: int) -> list[np.ndarray]:
    """The same with pale colours: nothing is clamped in RGB."""
    top = 2 ** form.components[0].bits - 1
    return [np.round(0.5 * top + 0.15 * (plane - 0.5 * top)) for plane in planes_at(index, form, width, height)]


def write_planes(frame: Any, planes: Sequence[np.ndarray]) -> None:
    deep = frame.format.components[0].bits > 8
    for plane, values in zip(frame.planes, planes):
        view = np.frombuffer(plane, "<u2" if deep else np.uint8).reshape(plane.height, -1)
        view[:, : plane.width] = values


def read_planes(frame: Any) -> list[np.ndarray]:
    deep = frame.format.components[0].bits > 8
    views = [np.frombuffer(p, "<u2" if deep else np.uint8).reshape(p.height, -1)[:, : p.width] for p in frame.planes]
    return [view.copy() for view in views]


def make_clip(
    path: Path,
    *,
    count: int = 12,
    size: tuple[int, int] = (64, 48),
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    rate: int = 25,
    times: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    colour: dict[str, int] | None = None,
    context: dict[str, Any] | None = None,
    options: dict[str, str] | None = None,
    audio: Sequence[str] = (),
    subtitles: str | None = None,
    chapters: bool = False,
    title: str | None = None,
    muxer: str | None = None,
    container_options: dict[str, str] | None = None,
    picture: Any = planes_at,
) -> Path:
    """Write a clip. times: in time_base. audio: the language of each track. picture: makes the planes of a frame."""
    base = time_base or Fraction(1, rate)
    with av.open(str(path), "w", format=muxer, options=container_options or {}) as out:
        video = out.add_stream(codec, rate=rate, options=options)
        video.width, video.height, video.pix_fmt, video.codec_context.time_base = *size, pixel_format, base
        for name, value in {**(colour or {}), **(context or {})}.items():
            setattr(video.codec_context, name, value)
        tracks = [out.add_stream("aac", rate=48000, layout="mono") for _ in audio]
        for track, language in zip(tracks, audio):
            track.metadata["language"] = language
        words = out.add_mux_stream(subtitles) if subtitles else None
        if chapters:
            half = count * 500 // rate
            spans = ((0, half, "one"), (half, 2 * half, "two"))
            out.set_chapters(
                [
                    {"id": i, "start": a, "end": b, "time_base": Fraction(1, 1000), "metadata": {"title": name}}
                    for i, (a, b, name) in enumerate(spans)
                ]
            )
        if title:
            out.metadata["title"] = title
        for index in range(count):
            frame = av.VideoFrame(*size, pixel_format)
            write_planes(frame, picture(index, frame.format, *size))
            frame.pts, frame.time_base = times[index] if times else index, base
            for name, value in (colour or {}).items():
                setattr(frame, name, value)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        for track in tracks:
            _sound(out, track, count * 48000 // rate // 1024)
        if words:
            packet = av.Packet(b"\x00\x05hello" if subtitles == "mov_text" else b"hello")
            packet.stream, packet.time_base = words, Fraction(1, 1000)
            packet.pts = packet.dts = 100
            packet.duration = 200
            out.mux(packet)
    return path


def _sound(out: Any, track: Any, blocks: int) -> None:
    noise = np.random.default_rng(0)
    for block in range(blocks):
        values = (0.1 * noise.standard_normal((1, 1024))).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(values, "fltp", "mono")
        frame.sample_rate, frame.pts, frame.time_base = 48000, 1024 * block, Fraction(1, 48000)
        out.mux(track.encode(frame))
    out.mux(track.encode(None))


def turn(path: Path) -> Path:
    """Mark the video of an MP4, whose first track it is, as turned by a quarter."""
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 44
    data[place : place + 36] = struct.pack(">9i", *QUARTER)
    path.write_bytes(data)
    return path


def frames_of(path: Path | io.BytesIO) -> list[Any]:
    with av.open(str(path)) as container:
        return list(container.decode(container.streams.video[0]))


def times_of(path: Path) -> list[Fraction]:
    """The time stamps of all frames in seconds, exactly."""
    return [frame.pts * frame.time_base for frame in frames_of(path)]


def packets_of(path: Path, index: int) -> list[tuple[Fraction, bytes]]:
    """Time and content of every packet of a stream."""
    with av.open(str(path)) as container:
        found = container.demux(container.streams[index])
        return [(packet.pts * packet.time_base, bytes(packet)) for packet in found if packet.size]


def retimed(path: Path, kind: int, change: Callable[[int, int], int]) -> Path:
    """Change the time stamps of an FLV, in ms; kind: 8 for sound, 9 for pictures; change(number of the tag, time)."""
    data, at, number = bytearray(path.read_bytes()), 13, 0
    while at + 11 <= len(data):
        if data[at] == kind:
            time = change(number, int.from_bytes(data[at + 4 : at + 7], "big"))
            data[at + 4 : at + 7] = time.to_bytes(3, "big")
            number += 1
        at += 15 + int.from_bytes(data[at + 1 : at + 4], "big")
    path.write_bytes(data)
    return path
