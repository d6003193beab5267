"""Carry metadata (EXIF, XMP, IPTC, ICC profile, resolution, comments) from one format to another.

The orientation is applied to the pixels and reset to 1; the resolutions across and down change places with the sides.
The thumbnail, which would show the old image, and tags that describe the layout of the old file are dropped.
"""

import re
from dataclasses import dataclass, field
from typing import Any

from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from f2d.images.colour_chunks import undescribed
from f2d.images.tiff_colours import COLOUR_TAGS

ORIENTATION, EXIF_IFD, GPS_IFD = 0x0112, 0x8769, 0x8825
XMP_TAG, IPTC_TAG, X_RESOLUTION = 700, 33723, 282
_ICC_TAG, _RESOLUTION_UNIT = 34675, 296
_PIXEL_WIDTH, _PIXEL_HEIGHT = 0xA002, 0xA003
_IPTC_RESOURCE = 0x0404  # Photoshop's number for IPTC, in APP13 of a JPEG
_XMP_KEYS = ("xmp", "XML:com.adobe.xmp")
_ELSEWHERE = (*_XMP_KEYS, "Raw profile type exif", "Raw profile type APP1")  # texts of a PNG that hold EXIF or XMP
# TIFF 6.0: sizes, strips, tiles, compression, colour layout; sub-files; what is carried on its own; Photoshop's layers
_LAYOUT = {*range(254, 260), *range(262, 267), 273, *range(277, 282), 284, *range(288, 294), 301, *range(317, 326)}
_LAYOUT |= {330, 332, *range(338, 343), 347, *range(512, 522), *range(529, 533), XMP_TAG, IPTC_TAG, 34377, 34675, 37724}
_JPEG_SEGMENT = 65533  # bytes that fit into a marker segment


_WORDS = {"exif": "EXIF", "xmp": "XMP", "iptc": "IPTC", "icc": "ICC profile", "comment": "comment", "text": "text"}
_HELD = {
    "JPEG": ("exif", "xmp", "iptc", "icc", "comment"),
    "PNG": ("exif", "xmp", "icc", "text", "comment"),
    "WEBP": ("exif", "xmp", "icc"),
    "TIFF": ("exif", "xmp", "iptc", "icc"),
    "BMP": (),
}
# Google's marks of a photo that a video is appended to
_MOTION = re.compile(rb"(Camera:(?:MotionPhoto|MicroVideo)\s*(?:=\s*[\"']|>)\s*)1")
_EMPTY_EXIF = re.compile(rb"(Exif\0\0)?((II|MM).{6}\0*)?", re.DOTALL)
MOST_DPI = 100_000  # larger values are damage: a PNG cannot hold 4 · 10⁹ pixels per metre


@dataclass(frozen=True)
class Metadata:
    """Metadata: exif as in JPEG with orientation 1, dpi (x, y), text of a PNG; fields the file lacks are empty.

    png: the chunks of a PNG that describe its colours, which another PNG keeps. made: icc was made from these, or from
    other numbers in the file, for formats that hold nothing else.
    """

    exif: bytes = b""
    xmp: bytes = b""
    iptc: bytes = b""
    icc: bytes = b""
    dpi: tuple[float, float] | None = None
    comment: bytes = b""
    text: dict[str, str] = field(default_factory=dict)
    png: dict[bytes, bytes] = field(default_factory=dict)
    made: bool = False


