"""Choose a codec and set up its encoder."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import torch
from av.codec.context import Flags

from . import hdr
from .frames import display_matrix, range_tag
from .names import CODECS, CONTAINERS, VideoError
from .source import Source


class Encoder(NamedTuple):
    """An encoder of FFmpeg: its default quality (crf), the largest, options that are always set, and the option that
    takes static HDR metadata, if there is one."""

    name: str
    crf: int | None
    largest: int
    options: dict[str, str]
    parameters: str | None = None


# x265 and SVT-AV1 would write their logs to the terminal
os.environ.setdefault("SVT_LOG", "1")
# x264 (core 165) reads memory that it has not set in its AVX-512 code of --mbtree: the same frames gave several files
_X264 = {"x264-params": "asm=avx2"} if torch.backends.cpu.get_cpu_capability() == "AVX512" else {}
# Qualities at which the loss is hard to see
ENCODERS = {
    "h264": Encoder("libx264", 18, 51, _X264),
    "h265": Encoder("libx265", 20, 51, {"x265-params": "log-level=none"}, "x265-params"),
    "av1": Encoder("libsvtav1", 24, 63, {"preset": "6"}, "svtav1-params"),
    "vp9": Encoder("libvpx-vp9", 24, 63, {"b": "0", "row-mt": "1", "cpu-used": "2"}),
    "ffv1": Encoder("ffv1", None, 0, {"level": "3", "slicecrc": "1"}),
}
assert tuple(ENCODERS) == CODECS
_WITH_ASPECT = ("h264", "h265")  # whose own header has the aspect of the pixels: PyAV cannot set it in Matroska's


class Settings(NamedTuple):
    """The codec of an output, its quality (crf; None: lossless), and the muxer of its container."""

    codec: str
    crf: int | None
    muxer: str


def choose(source: Source, suffix: str, codec: str | None, crf: int | None) -> Settings:
    """Return the settings for an output with this suffix: the codec asked for, or the first that can encode the frames.

    Frames of more than 8 bits go to H.265 rather than H.264, whose 10-bit profile few devices play. Raises VideoError
    if there is no such encoder in this build of FFmpeg, or none for this pixel format and size in this container.
    """
    muxer, known = CONTAINERS[suffix]
    if codec is not None and codec not in known:
        raise VideoError(f"{suffix} cannot hold {codec}, only {', '.join(known)}")
    deep = source.layout.colour.bits > 8
    tried = []
    for name in [codec] if codec else sorted(known, key=lambda name: deep and name == "h264"):
        encoder = ENCODERS[name]
        if crf is not None and encoder.crf is None:
            tried.append(f"{name} is lossless and has no quality")
            continue
        if crf is not None and crf > encoder.largest:
            tried.append(f"{name} has qualities up to {encoder.largest}, got {crf}")
            continue
        settings = Settings(name, encoder.crf if crf is None else crf, muxer)
        problem = _problem(source, settings)
        if problem is None:
            return settings
        tried.append(f"{name}: {problem}")
    raise VideoError(f"cannot be encoded for {suffix} ({', '.join(tried)})")


@contextmanager
def ordinary_priority() -> Iterator[None]:
    """Keep the scheduling of this process while an encoder is opened inside the block.

    Run by root, SVT-AV1 makes its threads and the calling one real-time (SCHED_FIFO, priority 99), and processes that
    are started later inherit that: they would starve everything else on the machine.
    """
    threads = Path("/proc/self/task")
    if not threads.is_dir():  # not Linux, where SVT-AV1 does not do it
        yield
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        for thread in threads.iterdir():
            with suppress(ProcessLookupError):  # it has ended
                os.sched_setscheduler(int(thread.name), policy, parameters)


def open_encoder(source: Source, settings: Settings) -> av.VideoCodecContext:
    """Return an open encoder for the frames of `source`; raise FFmpegError or ValueError if it does not take them."""
    context = new_encoder(source, settings)
    with ordinary_priority():
        context.open()
    return context


def new_encoder(source: Source, settings: Settings) -> av.VideoCodecContext:
    """Return an encoder that is set up and not yet open."""
    context = av.CodecContext.create(ENCODERS[settings.codec].name, "w")
    set_up(context, source, settings)
    return context


def set_up(context: av.VideoCodecContext, source: Source, settings: Settings) -> None:
    """Set size, format, colour tags, time base and quality of an encoder for the frames of `source`."""
    encoder, first = ENCODERS[settings.codec], source.first
    context.width, context.height, context.pix_fmt = first.width, first.height, source.layout.pixel_format
    context.time_base, context.framerate = Fraction(source.stream.time_base), source.rate
    if source.stream.sample_aspect_ratio:
        context.sample_aspect_ratio = source.stream.sample_aspect_ratio
    context.color_range, context.colorspace = range_tag(first), first.colorspace
    context.color_trc, context.color_primaries = first.color_trc, first.color_primaries
    context.flags |= Flags.global_header
    quality = {} if settings.crf is None else {"crf": str(settings.crf)}
    context.options = encoder.options | quality
    if encoder.parameters:
        given = [encoder.options.get(encoder.parameters), *hdr.parameters(first, encoder.name)]
        if settings.codec == "av1" and settings.crf == 0:  # FFmpeg takes it for none, and SVT-AV1's own default is 35
            given.append("crf=0")
        context.options[encoder.parameters] = ":".join(filter(None, given))


def _problem(source: Source, settings: Settings) -> str | None:
    """Say why an encoder cannot be used here, or None: found out by opening it."""
    name = ENCODERS[settings.codec].name
    try:
        codec = av.Codec(name, "w")
    except av.codec.codec.UnknownCodecError:
        return f"this build of FFmpeg lacks {name}"
    formats = [form.name for form in codec.video_formats or []]
    if source.layout.pixel_format not in formats:
        return f"{name} does not take {source.layout.pixel_format}"
    if settings.codec == "ffv1" and display_matrix(source.first):  # see muxing: its template would have to be an MP4
        return "the rotation of the video cannot be stored with it"
    square = abs((source.stream.sample_aspect_ratio or 1) - 1) < 0.01  # 1280:1281 comes from a rounded width
    if not square and settings.muxer in ("matroska", "webm") and settings.codec not in _WITH_ASPECT:
        return "pixels that are not square cannot be stored with it here, unlike in .mp4"
    try:
        open_encoder(source, settings)
    except (av.error.FFmpegError, ValueError):
        return f"{name} does not take {source.first.width}x{source.first.height} {source.layout.pixel_format}"
    return None
