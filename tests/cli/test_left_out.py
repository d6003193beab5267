"""A folder of a phone: what is read, what is left out and said to be, and the exit code."""

import struct
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, features

from f2d.images import formats, read
from tests.cli.conftest import assert_one_line_error, smooth_pixels
from tests.images.png_reference import chunk

PICTURE = Image.fromarray(smooth_pixels(24, 32))
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0heicmif1" + bytes(100)


@pytest.fixture
def phone(tmp_path):
    """A folder of a phone with pictures in every spelling, and a file that is none."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.jpg", "b.JPEG", "c.jfif", "d.JPE"):
        PICTURE.save(folder / name, "JPEG", quality=95)
    PICTURE.save(folder / "e.gif")
    PICTURE.save(folder / "f.ppm")
    if features.check("jpg_2000"):
        PICTURE.save(folder / "g.jp2")
    if "avif" in features.modules and features.check("avif"):
        PICTURE.save(folder / "h.avif", quality=95)
    (folder / "Thumbs.db").write_bytes(b"x")
    return folder


def test_everything_that_pillow_decodes_is_read(f2d, model, phone, tmp_path):
    result = f2d("restore", phone, "-o", tmp_path / "out", "--model", model)
    assert result.exit_code == 0, result.output
    names = {path.name for path in phone.iterdir()} - {"Thumbs.db"}
    kept = {name for name in names if name[0] in "abcd"}  # the others become PNG
    assert {path.name for path in (tmp_path / "out").iterdir()} == kept | {f"{name}.png" for name in names - kept}
    assert result.stderr == "" and "ignored 1 file: 1 .db" in result.stdout
    for path in (tmp_path / "out").iterdir():
        with Image.open(path) as image:
            assert image.format == ("JPEG" if path.name in kept else "PNG")


def test_photographs_that_are_left_out_are_named_and_counted(f2d, model, phone, tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "find_spec", lambda _: None)
    for name in ("1.HEIC", "2.heic", "3.dng", "4.psd"):
        (phone / name).write_bytes(HEIC)
    result = f2d("restore", phone, "-o", tmp_path / "out", "--model", model)
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line == (
        "warning: ignored 5 files: 1 .db, 1 .dng (raw photographs must be developed to TIFF or JPEG first), 2 .heic "
        '(HEIC needs pillow-heif: pip install "f2d[heif]"), 1 .psd (this format is not supported)'
    )


def test_a_pattern_leaves_out_in_words_too(f2d, model, phone, tmp_path):
    (phone / "3.dng").write_bytes(b"II*\0")
    result = f2d("restore", phone / "*", "-o", tmp_path / "out", "--model", model)
    assert result.exit_code == 1 and "ignored 2 files: 1 .db, 1 .dng" in result.stderr


def test_heic_says_what_to_install(f2d, model, tmp_path, monkeypatch):
    (tmp_path / "a.heic").write_bytes(HEIC)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    result = f2d("restore", tmp_path / "a.heic", "-o", tmp_path / "out", "--model", model)
    assert_one_line_error(result, 1, "a.heic: HEIC needs pillow-heif", 'pip install "f2d[heif]"')


@pytest.mark.parametrize("bits", [8, 10])
def test_heic_keeps_its_depth(tmp_path, bits):
    pillow_heif = pytest.importorskip("pillow_heif")
    pixels = np.asarray(PICTURE).astype(np.uint16) * 257
    given = pixels if bits > 8 else np.asarray(PICTURE)
    file = pillow_heif.from_bytes("RGB;16" if bits > 8 else "RGB", PICTURE.size, given.tobytes())
    file.save(tmp_path / "a.heic", quality=-1, chroma=444, matrix_coefficients=0)
    photo = read(tmp_path / "a.heic")
    assert photo.depth == (16 if bits > 8 else 8) and photo.notes == ()
    levels = photo.levels.astype(np.float64) / (65535 if bits > 8 else 255)
    assert np.abs(levels * 255 - np.asarray(PICTURE)).max() <= 1


@pytest.mark.parametrize("format", ["JPEG2000", "AVIF"])
def test_a_depth_that_is_reduced_is_said(f2d, model, tmp_path, format):
    """Pillow decodes these to 8 bits. The headers are changed, as Pillow writes no more than 8."""
    path = tmp_path / ("a.jp2" if format == "JPEG2000" else "a.avif")
    try:
        PICTURE.save(path, format, **({"no_jp2": True} if format == "JPEG2000" else {}))
    except (KeyError, OSError):
        pytest.skip(f"this Pillow has no {format}")
    from f2d.images.headers import header_of

    with path.open("rb") as file:
        assert header_of(file).bits == 8
    data = bytearray(path.read_bytes())
    if format == "JPEG2000":
        for component in range(3):
            data[42 + 3 * component] = 11  # 12 bits
        expected = 12
    else:
        data[data.index(b"av1C") + 6] |= 64
        expected = 10
    path.write_bytes(data)
    with path.open("rb") as file:
        assert header_of(file).bits == expected
    if format == "JPEG2000":
        result = f2d("restore", path, "-o", tmp_path / "out", "--model", model)
        assert "(12 bits became 8)" in result.stdout


@pytest.mark.parametrize("name", ["damaged exif", "damaged fax"])
def test_libraries_print_nothing_beside_the_line(model, tmp_path, name):
    """Python's warnings, Pillow's log and what libtiff prints to C's stderr."""
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "a.tif"
    if name == "damaged exif":
        PICTURE.save(path.with_suffix(".jpg"), exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff garbage")
    else:
        PICTURE.convert("1").save(path, compression="group4")
        data = bytearray(path.read_bytes())
        with Image.open(path) as image:
            (start,) = image.tag_v2[273]
        data[start : start + 30] = b"\xff" * 30
        path.write_bytes(data)
    command = [sys.executable, "-m", "f2d", "restore", tmp_path / "in", "-o", tmp_path / "out", "--model", model]
    done = subprocess.run(command, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if str(tmp_path / "out") in line]
    assert len(lines) + len(done.stderr.splitlines()) == 1, (done.stdout, done.stderr)
    assert done.returncode == (0 if lines else 1)


def header_only(suffix: str, width: int, height: int) -> bytes:
    """The start of a file that claims this size, without its pixels."""
    if suffix == ".png":
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"\x78\x9c") + chunk(b"IEND", b"")
    if suffix == ".bmp":
        return (
            b"BM" + struct.pack("<IHHIIiiHHIIiiII", 60, 0, 0, 54, 40, width, height, 1, 24, 0, 6, 0, 0, 0, 0) + b"x" * 6
        )
    if suffix == ".gif":
        frame = struct.pack("<BHHHHB", 0x2C, 0, 0, width, height, 0)
        return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6) + frame + b"\x02\x01\x00\x00;"
    if suffix == ".webp":
        size = b"".join((n - 1).to_bytes(3, "little") for n in (width, height))
        return b"RIFF" + struct.pack("<I", 40) + b"WEBPVP8X" + struct.pack("<II", 10, 0) + size + bytes(22)
    if suffix == ".ppm":
        return f"P6 {width} {height} 65535\n".encode() + b"x" * 6
    if suffix == ".tif":
        tags = {256: width, 257: height, 258: 16, 259: 8, 262: 2, 273: 8, 277: 3, 278: height, 279: 4}
        entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
        return b"II*\0" + struct.pack("<IIH", 12, 0, len(tags)) + entries + bytes(4)
    start = b"\xff\xd8\xff\xc0" + struct.pack(">HBHHB", 17, 8, height, width, 3)
    return start + b"\1\x11\0\2\x11\0\3\x11\0" + b"\xff\xda\0\x0c\3\1\0\2\0\3\0\0\x3f\0" + b"\xff\xd9"


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".gif", ".webp", ".ppm", ".tif", ".jpg"])
def test_what_does_not_fit_is_known_from_the_header(f2d, model, tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(header_only(suffix, 13_000, 13_000))
    result = f2d("restore", path, "-o", tmp_path / "out", "--model", model, "--max-memory", "3G")
    assert_one_line_error(result, 1, path.name, "13000x13000 does not fit into 3072 MiB")
    path.write_bytes(header_only(suffix, 60_000, 60_000) if suffix != ".webp" else header_only(suffix, 16_383, 16_383))
    result = f2d("restore", path, "-o", tmp_path / "out", "--model", model)
    assert_one_line_error(result, 1, path.name, "exceeds limit of 178956970 pixels")