def read_metadata(image: Image.Image, size: tuple[int, int], *, turned: bool = False) -> tuple[Metadata, str]:
    """Read the metadata of a loaded image whose upright size is `size` = (width, height); return also what is dropped.

    turned: whether the orientation that was applied exchanged its sides. Damaged EXIF is dropped with a note, as it is
    no reason to reject the pixels. The video of a motion photo is not among what is read, so XMP does not promise it
    any more.
    """
    info, note = image.info, ""
    try:
        exif = _exif(image, size, turned)
    except Exception as error:  # Pillow's parser raises nearly anything on damaged tags
        exif, note = b"", f"damaged EXIF data was dropped ({error})"
    xmp = next((info[key] for key in _XMP_KEYS if key in info), b"")
    iptc = info.get("photoshop", {}).get(_IPTC_RESOURCE, b"") if image.format in ("JPEG", "MPO") else b""
    comment, dpi, icc = info.get("comment", b""), info.get("dpi"), info.get("icc_profile")
    if image.format == "TIFF":
        tags = getattr(image, "tag_v2", {})
        iptc, icc, dpi = tags.get(IPTC_TAG, b""), tags.get(_ICC_TAG), _tiff_dpi(tags)
    xmp, videos = _MOTION.subn(rb"\g<1>0", _bytes(xmp.encode() if isinstance(xmp, str) else xmp))
    note = "; ".join(filter(None, (note, "the video of this motion photo was dropped" if videos else "")))
    if image.format in ("JPEG", "MPO") and info.get("jfif_unit") not in (1, 2):
        # from EXIF, which is upright by now: Pillow takes the one across for both, and 72 without a unit
        tags = Image.Exif()
        tags.load(exif)
        dpi = _tiff_dpi(tags)
    elif turned and dpi:
        dpi = dpi[1::-1]
    metadata = Metadata(
        exif=exif,
        xmp=_upright(xmp, turned),
        iptc=_bytes(iptc),
        icc=_bytes(icc),
        dpi=(float(dpi[0]), float(dpi[1])) if dpi and all(0 < value <= MOST_DPI for value in dpi[:2]) else None,
        comment=_bytes(comment),
        text={k: str(v) for k, v in getattr(image, "text", {}).items() if k not in _ELSEWHERE},
    )
    return metadata, note


def orientation(image: Image.Image, *, decode: bool = True) -> int:
    """Return the EXIF orientation, 1 to 8; 1 if it is missing or unreadable.

    decode: whether a PNG is decoded for EXIF that follows its pixels.
    """
    try:
        exif = image.getexif() if decode else Image.Image.getexif(image)
        value = exif.get(ORIENTATION, 1)
    except Exception:
        return 1
    return value if value in range(1, 9) else 1


