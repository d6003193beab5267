"""Names of video files and codecs, and the error that reading and writing videos raises; PyAV is not imported here."""

import importlib.util
from pathlib import Path
from typing import NamedTuple

# Suffix of an output -> the muxer of FFmpeg and the codecs to choose from, the most widely playable first
CONTAINERS = {
    ".mp4": ("mp4", ("h264", "h265", "av1", "vp9")),
    ".m4v": ("mp4", ("h264", "h265", "av1", "vp9")),
    ".mov": ("mov", ("h264", "h265")),
    ".mkv": ("matroska", ("h264", "h265", "av1", "vp9", "ffv1")),
    ".webm": ("webm", ("vp9", "av1")),
}
# Camcorders, dash cameras and older cameras write these; their videos become .mkv, which holds the streams of all
READ_ONLY = (".3gp", ".asf", ".avi", ".flv", ".m2ts", ".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".vob", ".wmv")
WRITABLE_SUFFIXES = frozenset(CONTAINERS)
VIDEO_SUFFIXES = WRITABLE_SUFFIXES | set(READ_ONLY)
CODECS = ("h264", "h265", "av1", "vp9", "ffv1")


class Wanted(NamedTuple):
    """How a video is written. codec, crf: None for the default. smoothing: seconds (see `smoothing`), 0 for none."""

    codec: str | None = None
    crf: int | None = None
    smoothing: float = 0.5


class VideoError(ValueError):
    """A file cannot be read or written as a video; the message is one line with its name and the reason."""


def is_video(path: Path) -> bool:
    """Whether the suffix of `path` is that of a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def output_name(path: Path) -> Path:
    """Return the default name of the output for the video `path`: the same, or .mkv for what is only read."""
    return path if path.suffix.lower() in CONTAINERS else path.with_suffix(".mkv")


def missing_extra() -> str | None:
    """Say how to install PyAV, or None if it is installed."""
    if importlib.util.find_spec("av") is not None:
        return None
    return 'restoring videos needs PyAV, which is not installed: pip install "f2d[video]"'
