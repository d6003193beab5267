"""TIFF of every depth, layout and compression, written by tifffile and libtiff, against what was put in."""

import io
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image, TiffImagePlugin

from f2d.images import ImageError, Photo, read, write

RNG = np.random.default_rng(0)
HEIGHT, WIDTH = 37, 45
RGB16 = RNG.integers(0, 65536, (HEIGHT, WIDTH, 3)).astype(np.uint16)
GREY16, ALPHA16 = RGB16[..., 0], RGB16[::-1, ::-1, 1]
FLOATS = RNG.random((HEIGHT, WIDTH, 3))
UNASSOCIATED, ASSOCIATED, UNSPECIFIED = "unassalpha", "assocalpha", "unspecified"


def stored(path, pixels: np.ndarray, photometric: str = "rgb", **options) -> Photo:
    tifffile.imwrite(path, pixels, photometric=photometric, metadata=None, **options)
    return read(path)


LAYOUTS = {
    "plain": {},
    "big-endian": {"byteorder": ">"},
    "bigtiff": {"bigtiff": True},
    "strips": {"rowsperstrip": 5},
    "tiles": {"tile": (16, 32)},
    "deflate": {"compression": "zlib", "rowsperstrip": 7},
    "predictor": {"compression": "zlib", "predictor": True, "byteorder": ">", "rowsperstrip": 7},
    "predicted-tiles": {"compression": "zlib", "predictor": True, "tile": (16, 16)},
}


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "f2", "f4", "f8"])
def test_every_type_in_every_layout(tmp_path, dtype, layout, planar):
    options, kind = dict(LAYOUTS[layout]), np.dtype(dtype)
    values = FLOATS.astype(kind) if kind.kind == "f" else (FLOATS * np.iinfo(kind).max).astype(kind)
    depth = 8 if dtype == "u1" else 16
    full = 1 if kind.kind == "f" else np.iinfo(kind).max
    expected = np.round(values.astype(np.float64) / full * (2**depth - 1))
    if kind.kind == "f":  # theirs is another one, see below
        options.pop("predictor", None)
    pixels = values.transpose(2, 0, 1) if planar == "separate" else values
    photo = stored(tmp_path / "a.tif", pixels, planarconfig=planar, **options)
    assert photo.depth == depth and np.array_equal(photo.levels, expected)
    reduced = {"u4": ("32 bits became 16",), "f4": ("32-bit floats became 16 bits",)}
    assert photo.notes == reduced.get(dtype, photo.notes)
    assert bool(photo.notes) == (dtype not in ("u1", "u2"))


def test_the_predictor_of_floats(tmp_path):
    """TIFF technical note 3: the bytes of a row, highest first, then differences."""
    values = FLOATS[..., 0].astype(">f4")
    planes = values.view(np.uint8).reshape(HEIGHT, WIDTH, 4).transpose(0, 2, 1).reshape(HEIGHT, -1)
    data = np.diff(planes, axis=1, prepend=np.uint8(0)).tobytes()
    directory = TiffImagePlugin.ImageFileDirectory_v2(prefix=b"II")
    tags = {
        256: WIDTH,
        257: HEIGHT,
        258: 32,
        259: 1,
        262: 1,
        273: 0,
        277: 1,
        278: HEIGHT,
        279: len(data),
        317: 3,
        339: 3,
    }
    for tag, value in tags.items():
        directory.tagtype[tag] = 4 if tag in (256, 257, 273, 278, 279) else 3
        directory[tag] = value
    with open(tmp_path / "a.tif", "wb") as file:
        directory.save(file)
        file.write(data)
    assert np.array_equal(read(tmp_path / "a.tif").levels[..., 0], np.round(values.astype(np.float64) * 65535))


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "zstd", "lzma", "tiff_adobe_deflate"])
@pytest.mark.parametrize("predictor", [1, 2])
def test_what_libtiff_compresses(tmp_path, compression, predictor):
    options = {} if compression == "packbits" else {"tiffinfo": {317: predictor}}
    Image.fromarray(GREY16).save(tmp_path / "a.tif", compression=compression, **options)
    with Image.open(tmp_path / "a.tif") as image:
        assert image.tag_v2[258] == (16,) and image.tag_v2[259] != 1
    assert np.array_equal(read(tmp_path / "a.tif").levels[..., 0], GREY16)


