"""Carry metadata (EXIF, XMP, IPTC, ICC profile, resolution, comments) from one format to another.

The orientation is applied to the pixels and reset to 1. The thumbnail, which would show the old image, and tags that
describe the layout of the old file are dropped.
"""

import re
import warnings
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

ORIENTATION, EXIF_IFD, GPS_IFD = 0x0112, 0x8769, 0x8825
XMP_TAG, IPTC_TAG, X_RESOLUTION = 700, 33723, 282
_PIXEL_WIDTH, _PIXEL_HEIGHT = 0xA002, 0xA003
_IPTC_RESOURCE = 0x0404  # Photoshop's number for IPTC, in APP13 of a JPEG
_XMP_KEYS = ("xmp", "XML:com.adobe.xmp")
# TIFF 6.0: sizes, strips, tiles, compression, colour layout; sub-files; what is carried on its own; Photoshop's layers
_LAYOUT = frozenset(
    {
        254,
        255,
        256,
        257,
        258,
        259,
        262,
        263,
        264,
        265,
        266,
        273,
        277,
        278,
        279,
        280,
        281,
        284,
        288,
        289,
        290,
        291,
        292,
        293,
    }
    | {301, 317, 318, 319, 320, 321, 322, 323, 324, 325, 330, 332, 338, 339, 340, 341, 342, 347, 529, 530, 531, 532}
    | {*range(512, 522), XMP_TAG, IPTC_TAG, 34377, 34675, 37724}
)
_JPEG_SEGMENT = 65533  # bytes that fit into a marker segment


MOST_DPI = 100_000  # larger values are damage: a PNG cannot hold 4 · 10⁹ pixels per metre


@dataclass(frozen=True)
class Metadata:
    """Metadata: exif as in JPEG with orientation 1, dpi (x, y), text of a PNG; fields the file lacks are empty."""

    exif: bytes = b""
    xmp: bytes = b""
    iptc: bytes = b""
    icc: bytes = b""
    dpi: tuple[float, float] | None = None
    comment: bytes = b""
    text: dict[str, str] = field(default_factory=dict)


def read_metadata(image: Image.Image, size: tuple[int, int]) -> Metadata:
    """Read the metadata of a loaded image whose upright size is `size` = (width, height).

    Damaged EXIF is dropped with a RuntimeWarning, as it is no reason to reject the pixels.
    """
    info = image.info
    try:
        exif = _exif(image, size)
    except Exception as error:  # Pillow's parser raises nearly anything on damaged tags
        warnings.warn(f"damaged EXIF data is dropped ({error})", RuntimeWarning, stacklevel=2)
        exif = b""
    xmp = next((info[key] for key in _XMP_KEYS if key in info), b"")
    iptc = info.get("photoshop", {}).get(_IPTC_RESOURCE, b"") if image.format in ("JPEG", "MPO") else b""
    tags = getattr(image, "tag_v2", {})
    if image.format == "TIFF":
        iptc = tags.get(IPTC_TAG, b"")
    comment, dpi = info.get("comment", b""), info.get("dpi")
    if image.format == "TIFF" and X_RESOLUTION not in tags:  # Pillow then says 1
        dpi = None
    return Metadata(
        exif=exif,
        xmp=_upright(xmp.encode() if isinstance(xmp, str) else xmp),
        iptc=iptc if isinstance(iptc, bytes) else b"",
        icc=info.get("icc_profile") or b"",
        dpi=(float(dpi[0]), float(dpi[1])) if dpi and all(0 < value <= MOST_DPI for value in dpi[:2]) else None,
        comment=comment if isinstance(comment, bytes) else b"",
        text={
            k: str(v) for k, v in getattr(image, "text", {}).items() if k not in _XMP_KEYS and not k.startswith("Raw")
        },
    )


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 if it is missing or unreadable."""
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except Exception:
        return 1
    return value if value in range(1, 9) else 1


def without_icc(metadata: Metadata) -> Metadata:
    """Drop the ICC profile, for pixels that are now in another colour space."""
    return replace(metadata, icc=b"")


def save_options(metadata: Metadata, name: str) -> dict[str, Any]:
    """Return the options with which Pillow's `save` writes `metadata` to format `name`, as far as it has room."""
    options: dict[str, Any] = {}
    if metadata.dpi and name != "WEBP":
        options["dpi"] = metadata.dpi
    if name == "BMP":
        return options
    if metadata.icc:
        options["icc_profile"] = metadata.icc
    if name == "TIFF":
        options["exif"] = _tiff_tags(metadata)
        return options
    if metadata.exif:
        options["exif"] = metadata.exif
    if name == "PNG":
        chunks = PngInfo()
        for key, value in metadata.text.items():
            chunks.add_itxt(key, value)
        if metadata.xmp:
            chunks.add_itxt(_XMP_KEYS[1], metadata.xmp.decode("utf-8", "replace"))
        options["pnginfo"] = chunks
    elif metadata.xmp:
        options["xmp"] = metadata.xmp
    if name == "JPEG":
        if metadata.comment:
            options["comment"] = metadata.comment
        if metadata.iptc:
            options["extra"] = _photoshop_segment(metadata.iptc)
        _drop_too_long(options)
    return options


def _exif(image: Image.Image, size: tuple[int, int]) -> bytes:
    exif = image.getexif()
    for tag in _LAYOUT.intersection(exif):
        del exif[tag]
    if ORIENTATION in exif:
        exif[ORIENTATION] = 1
    details = exif.get_ifd(EXIF_IFD)
    for tag, length in zip((_PIXEL_WIDTH, _PIXEL_HEIGHT), size):
        if tag in details:
            details[tag] = length
    return exif.tobytes() if len(exif) else b""


def _upright(xmp: bytes) -> bytes:
    for opening, closing in ((b'tiff:Orientation="', b'"'), (b"<tiff:Orientation>", b"</tiff:Orientation>")):
        xmp = re.sub(re.escape(opening) + rb"[0-9]" + re.escape(closing), opening + b"1" + closing, xmp)
    return xmp


def _tiff_tags(metadata: Metadata) -> Image.Exif:
    exif = Image.Exif()
    exif.load(metadata.exif)
    for tag, value in ((XMP_TAG, metadata.xmp), (IPTC_TAG, metadata.iptc)):
        if value:
            exif[tag] = value
    return exif


def _photoshop_segment(iptc: bytes) -> bytes:
    """APP13 with one resource: signature, number, empty name, length, data padded to an even length."""
    resource = b"8BIM" + _IPTC_RESOURCE.to_bytes(2, "big") + b"\0\0" + len(iptc).to_bytes(4, "big") + iptc
    data = b"Photoshop 3.0\0" + resource + b"\0" * (len(iptc) % 2)
    return b"\xff\xed" + (len(data) + 2).to_bytes(2, "big") + data if len(data) <= _JPEG_SEGMENT else b""


def _drop_too_long(options: dict[str, Any]) -> None:
    for name, overhead in (("exif", 0), ("xmp", 29), ("comment", 0)):
        if len(options.get(name, b"")) > _JPEG_SEGMENT - overhead:
            warnings.warn(
                f"{name} data of {len(options[name])} bytes does not fit into a JPEG", RuntimeWarning, stacklevel=2
            )
            del options[name]