def save_options(metadata: Metadata, name: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the options with which Pillow's `save` writes `metadata` to format `name`, and notes on what it drops."""
    options: dict[str, Any] = {}
    lost = [words for kind, words in _WORDS.items() if getattr(metadata, kind) and kind not in _HELD[name]]
    notes = [f"{' and '.join(lost)} dropped, which {name} cannot hold"] if lost else []
    if name != "PNG" and not metadata.icc and (curve := undescribed(metadata.png)):
        notes.append(f"its colours ({curve}) are only described in a PNG")
    if metadata.dpi and name != "WEBP":
        options["dpi"] = metadata.dpi
    if name == "BMP":
        return options, tuple(notes)
    if metadata.icc and not (name == "PNG" and metadata.made):
        options["icc_profile"] = metadata.icc
    if name == "TIFF":
        options["exif"] = _tiff_tags(metadata)
        return options, tuple(notes)
    if metadata.exif:
        options["exif"] = metadata.exif
    if name == "PNG":
        chunks, text = PngInfo(), dict(metadata.text)
        if metadata.comment:
            text.setdefault("Comment", metadata.comment.decode("utf-8", "replace"))
        for key, value in text.items():
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
        notes += _shorten(options)
    return options, tuple(notes)


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else b""


def _tiff_dpi(tags: Any) -> tuple[float, float] | None:
    unit = {2: 1.0, 3: 2.54}.get(tags.get(_RESOLUTION_UNIT, 2))
    if unit is None or X_RESOLUTION not in tags or X_RESOLUTION + 1 not in tags:
        return None
    try:
        return unit * float(tags[X_RESOLUTION]), unit * float(tags[X_RESOLUTION + 1])
    except (TypeError, ValueError):  # text or several numbers
        return None


def _exif(image: Image.Image, size: tuple[int, int], turned: bool) -> bytes:
    exif, stored = Image.Exif(), image.info.get("exif")
    if stored:
        exif.load(stored)  # Pillow's own copy is empty after an error, which `orientation` has met first
        if not exif and not _EMPTY_EXIF.fullmatch(stored):
            raise ValueError("none of its tags can be read")
    else:
        exif = image.getexif()
    for tag in (_LAYOUT if image.format == "TIFF" else _LAYOUT - COLOUR_TAGS).intersection(exif):
        del exif[tag]
    if ORIENTATION in exif:
        exif[ORIENTATION] = 1
    across, down = X_RESOLUTION, X_RESOLUTION + 1
    if turned and across in exif and down in exif:
        exif[across], exif[down] = exif[down], exif[across]
    details = exif.get_ifd(EXIF_IFD)
    for tag, length in zip((_PIXEL_WIDTH, _PIXEL_HEIGHT), size):
        if tag in details:
            details[tag] = length
    exif.bigtiff = False  # other formats only hold the classic layout
    return exif.tobytes() if len(exif) else b""


def _upright(xmp: bytes, turned: bool) -> bytes:
    """Set the orientation (an attribute in either kind of quotes, or an element) to 1; swap resolutions if turned."""
    if turned:
        other = {b"X": b"Y", b"Y": b"X"}
        xmp = re.sub(rb"(?<=tiff:)[XY](?=Resolution\b)", lambda axis: other[axis[0]], xmp)
    return re.sub(rb"(tiff:Orientation\s*(?:=\s*[\"']|>)\s*)[0-9]", rb"\g<1>1", xmp)


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
    return b"\xff\xed" + (len(data) + 2).to_bytes(2, "big") + data if len(data) <= _JPEG_SEGMENT else data


def _shorten(options: dict[str, Any]) -> list[str]:
    """Make every kind of metadata fit into a marker segment of a JPEG; return notes on what that drops."""
    notes = []
    exif, dropped = options.get("exif", b""), list[str]()
    if len(exif) > _JPEG_SEGMENT:
        options["exif"], dropped = without_largest(exif, _JPEG_SEGMENT)
        notes.append(f"{', '.join(dropped)} dropped, as EXIF data of {len(exif)} bytes does not fit into a JPEG")
    for name, overhead in (("xmp", 29), ("comment", 0), ("extra", -4)):
        if len(options.get(name, b"")) > _JPEG_SEGMENT - overhead:
            words = {"extra": "iptc"}.get(name, name)
            notes.append(f"{words} data of {len(options[name])} bytes does not fit into a JPEG and was dropped")
            del options[name]
    return notes


def without_largest(exif: bytes, most: int) -> tuple[bytes, list[str]]:
    """Drop the largest values of an EXIF block until it has at most `most` bytes; return it and the names dropped.

    These are a camera's private notes and embedded pictures: dates, places and settings have a few bytes each.
    """
    block, dropped = Image.Exif(), list[str]()
    block.load(exif)
    values: dict[Any, int] = {tag: _length(block[tag]) for tag in block if tag not in (EXIF_IFD, GPS_IFD)}
    for ifd in (EXIF_IFD, GPS_IFD):
        values |= {(ifd, tag): _length(value) for tag, value in block.get_ifd(ifd).items()}
    for key in sorted(values, key=lambda key: -values[key]):
        if len(exif) <= most:
            break
        tag = key[1] if isinstance(key, tuple) else key
        del (block.get_ifd(key[0]) if isinstance(key, tuple) else block)[tag]
        dropped.append(ExifTags.TAGS.get(tag, f"tag {tag}"))
        exif = block.tobytes()
    return exif, dropped


def _length(value: Any) -> int:
    """Return about how many bytes a value takes."""
    return len(value) if isinstance(value, (bytes, str)) else 8 * len(value) if isinstance(value, tuple) else 8