@pytest.mark.parametrize("depth", [8, 16])
def test_associated_alpha_is_divided_out(tmp_path, depth):
    full = 2**depth - 1
    dtype = np.uint8 if depth == 8 else np.uint16
    alpha = (ALPHA16 >> (16 - depth)).astype(dtype)
    for channels, photometric in ((3, "rgb"), (1, "minisblack")):
        colours = (RGB16[..., :channels] >> (16 - depth)).astype(np.float64)
        multiplied = np.round(colours * alpha[..., None] / full).astype(dtype)
        pixels = np.dstack([multiplied, alpha])
        options = {"extrasamples": [ASSOCIATED], "planarconfig": "contig"}
        photo = stored(tmp_path / "a.tif", pixels, photometric, **options)
        assert photo.depth == depth and np.array_equal(photo.alpha, alpha)
        seen = alpha > full // 8  # where eight levels of the colour are one of the product
        assert np.abs(photo.levels - colours)[seen].max() <= 8


def test_grey_with_alpha_of_16_bits_is_read_back(tmp_path):
    write(Photo(RGB16[..., :1], ALPHA16), tmp_path / "a.tif")
    photo = read(tmp_path / "a.tif")
    assert np.array_equal(photo.levels[..., 0], GREY16) and np.array_equal(photo.alpha, ALPHA16)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("extra", [1, 2])
def test_extra_channels_without_a_meaning_are_said(tmp_path, dtype, extra):
    pixels = np.dstack([RGB16, ALPHA16, GREY16])[..., : 3 + extra].astype(dtype)
    photo = stored(tmp_path / "a.tif", pixels, extrasamples=[UNSPECIFIED] * extra)
    assert np.array_equal(photo.levels, pixels[..., :3]) and photo.alpha is None
    words = "1 extra channel was dropped" if extra == 1 else "2 extra channels were dropped"
    assert photo.notes == (words,)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_extra_channels(tmp_path, dtype):
    """Unspecified ones are no transparency, and what is dropped is said."""
    colours, alpha = (RGB16 >> (16 - 8 * dtype().itemsize)).astype(dtype), ALPHA16.astype(dtype)
    five = np.dstack([colours, alpha, alpha])
    photo = stored(tmp_path / "a.tif", five, extrasamples=[UNASSOCIATED, UNSPECIFIED])
    assert np.array_equal(photo.levels, colours) and np.array_equal(photo.alpha, alpha)
    photo = stored(tmp_path / "b.tif", five[..., :4], extrasamples=[UNSPECIFIED])
    assert np.array_equal(photo.levels, colours) and photo.alpha is None
    photo = stored(tmp_path / "c.tif", five[..., :4])
    assert np.array_equal(photo.alpha, alpha)  # the first extra channel without a description, as Pillow has it
    if dtype == np.uint16:
        assert read(tmp_path / "a.tif").notes == read(tmp_path / "b.tif").notes == ("1 extra channel was dropped",)


@pytest.mark.parametrize("alpha", [False, True])
def test_cmyk_of_16_bits_keeps_its_depth(tmp_path, alpha):
    inks = RNG.integers(0, 65536, (HEIGHT, WIDTH, 4 + alpha)).astype(np.uint16)
    options = {"extrasamples": [UNASSOCIATED]} if alpha else {}
    photo = stored(tmp_path / "a.tif", inks, "separated", **options)
    paper = 1 - inks.astype(np.float64) / 65535
    expected = paper[..., :3] * paper[..., 3:4] * 65535
    assert photo.depth == 16 and np.abs(photo.levels - expected).max() <= 0.51
    assert (photo.alpha is not None) == alpha


def test_white_is_zero_with_transparency(tmp_path):
    pixels = np.dstack([GREY16, ALPHA16])
    photo = stored(tmp_path / "a.tif", pixels, "miniswhite", extrasamples=[UNASSOCIATED], planarconfig="contig")
    assert np.array_equal(photo.levels[..., 0], 65535 - GREY16) and np.array_equal(photo.alpha, ALPHA16)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_transparency_is_turned_with_the_colours(tmp_path, orientation):
    from tests.images.test_pictures import ORIENTATIONS

    pixels = np.dstack([RGB16, ALPHA16])
    tag = (274, "H", 1, orientation, True)
    photo = stored(tmp_path / "a.tif", pixels, extrasamples=[UNASSOCIATED], extratags=[tag])
    turned = ORIENTATIONS[orientation](pixels)
    assert np.array_equal(np.dstack([photo.levels, photo.alpha]), turned)
    assert photo.size == (turned.shape[1], turned.shape[0])


@pytest.mark.parametrize("value", [255.0, -0.5, np.nan, np.inf])
def test_floats_without_a_defined_range_are_named(tmp_path, value):
    pixels = FLOATS.astype(np.float32)
    pixels[3, 4, 1] = value
    with pytest.raises(ImageError, match=r"a\.tif: its floating-point values must lie in \[0, 1\], .*got "):
        stored(tmp_path / "a.tif", pixels)


