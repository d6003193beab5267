"""What `f2d restore` writes for its options: formats, depth, metadata, samples, strengths."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from f2d.engine.restorer import Restorer
from f2d.images import Photo, read, write
from f2d.images.metadata import Metadata
from f2d.nets import F2DNet
from tests.cli.conftest import smooth_pixels
from tests.nets.small import TINY


def smooth16(height: int, width: int) -> np.ndarray:
    return smooth_pixels(height, width).astype(np.uint16) * 257 + np.arange(width, dtype=np.uint16)[:, None] % 7


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("grey", [False, True])
def test_16_bits_go_through_the_model_unrounded(f2d, model, tmp_path, suffix, grey):
    levels = smooth16(12, 16)[..., :1] if grey else smooth16(12, 16)
    write(Photo(levels), tmp_path / f"a{suffix}")
    out = tmp_path / f"b{suffix}"
    options = ("--model", model, "--precision", "float32", "--seed", 3)
    assert f2d("restore", tmp_path / f"a{suffix}", "-o", out, *options).exit_code == 0
    image = torch.from_numpy(levels.astype(np.float32) / 65535).permute(2, 0, 1).expand(3, -1, -1).contiguous()
    expected = Restorer.load(model, precision="float32")(image, seed=3).image
    if grey:
        expected = (0.299 * expected[0] + 0.587 * expected[1] + 0.114 * expected[2])[None]
    restored = read(out)
    assert restored.depth == 16 and restored.grey == grey
    assert np.abs(restored.levels - 65535 * expected.permute(1, 2, 0).clamp(0, 1).numpy()).max() < 1
    assert len(np.unique(restored.levels % 257)) > 20  # no 8-bit picture made wider


def test_metadata_comes_through(f2d, model, tmp_path):
    exif = Image.Exif()
    exif[274], exif[315] = 6, "Ada"
    Image.fromarray(smooth_pixels(12, 20)).save(tmp_path / "a.jpg", exif=exif, dpi=(300, 300), icc_profile=b"profile")
    assert f2d("restore", tmp_path / "a.jpg", "-o", tmp_path / "o", "--format", "tiff", "--model", model).exit_code == 0
    with Image.open(tmp_path / "o" / "a.tiff") as image:
        image.load()
        assert image.size == (12, 20) and image.getexif()[315] == "Ada"
        assert image.info["icc_profile"] == b"profile" and image.info["dpi"] == (300, 300)


@pytest.mark.parametrize(
    "name, kind", [("jpg", "JPEG"), ("png", "PNG"), ("webp", "WEBP"), ("tiff", "TIFF"), ("bmp", "BMP")]
)
def test_format(f2d, model, photo, tmp_path, name, kind):
    assert f2d("restore", photo, "-o", tmp_path / "o", "--format", name, "--model", model).exit_code == 0
    with Image.open(tmp_path / "o" / f"photo.{name}") as image:
        assert image.format == kind
    assert len(list((tmp_path / "o").iterdir())) == 1


def test_quality_changes_the_size(f2d, model, photo, tmp_path):
    for quality in (20, 90):
        options = ("--format", "jpg", "--quality", quality, "--model", model)
        assert f2d("restore", photo, "-o", tmp_path / str(quality), *options).exit_code == 0
    small, large = ((tmp_path / q / "photo.jpg").stat().st_size for q in ("20", "90"))
    assert small < large


def test_only_and_strength_reach_the_experts(f2d, model, photo, tmp_path):
    def restored(name: str, *options: object) -> np.ndarray:
        out = tmp_path / f"{name}.png"
        result = f2d("restore", photo, "-o", out, "--model", model, "--precision", "float32", *options)
        assert result.exit_code == 0, result.output
        return read(out).levels.astype(int)

    others = [factor for factor in TINY.factors if factor != "rain"]
    full, alone = restored("full"), restored("alone", "--only", "rain")
    off = [argument for factor in others for argument in ("--strength", f"{factor}=0")]
    assert np.array_equal(alone, restored("off", *off)) and not np.array_equal(alone, full)
    assert np.array_equal(full, restored("all", "--only", ",".join(TINY.factors)))
    assert not np.array_equal(full, restored("half", "--strength", "rain=0.5"))


def test_samples(f2d, model, photo, tmp_path):
    options = ("--model", model, "--steps", 3, "--precision", "float32")
    done = f2d("restore", photo, "-o", tmp_path / "o.png", *options, "--samples", 3, "--seed", 11)
    assert done.exit_code == 0 and "(the mean of 3 samples, written beside it" in done.stdout
    assert sorted(path.name for path in tmp_path.glob("o.png*")) == [
        "o.png", "o.png_sample_1.png", "o.png_sample_2.png", "o.png_sample_3.png", "o.png_std.png",
    ]  # fmt: skip
    samples = np.stack([read(tmp_path / f"o.png_sample_{k}.png").levels for k in (1, 2, 3)]).astype(float)
    assert np.abs(samples[0] - samples[1]).max() > 1 and np.abs(samples[1] - samples[2]).max() > 1
    deviation = read(tmp_path / "o.png_std.png")
    assert deviation.depth == 16
    assert np.abs(read(tmp_path / "o.png").levels - samples.mean(axis=0)).max() <= 1
    assert np.abs(deviation.levels / 257 - samples.std(axis=0, ddof=1)).max() < 0.6  # the samples are rounded
    for k in (1, 2, 3):  # each is what its seed gives
        assert f2d("restore", photo, "-o", tmp_path / f"{k}.png", *options, "--seed", 10 + k).exit_code == 0
        assert (tmp_path / f"{k}.png").read_bytes() == (tmp_path / f"o.png_sample_{k}.png").read_bytes()


def test_more_samples_than_there_are_need_overwrite(f2d, model, photo, tmp_path):
    """They were skipped as done. Mean and standard deviation of two samples do not stay beside four."""
    command = ("restore", photo, "-o", tmp_path / "o.png", "--model", model, "--steps", 2, "--samples")
    assert f2d(*command, 2).exit_code == 0 and f2d(*command, 2).exit_code == 0
    before = {path.name: path.read_bytes() for path in tmp_path.glob("o.png*")}
    refused = f2d(*command, 4)
    assert refused.exit_code == 1
    assert "o.png_std.png: may come from fewer than 4 samples, because o.png_sample_4.png is missing" in refused.output
    assert before == {path.name: path.read_bytes() for path in tmp_path.glob("o.png*")}
    assert f2d(*command, 4, "--overwrite").exit_code == 0
    samples = np.stack([read(tmp_path / f"o.png_sample_{k}.png").levels for k in range(1, 5)]).astype(float)
    assert np.abs(read(tmp_path / "o.png").levels - samples.mean(axis=0)).max() <= 1
    assert "1 skipped" in f2d(*command, 2).output and len(list(tmp_path.glob("o.png*"))) == 6


def test_fewer_samples_replace_more(f2d, model, photo, tmp_path):
    """The third and fourth stayed beside a mean and a standard deviation that were not theirs."""
    command = ("restore", photo, "-o", tmp_path / "o.png", "--model", model, "--steps", 2, "--samples")
    assert f2d(*command, 4).exit_code == 0
    photo_like = tmp_path / "o.png_sample_of_paint.png"  # the user's own
    photo_like.write_bytes(b"")
    assert f2d(*command, 2, "--overwrite").exit_code == 0
    assert sorted(path.name for path in tmp_path.glob("o.png*")) == [
        "o.png", "o.png_sample_1.png", "o.png_sample_2.png", photo_like.name, "o.png_std.png",
    ]  # fmt: skip
    samples = np.stack([read(tmp_path / f"o.png_sample_{k}.png").levels for k in (1, 2)]).astype(float)
    assert np.abs(read(tmp_path / "o.png").levels - samples.mean(axis=0)).max() <= 1


@pytest.mark.parametrize(
    ("before", "left", "option"),
    [
        (("--save-maps",), "o.png_maps.json", "--save-maps"),
        (("--samples", 2, "--steps", 2), "o.png_std.png", "--samples"),
    ],
)
def test_maps_and_samples_stay_beside_their_own_image_only(f2d, model, photo, tmp_path, before, left, option):
    """Beside the output of other options, or of another model, they passed for its own."""
    command = ("restore", photo, "-o", tmp_path / "o.png", "--model", model)
    assert f2d(*command, *before).exit_code == 0
    there = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    refused = f2d(*command, "--overwrite", "--seed", 7)
    assert (
        refused.exit_code == 1
        and f"{left}: belongs to an earlier output, so pass {option} to replace it" in refused.stderr
    )
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == there
    assert "1 skipped" in f2d(*command).stdout
    assert f2d(*command, *before, "--overwrite").exit_code == 0
    # restored themselves, they are outputs like others
    home = tmp_path / "again"
    for _ in range(2):
        assert (
            f2d(
                "restore",
                photo,
                tmp_path / "o.png",
                *tmp_path.glob("o.png_std.png"),
                "-o",
                home,
                "--overwrite",
                "--model",
                model,
            ).exit_code
            == 0
        )


def test_maps_of_a_model_of_other_factors_are_removed(f2d, model, photo, tmp_path):
    """Those of low light and snow stayed beside an image and numbers of a model that knows neither."""
    F2DNet(replace(TINY, factors=("haze", "noise"))).save_pretrained(tmp_path / "other")
    command = ("restore", photo, "-o", tmp_path / "o.png", "--save-maps", "--overwrite", "--model")
    assert f2d(*command, model).exit_code == 0
    own = tmp_path / "o.png_map_of_paris.png"
    own.write_bytes(b"")
    assert f2d(*command, tmp_path / "other").exit_code == 0
    names = ["", "_map_haze.png", "_map_noise.png", "_map_of_paris.png", "_maps.json"]
    assert sorted(path.name for path in tmp_path.glob("o.png*")) == [f"o.png{name}" for name in names]


@pytest.mark.parametrize("gates", [{"../own": 0.5}, {"snow/own": 0.5}, 3, None, [[]], []])
def test_numbers_of_another_program_are_replaced(gates, f2d, model, photo, tmp_path):
    """The command ended in a traceback."""
    numbers = tmp_path / "o.png_maps.json"
    numbers.write_text(json.dumps({"gates": gates}))
    done = f2d("restore", photo, "-o", tmp_path / "o.png", "--save-maps", "--overwrite", "--model", model)
    assert done.exit_code == 0 and set(json.loads(numbers.read_text())["gates"]) == set(TINY.factors)


def test_a_deviation_has_no_colours(f2d, model, tmp_path):
    """The photo's own gamma would make small deviations large."""
    linear = Metadata(png={b"gAMA": (100_000).to_bytes(4, "big")})
    write(Photo(smooth_pixels(8, 9), metadata=linear), tmp_path / "a.png")
    options = ("--model", model, "--steps", 2, "--samples", 2)
    assert f2d("restore", tmp_path / "a.png", "-o", tmp_path / "o.png", *options).exit_code == 0
    assert b"gAMA" in (tmp_path / "o.png_sample_2.png").read_bytes()
    assert b"gAMA" not in (tmp_path / "o.png_std.png").read_bytes()


@pytest.mark.parametrize("more", [("--samples", 2), ("--save-maps",)])
def test_a_photo_that_was_there_is_not_called_new(f2d, model, photo, tmp_path, more):
    out, options = tmp_path / "o.png", ("--model", model, "--steps", 2, "--seed", 3)
    assert f2d("restore", photo, "-o", out, *options).exit_code == 0
    before = out.read_bytes()
    result = f2d("restore", photo, "-o", out, *options, *more)
    assert result.exit_code == 0 and out.read_bytes() == before and len(list(tmp_path.glob("o.png_*"))) > 2
    assert "(kept as it was, with what was missing written beside it)" in result.stdout


def test_the_change_is_reported(f2d, model, photo, tmp_path):
    result = f2d("restore", photo, "-o", tmp_path / "o.png", "--model", model)
    difference = np.abs(read(tmp_path / "o.png").levels.astype(int) - read(photo).levels)
    assert f"change {difference.mean():.1f} levels, at most {difference.max()}" in result.stdout


def test_a_seed_of_64_bits(f2d, model, photo, tmp_path):
    result = f2d("restore", photo, "-o", tmp_path / "o.png", "--model", model, "--seed", 2**64 - 1)
    assert result.exit_code == 0, result.output
