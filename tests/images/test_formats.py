"""Every format in every mode, and what a file says about its picture, through `read` and `write`."""

import io
import warnings

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, IptcImagePlugin
from PIL.PngImagePlugin import PngInfo
from PIL.TiffImagePlugin import IFDRational

from f2d.images import ImageError, Photo, read, write
from f2d.images.formats import FORMATS
from tests.cli.conftest import smooth_pixels

RGB = smooth_pixels(20, 30)
ALPHA = np.arange(600, dtype=np.uint32).reshape(20, 30)
KINDS = {
    "grey8": Photo(RGB[..., :1]),
    "rgb8": Photo(RGB),
    "grey-alpha8": Photo(RGB[..., :1], (ALPHA % 256).astype(np.uint8)),
    "rgba8": Photo(RGB, (ALPHA % 256).astype(np.uint8)),
    "grey16": Photo(RGB[..., :1].astype(np.uint16) * 251),
    "rgb16": Photo(RGB.astype(np.uint16) * 251),
    "rgba16": Photo(RGB.astype(np.uint16) * 251, (ALPHA * 109).astype(np.uint16)),
}
DEEP, ALPHA_TOO, GREY_TOO = {".png", ".tif", ".tiff"}, {".png", ".tif", ".tiff", ".webp"}, set(FORMATS) - {".webp"}
LOSSY = {suffix for suffix, format in FORMATS.items() if format.quality}


@pytest.mark.parametrize("suffix", sorted(FORMATS))
@pytest.mark.parametrize("kind", KINDS)
def test_round_trip(tmp_path, suffix, kind):
    photo, path = KINDS[kind], tmp_path / f"a{suffix}"
    if photo.alpha is not None and suffix not in ALPHA_TOO:
        with pytest.raises(ImageError, match="transparency"):
            write(photo, path)
        assert not list(tmp_path.iterdir())
        return
    write(photo, path)
    again = read(path)
    depth = photo.depth if suffix in DEEP else 8
    assert (again.depth, again.grey) == (depth, photo.grey and suffix in GREY_TOO)
    expected = np.round(photo.levels / 65535 * 255) if (photo.depth, depth) == (16, 8) else photo.levels
    difference = np.abs(again.levels.astype(int) - expected)
    assert difference.mean() < 3 if suffix in LOSSY else difference.max() == 0, difference.mean()
    if photo.alpha is not None:
        alpha = np.round(photo.alpha / 65535 * 255) if (photo.depth, depth) == (16, 8) else photo.alpha
        assert np.array_equal(again.alpha, alpha)


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_quality(tmp_path, suffix):
    for quality in (10, 95):
        write(KINDS["rgb8"], tmp_path / f"{quality}{suffix}", quality=quality)
    write(KINDS["rgb8"], tmp_path / f"default{suffix}")
    assert (tmp_path / f"10{suffix}").stat().st_size < (tmp_path / f"95{suffix}").stat().st_size
    assert (tmp_path / f"default{suffix}").read_bytes() == (tmp_path / f"95{suffix}").read_bytes()


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6" dc:title="rain"/></x:xmpmeta>'
IPTC = b"\x1c\x02\x05\x00\x04Rain\x1c\x02\x50\x00\x03Ada"  # title, author


