"""Write TIFF files with 8 and 16 bits, since Pillow has no 16-bit colour and loses EXIF when compressing (libtiff)."""

import io
import zlib
from typing import Any

import numpy as np
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from f2d.images.metadata import EXIF_IFD, GPS_IFD

_SHORT, _LONG, _UNDEFINED = 3, 4, 7


def tiff(pixels: np.ndarray, options: dict[str, Any]) -> bytes:
    """Encode [H, W, 1 to 4] uint8 or uint16 as TIFF, deflated with horizontal prediction; options: of Pillow's `save`.

    Source: TIFF 6.0, 8 (baseline RGB), 14 (prediction), 18 (ExtraSamples: 2 is unassociated alpha).
    """
    height, width, channels = pixels.shape
    rows = max(1, (1 << 20) // max(1, pixels[0].nbytes))
    strips = []
    for top in range(0, height, rows):
        strip = pixels[top : top + rows]
        differences = np.diff(strip, axis=1, prepend=np.zeros_like(strip[:, :1]))
        strips.append(zlib.compress(differences.astype(pixels.dtype.newbyteorder("<")).tobytes(), 4))
    ends = np.cumsum([len(strip) for strip in strips]).tolist()

    directory = ImageFileDirectory_v2(prefix=b"II")
    exif = options.get("exif", {})
    for tag in exif:
        directory[tag] = exif.get_ifd(tag) if tag in (EXIF_IFD, GPS_IFD) else exif[tag]
    if "icc_profile" in options:
        _set(directory, 34675, _UNDEFINED, options["icc_profile"])
    if "dpi" in options:
        directory[282], directory[283] = options["dpi"]
        _set(directory, 296, _SHORT, 2)
    for tag, kind, value in (
        (256, _LONG, width),
        (257, _LONG, height),
        (258, _SHORT, (8 * pixels.itemsize,) * channels),
        (259, _SHORT, 8),  # deflate
        (262, _SHORT, 1 if channels < 3 else 2),  # black is zero, RGB
        (273, _LONG, (0, *ends[:-1])),  # the directory adds its own length
        (277, _SHORT, channels),
        (278, _LONG, rows),
        (279, _LONG, tuple(len(strip) for strip in strips)),
        (284, _SHORT, 1),  # the channels of a pixel lie together
        (317, _SHORT, 2),  # horizontal prediction
    ):
        _set(directory, tag, kind, value)
    if channels in (2, 4):
        _set(directory, 338, _SHORT, 2)
    file = io.BytesIO()
    directory.save(file)
    return file.getvalue() + b"".join(strips)


def _set(directory: ImageFileDirectory_v2, tag: int, kind: int, value: Any) -> None:
    directory.tagtype[tag] = kind
    directory[tag] = value