def test_a_raw_photograph_is_not_its_thumbnail(tmp_path):
    version = (50706, "B", 4, (1, 4, 0, 0), True)
    with pytest.raises(ImageError, match="must be developed"):
        stored(tmp_path / "a.dng", (RGB16 >> 8).astype(np.uint8), extratags=[version])


@pytest.mark.parametrize("suffix", [".cr2", ".orf", ".jxl"])
def test_other_raw_photographs_and_formats_say_why(tmp_path, suffix):
    start = {".cr2": b"II*\0\x10\0\0\0CR\2\0", ".orf": b"IIRO", ".jxl": b"\xff\x0a"}[suffix]
    (tmp_path / f"a{suffix}").write_bytes(start + bytes(100))
    words = "this format is not supported" if suffix == ".jxl" else "must be developed"
    with pytest.raises(ImageError, match=f"a{suffix}: .*{words}"):
        read(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("bits", [10, 12, 14])
def test_samples_that_are_no_whole_bytes(tmp_path, bits, channels, compressed):
    """As scanners and cameras write them: TIFF 6.0, section 6, without gaps, each row from a new byte."""
    values = RNG.integers(0, 2**bits, (HEIGHT, 43, channels))
    planes = (values[..., None] >> np.arange(bits - 1, -1, -1) & 1).astype(np.uint8).reshape(HEIGHT, -1)
    data = np.packbits(planes, axis=1).tobytes()
    data = zlib.compress(data) if compressed else data
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[256], tags[257], tags[258], tags[259] = 43, HEIGHT, (bits,) * channels, 8 if compressed else 1
    tags[262], tags[273], tags[277], tags[278], tags[279] = 1 if channels == 1 else 2, 0, channels, HEIGHT, len(data)
    if channels == 4:
        tags[338] = 2
    file = io.BytesIO()
    tags.save(file)
    (tmp_path / "a.tif").write_bytes(file.getvalue() + data)
    photo = read(tmp_path / "a.tif")
    expected = np.round(values * 65535 / (2**bits - 1))
    assert np.array_equal(photo.levels, expected[..., :3]) and not photo.notes
    assert channels < 4 or np.array_equal(photo.alpha, expected[..., 3])


@pytest.mark.parametrize("photometric", ["rgb", "minisblack"])
@pytest.mark.parametrize("dtype", ["i1", "i2"])
def test_signed_integers_have_no_range(tmp_path, dtype, photometric):
    pixels = RGB16.astype(dtype)
    tifffile.imwrite(
        tmp_path / "a.tif", pixels if photometric == "rgb" else pixels[..., 0], photometric=photometric, metadata=None
    )
    with pytest.raises(ImageError, match=r"a\.tif: its signed integers have no defined range"):
        read(tmp_path / "a.tif")


def test_16_bits_that_pillow_wrote_as_32_are_said(tmp_path):
    Image.fromarray(GREY16.astype(np.int32)).save(tmp_path / "a.tif")
    photo = read(tmp_path / "a.tif")
    assert np.array_equal(photo.levels[..., 0], GREY16)
    assert photo.notes == ("integers of 32 bits were taken for 16 bits",)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_ycbcr_that_is_not_in_a_jpeg(tmp_path, compression):
    given = Image.fromarray((RGB16 >> 8).astype(np.uint8)).convert("YCbCr")
    photo = stored(tmp_path / "a.tif", np.asarray(given), "ycbcr", compression=compression)
    assert np.abs(photo.levels.astype(int) - np.asarray(given.convert("RGB"))).max() <= 1


def test_pages_are_counted(tmp_path):
    for dtype in (np.uint16, np.float32):
        photo = stored(tmp_path / "a.tif", np.stack([FLOATS.astype(dtype)] * 3))
        assert photo.frames == 3


def test_a_bigtiff_in_big_endian_order_is_named(tmp_path):
    with pytest.raises(ImageError, match=r"a\.tif: a BigTIFF in big-endian byte order"):
        stored(tmp_path / "a.tif", RGB16, bigtiff=True, byteorder=">")


@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_missing_pixels_are_damage(tmp_path, tile):
    path = tmp_path / "a.tif"
    stored(path, RGB16, compression="zlib", tile=tile)
    with tifffile.TiffFile(path) as file:
        start = file.pages[0].dataoffsets[0]
    data = bytearray(path.read_bytes())
    data[start : start + 40] = bytes(40)
    path.write_bytes(data)
    with pytest.raises(ImageError, match=r"a\.tif: damaged"):
        read(path)
