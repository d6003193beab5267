"""What is refused before it is decoded, and how memory is shared out."""

import struct
import zlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from f2d.app.limits import Limits
from f2d.engine.plan import PROGRAM
from f2d.images import ImageError, read
from tests.app.conftest import KINDS, draw


def png_without_pixels(path, width: int, height: int):
    """A header that promises width x height, and pixels that are none."""
    chunks = (b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT" + b"none")
    parts = [struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


@pytest.mark.parametrize("size, words", [((6000, 4001), "24.01 megapixels"), ((40_000, 40_000), "too large")])
def test_megapixels_are_read_off_the_header(tmp_path, monkeypatch, size, words):
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda *_: pytest.fail("the picture was decoded"))
    with pytest.raises(ImageError, match=words):
        Limits().check(png_without_pixels(tmp_path / "a.png", *size))
    assert Limits().check(png_without_pixels(tmp_path / "b.png", 6000, 4000)) == "PNG"


def test_a_large_file_is_refused_unopened(tmp_path, monkeypatch):
    monkeypatch.setattr("PIL.Image.open", lambda *_, **__: pytest.fail("the file was opened"))
    (tmp_path / "a.png").write_bytes(bytes(2**20 + 1))
    with pytest.raises(ImageError, match=r"1\.0 MiB.*accepts at most 1 MiB"):
        Limits(upload=2**20).check(tmp_path / "a.png")


@pytest.mark.parametrize("content", [b"", b"hello", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"])
def test_what_has_no_header_is_left_to_the_reader(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    assert Limits().check(tmp_path / "a.png") is None
    with pytest.raises(ImageError):
        read(tmp_path / "a.png")


@pytest.mark.parametrize("kind", KINDS)
def test_the_format_is_that_of_the_content(tmp_path, kind):
    path = draw(tmp_path, kind).rename(tmp_path / "without_a_suffix")
    with Image.open(path) as image:
        assert Limits().check(path) == image.format


def test_a_webp_with_a_large_canvas_is_refused_before_libwebp_allocates_it(tmp_path, monkeypatch):
    canvas = (6000 - 1).to_bytes(3, "little") + (4001 - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<II", 10, 0) + canvas + b"VP8L" + struct.pack("<I", 4) + b"none"
    (tmp_path / "a.webp").write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    monkeypatch.setattr("PIL.Image.open", lambda *_, **__: pytest.fail("the file was opened"))
    with pytest.raises(ImageError, match=r"24\.01 megapixels"):
        Limits().check(tmp_path / "a.webp")


@given(memory=st.integers(PROGRAM, 2**40), together=st.integers(1, 64))
def test_shares_add_up_to_the_memory(memory, together):
    share = Limits(memory=memory, together=together).share(torch.device("cpu"))
    total = PROGRAM + together * (share - PROGRAM)
    assert memory - together < total <= memory


def test_less_memory_than_the_program_is_no_memory_for_pictures():
    assert Limits(memory=1).share(torch.device("cpu")) == PROGRAM