def with_everything(path) -> None:
    """A sideways file with every kind of metadata that Pillow writes into its format."""
    exif = Image.Exif()
    exif[274], exif[271], exif[306] = 6, "Camera", "2024:01:02 03:04:05"
    exif.get_ifd(0x8769).update({0x829A: IFDRational(1, 250), 0xA002: 30, 0xA003: 20, 0x9286: b"ASCII\0\0\0hello"})
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 51.0, 30.5)})
    segment = b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0" + len(IPTC).to_bytes(4, "big") + IPTC + b"\0" * (len(IPTC) % 2)
    options = {"exif": exif, "icc_profile": SRGB, "dpi": (300, 150)}
    suffix = path.suffix
    if suffix == ".jpg":
        segment = b"\xff\xed" + (len(segment) + 2).to_bytes(2, "big") + segment
        options |= {"xmp": XMP, "comment": b"wet", "extra": segment}
    elif suffix == ".webp":
        options |= {"xmp": XMP}
    elif suffix == ".tif":
        plain, exif = exif, Image.Exif()
        exif.load(plain.tobytes())
        options["exif"] = exif
        exif[700], exif[33723] = XMP, IPTC
    elif suffix == ".png":
        options["pnginfo"] = PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", XMP.decode())
        options["pnginfo"].add_text("Title", "Rain")
    Image.fromarray(RGB).save(path, **options)


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("target", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("source", [".jpg", ".png", ".webp", ".tif"])
def test_metadata_goes_from_format_to_format(tmp_path, source, target, depth):
    with_everything(tmp_path / f"a{source}")
    photo = read(tmp_path / f"a{source}")
    assert photo.size == (20, 30)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write(photo.as_depth(depth), tmp_path / f"b{target}")
    with Image.open(tmp_path / f"b{target}") as image:
        image.load()
        exif = image.getexif()
        assert image.size == (20, 30)
        assert exif.get(274, 1) == 1 and exif[271] == "Camera" and exif[306] == "2024:01:02 03:04:05"
        details, place = exif.get_ifd(0x8769), exif.get_ifd(0x8825)
        assert (details[0xA002], details[0xA003]) == (20, 30)
        assert float(details[0x829A]) == 1 / 250 and details[0x9286] == b"ASCII\0\0\0hello"
        assert place[1] == "N" and tuple(map(float, place[2])) == (48.0, 51.0, 30.5)
        assert image.info["icc_profile"] == SRGB
        assert b'dc:title="rain"' in image.info["xmp"] and b'Orientation="6"' not in image.info["xmp"]
        if source != ".webp" and target != ".webp":  # which has no place for the resolution but EXIF
            assert np.allclose(image.info["dpi"], (150, 300), atol=0.1)  # turned, as the sides are
        if {source, target} <= {".jpg", ".tif"}:
            assert IptcImagePlugin.getiptcinfo(image) == {(2, 5): b"Rain", (2, 80): b"Ada"}
        if source == target == ".jpg":
            assert image.info["comment"] == b"wet"
        if source == target == ".png":
            assert image.text["Title"] == "Rain"


def test_a_thumbnail_of_the_old_picture_is_dropped(tmp_path):
    exif = Image.Exif()
    exif[271] = "Camera"
    plain = exif.tobytes()
    ifd1 = b"\0\x01" + b"\x01\x03\0\x03\0\0\0\x01\0\x06\0\0" + b"\0\0\0\0"
    end = 6 + 8 + 2 + 12  # header, count, one entry: where the offset of the next directory lies
    data = bytearray(plain)
    data[end : end + 4] = (len(plain) - 6).to_bytes(4, "big")
    Image.fromarray(RGB).save(tmp_path / "a.jpg", exif=bytes(data) + ifd1)
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.getexif().get_ifd(ExifTags.IFD.IFD1)
    write(read(tmp_path / "a.jpg"), tmp_path / "b.jpg")
    with Image.open(tmp_path / "b.jpg") as image:
        assert image.getexif()[271] == "Camera" and not image.getexif().get_ifd(ExifTags.IFD.IFD1)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_damaged_metadata_is_no_reason_to_refuse(tmp_path, suffix):
    Image.fromarray(RGB).save(tmp_path / f"a{suffix}", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff garbage")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        photo = read(tmp_path / f"a{suffix}")
        write(photo, tmp_path / f"b{suffix}")
    assert read(tmp_path / f"b{suffix}").size == (30, 20)


def test_metadata_too_long_for_jpeg_is_left_out_in_words(tmp_path):
    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", "x" * 70_000)
    Image.fromarray(RGB).save(tmp_path / "a.png", pnginfo=info)
    (note,) = write(read(tmp_path / "a.png"), tmp_path / "b.jpg")
    assert "xmp data of 70000 bytes" in note
    assert read(tmp_path / "b.jpg").metadata.xmp == b""


def test_cmyk_with_a_profile_is_converted_by_it(tmp_path):
    """No CMYK profile is at hand; one that cannot be used falls back, in words, and is not written."""
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "a.tif", icc_profile=SRGB)
    photo = read(tmp_path / "a.tif")
    assert photo.notes == ("an unusable ICC profile was dropped",)
    assert photo.metadata.icc == b"" and photo.levels.reshape(-1, 3).mean(0).tolist() == [255, 0, 0]


def test_grey_stays_grey_and_palettes_become_rgb(tmp_path):
    Image.fromarray(RGB[..., 0]).convert("1").save(tmp_path / "bilevel.png")
    Image.fromarray(RGB).quantize(16).save(tmp_path / "palette.png")
    assert read(tmp_path / "bilevel.png").grey and not read(tmp_path / "palette.png").grey


def test_frames_are_counted(tmp_path):
    pages = [Image.fromarray(RGB), Image.fromarray(RGB[::-1])]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    photo = read(tmp_path / "a.tif")
    assert photo.frames == 2 and np.array_equal(photo.levels, RGB)


@pytest.mark.parametrize("others, words", [(1, "1 further picture of"), (2, "2 further pictures of")])
def test_what_a_camera_stores_beside_the_picture_is_said(tmp_path, others, words):
    Image.fromarray(RGB).save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[Image.fromarray(RGB)] * others)
    photo = read(tmp_path / "a.jpg")
    assert photo.frames == 1 and len(photo.notes) == 1 and words in photo.notes[0]
    Image.fromarray(RGB).save(tmp_path / "b.jpg")
    assert read(tmp_path / "b.jpg").notes == ()


@pytest.mark.parametrize("mark", ['GCamera:MotionPhoto="1"', "GCamera:MicroVideo='1'", "<Camera:MotionPhoto>1</"])
def test_the_video_of_a_motion_photo_is_said_to_be_dropped(tmp_path, mark):
    """Nothing said so, and the output's XMP still promised a video behind its pixels."""
    Image.fromarray(RGB).save(tmp_path / "a.jpg", xmp=f"<x:xmpmeta {mark} GCamera:MotionPhotoVersion='1'>".encode())
    with open(tmp_path / "a.jpg", "ab") as file:
        file.write(b"\0\0\0\x18ftypmp42")
    photo = read(tmp_path / "a.jpg")
    assert photo.notes == ("the video of this motion photo was dropped",)
    write(photo, tmp_path / "b.jpg")
    again = read(tmp_path / "b.jpg")
    kept = f"<x:xmpmeta {mark.replace('1', '0')} GCamera:MotionPhotoVersion='1'>"
    assert again.notes == () and again.metadata.xmp == kept.encode()


