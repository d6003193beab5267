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
READ_ONLY = (
    *(".3g2", ".3gp", ".asf", ".avi", ".dav", ".flv", ".m2ts", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".ts", ".vob"),
    *(".wmv", ".y4m"),
)
WRITABLE_SUFFIXES = frozenset(CONTAINERS)
VIDEO_SUFFIXES = WRITABLE_SUFFIXES | set(READ_ONLY)
CODECS = ("h264", "h265", "av1", "vp9", "ffv1")


class EncodingOptions(NamedTuple):
    """How to write a video.

    codec: one of `CODECS`; None for the first that suits container and frames. crf: quality, 0 the best; None for the
    codec's default. smoothing: time constant in seconds (`f2d.video.smoothing`), 0 for none.
    """

    codec: str | None = None
    crf: int | None = None
    smoothing: float = 0.5


class VideoError(ValueError):
    """A file cannot be read or written as a video; the message is one line with its name and the reason."""


def is_video(path: Path) -> bool:
    """Whether the suffix of `path` is that of a video; of a file without a suffix, whether it begins as MP4, Matroska
    or AVI do."""
    if path.suffix:
        return path.suffix.lower() in VIDEO_SUFFIXES
    try:
        with open(path, "rb") as file:
            head = file.read(12)
    except OSError:
        return False
    film = head[4:8] == b"ftyp" and not head[8:12].startswith((b"avi", b"hei", b"hev", b"mif", b"msf"))  # photographs
    return film or head[:4] == b"\x1aE\xdf\xa3" or (head[:4] == b"RIFF" and head[8:] == b"AVI ")


def output_name(path: Path) -> Path:
    """Return the default name of the output for the video `path`: the same, or .mkv for formats that are only read."""
    return path if path.suffix.lower() in CONTAINERS else path.with_suffix(".mkv")


def missing_extra() -> str | None:
    """Say how to install PyAV, or None if it is installed."""
    if importlib.util.find_spec("av") is not None:
        return None
    return 'restoring videos needs PyAV, which is not installed: pip install "f2d[video]"'
