"""Restore videos frame by frame (optional extra "video": PyAV); streams besides the pictures are copied as they are."""

from .names import CODECS, VIDEO_SUFFIXES, WRITABLE_SUFFIXES, VideoError, Wanted, is_video, missing_extra, output_name

__all__ = [
    "CODECS",
    "VIDEO_SUFFIXES",
    "WRITABLE_SUFFIXES",
    "VideoError",
    "Wanted",
    "is_video",
    "missing_extra",
    "output_name",
]