@pytest.mark.parametrize("bits", [10, 12])
def test_a_jpeg_of_more_than_8_bits_is_named(tmp_path, bits):
    Image.fromarray(RGB).save(tmp_path / "a.jpg", exif=b"Exif\0\0" + bytes(60_000))
    data = bytearray((tmp_path / "a.jpg").read_bytes())
    data[data.index(b"\xff\xc0") + 4] = bits
    (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(ImageError, match=f"a JPEG with {bits} bits per channel is not supported"):
        read(tmp_path / "a.jpg")


def test_texts_of_a_png_that_hold_iptc_are_kept(tmp_path):
    info = PngInfo()
    info.add_text("Raw profile type iptc", "\niptc\n       4\n38425052\n", zip=True)
    info.add_text("Title", "kept")
    Image.fromarray(RGB).save(tmp_path / "a.png", pnginfo=info)
    write(read(tmp_path / "a.png"), tmp_path / "b.png")
    with Image.open(tmp_path / "b.png") as image:
        assert image.text == {"Raw profile type iptc": "\niptc\n       4\n38425052\n", "Title": "kept"}
    assert write(read(tmp_path / "a.png"), tmp_path / "b.jpg") == ("text dropped, which JPEG cannot hold",)


def test_programs_are_not_run_for_postscript(tmp_path):
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n")
    with pytest.raises(ImageError, match="is not a readable image"):
        read(tmp_path / "a.png")


def test_changes_are_in_grey_levels():
    one, two = (Photo(np.full((300, 4, 3), value, np.uint8)) for value in (10, 20))
    two.levels[299, 3, 2] = 110
    assert two.change_to(two) == (0, 0)
    mean, largest = one.change_to(two)
    assert largest == 100 and mean == pytest.approx(10 + 90 / 3600)
    assert one.as_depth(16).change_to(two.as_depth(16)).largest == pytest.approx(100)


def test_written_bytes_are_of_the_format(tmp_path):
    names = {".jpg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".tif": "TIFF", ".bmp": "BMP"}
    for suffix, name in names.items():
        write(KINDS["rgb8"], tmp_path / f"a{suffix}")
        with Image.open(io.BytesIO((tmp_path / f"a{suffix}").read_bytes())) as image:
            assert image.format == name


@pytest.mark.parametrize("count", [60, pytest.param(3000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".bmp"])
def test_damage_is_an_image_error_or_a_picture(tmp_path, suffix, count):
    """Bytes changed at random, most of them in the headers."""
    random = np.random.default_rng(len(suffix))
    with_everything(tmp_path / f"everything{suffix}")
    files = [(tmp_path / f"everything{suffix}").read_bytes()]
    for kind in ("rgb8", "grey8", "rgb16"):
        write(KINDS[kind], tmp_path / f"{kind}{suffix}")
        files.append((tmp_path / f"{kind}{suffix}").read_bytes())
    refused = 0
    for i in range(count):
        data = bytearray(files[i % len(files)])
        for _ in range(random.integers(1, 6)):
            data[random.integers(0, min(len(data), 400) if random.random() < 0.7 else len(data))] = random.integers(256)
        path = tmp_path / f"damaged{suffix}"
        path.write_bytes(data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                write(read(path), tmp_path / "written.png")
            except ImageError as error:
                refused += 1
                assert str(error).startswith(str(path)) and "\n" not in str(error)
    assert 0 < refused < count


def test_the_layout_of_a_tiff_is_no_metadata(tmp_path):
    with_everything(tmp_path / "a.tif")
    write(read(tmp_path / "a.tif"), tmp_path / "b.jpg")
    with Image.open(tmp_path / "b.jpg") as image:
        assert not {256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 700, 33723, 34675} & set(image.getexif())


@pytest.mark.parametrize("suffix", sorted(ALPHA_TOO))
def test_colours_below_full_transparency_stay(tmp_path, suffix):
    write(Photo(RGB, np.zeros(RGB.shape[:2], np.uint8)), tmp_path / f"a{suffix}")
    assert np.abs(read(tmp_path / f"a{suffix}").levels.astype(int) - RGB).mean() < 4


@pytest.mark.parametrize("suffix", ["tif", "png"])
def test_a_tiff_without_a_resolution_gets_none(tmp_path, suffix):
    """Pillow reads one dot per inch where the file says nothing."""
    Image.new("RGB", (4, 3)).save(tmp_path / "plain.tif")
    write(read(tmp_path / "plain.tif"), tmp_path / f"out.{suffix}")
    with Image.open(tmp_path / f"out.{suffix}") as image:
        assert 282 not in image.tag_v2 if suffix == "tif" else "dpi" not in image.info
