"""EXIF from every container into every format: re-encoded, shortened where it must be, and never a reason to fail."""

import struct
import warnings

import numpy as np
import pytest
from PIL import Image

from f2d.images import ImageError, Photo, read, write, writing
from f2d.images.metadata import Metadata, without_largest
from tests.cli.conftest import smooth_pixels

RGB = smooth_pixels(20, 30)
MAKER_NOTE, USER_COMMENT = 0x927C, 0x9286


def exif_with(**sizes: int) -> Image.Exif:
    """A camera's name, a date and a place, and a maker's note and a comment of these sizes."""
    exif = Image.Exif()
    exif[271] = "Camera"
    exif.get_ifd(0x8769)[0x9003] = "2024:01:02 03:04:05"
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 30.0, 0.5)})
    for name, tag in (("note", MAKER_NOTE), ("comment", USER_COMMENT)):
        if name in sizes:
            exif.get_ifd(0x8769)[tag] = bytes(range(256)) * (sizes[name] // 256)
    loaded = Image.Exif()  # Pillow only writes sub-directories into a TIFF that were loaded
    loaded.load(exif.tobytes())
    return loaded


def assert_read_by_others(path) -> Image.Exif:
    """The block is a classic TIFF, with the camera, the date and the place."""
    with Image.open(path) as image:
        exif = image.getexif()
        if path.suffix != ".tif":
            assert image.info["exif"].removeprefix(b"Exif\0\0")[:4] in (b"II*\0", b"MM\0*")
        assert exif[271] == "Camera" and exif.get_ifd(0x8769)[0x9003] == "2024:01:02 03:04:05"
        assert exif.get_ifd(0x8825)[1] == "N" and tuple(map(float, exif.get_ifd(0x8825)[2])) == (48.0, 30.0, 0.5)
    return exif


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("big", [False, True])
def test_from_a_tiff_and_a_bigtiff(tmp_path, big, suffix):
    Image.fromarray(RGB).save(tmp_path / "a.tif", exif=exif_with(), big_tiff=big)
    assert (tmp_path / "a.tif").read_bytes()[2] == (43 if big else 42)
    assert write(read(tmp_path / "a.tif"), tmp_path / f"b{suffix}") == ()
    assert_read_by_others(tmp_path / f"b{suffix}")


def test_what_a_jpeg_has_no_room_for_is_the_largest(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.png", exif=exif_with(note=60_000, comment=20_000))
    (note,) = write(read(tmp_path / "a.png"), tmp_path / "b.jpg")
    assert note.startswith("MakerNote dropped, as EXIF data of 80")
    details = assert_read_by_others(tmp_path / "b.jpg").get_ifd(0x8769)
    assert MAKER_NOTE not in details and len(details[USER_COMMENT]) == 20_000 // 256 * 256
    assert write(read(tmp_path / "a.png"), tmp_path / "c.png") == ()
    assert MAKER_NOTE in assert_read_by_others(tmp_path / "c.png").get_ifd(0x8769)


def test_as_much_is_dropped_as_must_be():
    block, dropped = without_largest(exif_with(note=60_000, comment=20_000).tobytes(), 1000)
    assert dropped == ["MakerNote", "UserComment"] and len(block) <= 1000


@pytest.mark.parametrize(
    ("metadata", "suffix", "words"),
    [
        (Metadata(xmp=b"x" * 70_000), ".jpg", "xmp data of 70000 bytes"),
        (Metadata(comment=b"x" * 70_000), ".jpg", "comment data of 70000 bytes"),
        (Metadata(iptc=b"x" * 70_000), ".jpg", "iptc data of 70"),
        (Metadata(xmp=b"x", icc=b"y", text={"Title": "Rain"}), ".bmp", "XMP and ICC profile and text dropped"),
        (Metadata(comment=b"x"), ".webp", "comment dropped, which WEBP cannot hold"),
    ],
)
def test_what_a_format_does_not_hold_is_said(tmp_path, metadata, suffix, words):
    (note,) = write(Photo(RGB, metadata=metadata), tmp_path / f"a{suffix}")
    assert words in note
    assert read(tmp_path / f"a{suffix}").size == (30, 20)


DAMAGED = [b"Exif\0\0II*\0\x08\0\0\0\xff\xff garbage", b"Exif\0\0XX*\0", b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x0f"]
EMPTY = [b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize("exif", DAMAGED + EMPTY)
def test_damaged_exif_is_one_remark(tmp_path, exif, suffix):
    Image.fromarray(RGB).save(tmp_path / f"a{suffix}", exif=exif)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        photo = read(tmp_path / f"a{suffix}")
        write(photo, tmp_path / "b.tif")
    assert ["damaged EXIF data was dropped" in note for note in photo.notes] == [True] * (exif in DAMAGED)
    assert np.array_equal(read(tmp_path / "b.tif").levels, photo.levels)


@pytest.mark.parametrize("error", [TypeError("no"), KeyError("no"), RuntimeError("no"), OverflowError("no")])
def test_any_error_of_an_encoder_is_one_line(tmp_path, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(writing, "save_options", fail)
    with pytest.raises(ImageError, match=r"a\.png: cannot be written as PNG"):
        write(Photo(RGB), tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_a_tag_of_the_wrong_type_is_no_reason_to_fail(tmp_path):
    """Cameras write a number where text belongs, and text where a number does: here date and resolution."""
    block = b"II*\0\x08\0\0\0" + struct.pack("<H", 3)
    block += struct.pack("<HHI6sxx", 271, 2, 6, b"")[:8] + struct.pack("<I", 50)
    block += struct.pack("<HHIHH", 306, 3, 1, 7, 0) + struct.pack("<HHI4s", 282, 2, 4, b"300") + bytes(4)
    block += b"Camera"
    Image.fromarray(RGB).save(tmp_path / "a.jpg", exif=b"Exif\0\0" + block)
    photo = read(tmp_path / "a.jpg")
    for suffix in (".jpg", ".png", ".webp", ".tif"):
        write(photo, tmp_path / f"b{suffix}")
        assert np.array_equal(read(tmp_path / f"b{suffix}").levels.shape, RGB.shape)


@pytest.mark.parametrize(
    "orientation",
    [
        b'<rdf:Description tiff:Orientation="6"/>',
        b"<rdf:Description tiff:Orientation='6'/>",
        b"<rdf:Description tiff:Orientation = '6'/>",
        b"<tiff:Orientation>6</tiff:Orientation>",
        b"<tiff:Orientation>\n  6\n</tiff:Orientation>",
    ],
)
def test_xmp_says_upright_however_it_is_written(tmp_path, orientation):
    """ExifTool writes single quotes; a viewer that reads XMP would turn the upright picture again."""
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/">' + orientation + b"</x:xmpmeta>"
    Image.new("RGB", (4, 3)).save(tmp_path / "a.jpg", xmp=xmp)
    assert read(tmp_path / "a.jpg").metadata.xmp == xmp.replace(b"6", b"1")


def _resolution(image: Image.Image) -> tuple[float, float]:
    """Across and down, as the format itself says it, in dots per inch."""
    if image.format == "TIFF":
        return float(image.tag_v2[282]), float(image.tag_v2[283])
    return tuple(map(float, image.info["dpi"]))


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("source", [".jpg", ".png", ".tif"])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_the_resolutions_turn_with_the_picture(tmp_path, source, suffix, orientation):
    """A scan of 30x20 pixels at 300x150 dpi measures 0.1x0.133 inches, and turned 0.133x0.1."""
    exif = Image.Exif()
    exif[274], exif[282], exif[283], exif[296] = orientation, 300.0, 150.0, 2
    xmp = b'<x tiff:XResolution="300/1" tiff:YResolution="150/1"/>'
    options = {"xmp": xmp} if source == ".jpg" else {}
    Image.fromarray(RGB).save(tmp_path / f"a{source}", exif=exif, dpi=(300, 150), **options)
    write(read(tmp_path / f"a{source}"), tmp_path / f"b{suffix}")
    wanted = (150, 300) if orientation > 4 else (300, 150)
    with Image.open(tmp_path / f"b{suffix}") as image:
        assert image.size == ((20, 30) if orientation > 4 else (30, 20))
        assert _resolution(image) == pytest.approx(wanted, abs=0.02)  # a PNG has whole dots a metre
        tags = image.getexif()
        assert (tags[282], tags[283]) == pytest.approx(wanted, abs=0.02)
        if source == suffix == ".jpg":
            turned = xmp.replace(b"X", b"-").replace(b"Y", b"X").replace(b"-", b"Y")
            assert image.info["xmp"] == (turned if orientation > 4 else xmp)


@pytest.mark.parametrize(
    ("tags", "wanted"),
    [
        ({282: 300.0, 283: 150.0, 296: 2}, (300, 150)),
        ({282: 100.0, 283: 50.0, 296: 3}, (254, 127)),
        ({282: 300.0, 283: 300.0}, (300, 300)),  # inches, unless it says otherwise
        ({271: "Camera"}, None),
    ],
)
def test_the_resolution_of_a_jpeg_without_jfif_is_that_of_its_exif(tmp_path, tags, wanted):
    """Cameras write no JFIF header. Pillow gives the resolution across for both, and 72 dpi without a unit."""
    exif = Image.Exif()
    for tag, value in tags.items():
        exif[tag] = value
    Image.fromarray(RGB).save(tmp_path / "a.jpg", exif=exif)
    data = (tmp_path / "a.jpg").read_bytes()
    assert data[2:4] == b"\xff\xe0" and data[20:22] == b"\xff\xe1"
    (tmp_path / "a.jpg").write_bytes(data[:2] + data[20:])  # without the JFIF header
    dpi = read(tmp_path / "a.jpg").metadata.dpi
    assert dpi is None if wanted is None else dpi == pytest.approx(wanted)
