"""Restore videos frame by frame (optional extra "video": PyAV); all other streams are copied unchanged."""

from .names import (
    CODECS,
    VIDEO_SUFFIXES,
    WRITABLE_SUFFIXES,
    EncodingOptions,
    VideoError,
    is_video,
    missing_extra,
    output_name,
)

__all__ = [
    "CODECS",
    "VIDEO_SUFFIXES",
    "WRITABLE_SUFFIXES",
    "EncodingOptions",
    "VideoError",
    "is_video",
    "missing_extra",
    "output_name",
]
