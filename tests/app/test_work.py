"""Requests without a server: what is given back, and what is said when there is nothing to give back."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from f2d.app import shown
from f2d.app.limits import Limits
from f2d.app.work import Options, Work
from f2d.engine.restorer import Restorer
from f2d.images import ImageError, read, write
from f2d.images.icc import from_code_points, profile
from f2d.images.metadata import Metadata
from f2d.images.sheet import colour_map
from tests.app.conftest import KINDS, SIZE, draw
from tests.cli.conftest import f2d, smooth_pixels  # noqa: F401
from tests.nets.small import resflow_net


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_is_that_of_f2d_restore(work, f2d, model, tmp_path, kind):  # noqa: F811
    path = draw(tmp_path, kind)
    done = work.restore(path, Options())
    assert done.download.name == f"{path.stem}_restored{KINDS[kind]}"
    result = f2d("restore", path, "-o", tmp_path / "by_command", "--model", model, "--precision", "float32")
    assert result.exit_code == 0, result.output
    target = tmp_path / "by_command" / f"{path.stem}{KINDS[kind]}"
    assert done.download.read_bytes() == target.read_bytes()
    assert not np.array_equal(read(done.download).levels, read(path).levels)


def test_what_a_file_is_stays(work, tmp_path):
    turned = read(work.restore(draw(tmp_path, "turned.JPEG"), Options()).download)
    assert turned.size == SIZE[::-1]
    with Image.open(work.restore(tmp_path / "turned.JPEG", Options()).download) as image:
        assert image.getexif()[271] == "Camera" and image.getexif().get(274, 1) == 1
    deep = read(work.restore(draw(tmp_path, "deep.tiff"), Options()).download)
    assert deep.depth == 16 and (deep.levels % 257 != 0).any()  # no 8 bits stretched
    assert read(work.restore(draw(tmp_path, "grey.png"), Options()).download).grey


def test_a_wrong_suffix_is_put_right(work, tmp_path):
    path = draw(tmp_path, "rgba.png").rename(tmp_path / "wet.jpg")
    assert work.restore(path, Options()).download.name == "wet_restored.png"


def test_options_are_the_restorers(work, restorer, tmp_path):
    path = draw(tmp_path, "plain.png")
    for options in ({"strength": {"rain": 0.0}}, {"steps": 3, "seed": 7}, {"steps": 3, "seed": 8}, {"sampler": "mean"}):
        done = work.restore(path, Options(**options))
        assert np.array_equal(np.asarray(restorer(path, **options).image), np.asarray(Image.open(done.download)))


def test_the_line_says_how_far_the_picture_was_changed(work, tmp_path):
    path = draw(tmp_path, "plain.png")
    done = work.restore(path, Options())
    before, after = (np.asarray(Image.open(p), np.float64) for p in (path, done.download))
    change = np.abs(after - before)
    assert f"Changed by {change.mean():.1f} grey levels of 255 on average, {change.max():.0f} at most" in done.line
    assert "float32 on CPU" in done.line and "48 × 32, 8\N{NO-BREAK SPACE}bits" in done.line
    assert "the first of 2 frames" in work.restore(draw(tmp_path, "moving.gif"), Options()).line


def test_factors_are_what_the_network_saw(work, restorer, tmp_path):
    path = draw(tmp_path, "plain.png")
    seen = restorer.explain(Image.open(path))
    for k, factor in enumerate(work.restore(path, Options()).factors):
        assert (factor.name, factor.gate) == (seen.factors[k], pytest.approx(float(seen.gates[k]), abs=1e-5))
        assert factor.presence == pytest.approx(float(seen.presence[k]), abs=1e-5)
        assert factor.mean == pytest.approx(float(seen.maps[k].mean()), abs=1e-5)
        assert Image.open(factor.overlay).size == (SIZE[0] // 2, SIZE[1] // 2)
    assert k == 3


def test_a_model_without_factors(tmp_path):
    work = Work(Restorer(resflow_net()), Limits(), tmp_path)
    done = work.restore(draw(tmp_path, "plain.png"), Options())
    assert done.factors == () and read(done.download).size == SIZE


BROKEN = {
    "empty.png": (lambda data: b"", "is an empty file"),
    "words.png": (lambda data: b"no picture at all", "is not a readable image"),
    "half.png": (lambda data: data[: len(data) // 2], "damaged or truncated"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_named_as_its_owner_does(work, tmp_path, name):
    broken, words = BROKEN[name]
    (tmp_path / name).write_bytes(broken(draw(tmp_path, "plain.png").read_bytes()))
    with pytest.raises(ImageError, match=f"^{name}: .*{words}") as caught:
        work.restore(tmp_path / name, Options())
    assert str(tmp_path) not in str(caught.value) and "\n" not in str(caught.value)
    assert {path.name for path in work.folder.iterdir()} == {name, "plain.png"}


def test_what_is_no_file_of_the_folder_is_not_opened(work, tmp_path, tmp_path_factory):
    outside = draw(tmp_path_factory.mktemp("private"), "plain.png")
    (tmp_path / "link.png").symlink_to(outside)
    (tmp_path / "round.png").symlink_to("round.png")
    up = tmp_path / ".." / outside.parent.name / "plain.png"
    os.mkfifo(tmp_path / "pipe.png")  # whoever opens it waits
    names = ("link.png", "round.png", "pipe.png", "", "not_there.png", "a" * 300, "null\0.png")
    for path in (outside, up, *(tmp_path / name for name in names)):
        for ask in (work.preview, lambda path: work.restore(path, Options())):
            with pytest.raises(FileNotFoundError) as caught:
                ask(path)
            assert "private" not in str(caught.value)


def test_a_full_folder_takes_no_more(restorer, tmp_path):
    path = draw(tmp_path, "plain.png")
    work = Work(restorer, Limits(disk=2**16), tmp_path)
    work.restore(path, Options())
    (tmp_path / "large").write_bytes(bytes(2**16))
    for ask in (work.preview, lambda path: work.restore(path, Options())):
        with pytest.raises(ImageError, match=r"^plain\.png: the server has no space"):
            ask(path)


def test_a_picture_beyond_the_limits(work, tmp_path):
    Image.new("RGB", (1250, 801)).save(tmp_path / "wide.png")
    for ask in (work.preview, lambda path: work.restore(path, Options())):
        with pytest.raises(ImageError, match=r"^wide\.png: .*1250 × 801 = 1\.00 megapixels.* 1$"):
            ask(tmp_path / "wide.png")


def test_a_picture_beyond_the_memory(restorer, tmp_path):
    path = draw(tmp_path, "plain.png")
    with pytest.raises(ImageError, match=r"^plain\.png: 48 × 32 pixels need more memory"):
        Work(restorer, Limits(memory=1), tmp_path).restore(path, Options())


def test_memory_that_runs_out_is_told(work, monkeypatch, tmp_path):
    monkeypatch.setattr("f2d.engine.restorer.restore_tensor", lambda *_, **__: torch.empty(2**50))
    with pytest.raises(ImageError, match="did not fit into memory at the moment"):
        work.restore(draw(tmp_path, "plain.png"), Options())


def test_previews_are_for_what_browsers_do_not_show(work, tmp_path):
    preview = work.preview(draw(tmp_path, "deep.tiff"))
    expected = np.asarray(read(tmp_path / "deep.tiff").picture())
    assert np.array_equal(np.asarray(Image.open(preview)), expected)
    assert work.preview(draw(tmp_path, "plain.jpg")) is None


@pytest.mark.parametrize("kind", ["deep.tiff", "grey.png"])
def test_pictures_for_the_screen_mean_the_same_colours(work, tmp_path, kind):
    """A photo in a wide colour space was shown as sRGB, paler than it is."""
    path, wide = draw(tmp_path, kind), profile(from_code_points(12, 13), grey=kind == "grey.png")  # Display P3
    write(replace(read(path), metadata=Metadata(icc=wide)), path)
    done = work.restore(path, Options())
    for picture in (done.before, done.after, work.preview(path)):
        if picture is not None:
            assert Image.open(picture).info.get("icc_profile") == (None if kind == "grey.png" else wide)


def test_requests_at_once_keep_apart(work, tmp_path):
    paths = []
    for i in range(6):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(np.roll(smooth_pixels(32, 48), 7 * i, axis=1)).save(paths[-1])
    alone = [work.restore(path, Options(steps=2, seed=i)).download.read_bytes() for i, path in enumerate(paths)]
    assert len(set(alone)) == 6
    with ThreadPoolExecutor(6) as threads:
        together = list(threads.map(lambda i: work.restore(paths[i], Options(steps=2, seed=i)), range(6)))
    assert [done.download.read_bytes() for done in together] == alone
    assert len({done.download.parent for done in together}) == 6


def test_overlays_mix_the_colour_and_the_dimmed_picture():
    picture = Image.new("RGB", (4, 2), (200, 200, 200))
    values = np.repeat(np.array([[0.0, 1.0]], np.float32), 2, axis=0).repeat(2, axis=1)
    found = np.asarray(shown.overlay(picture, values), np.float64)
    assert found.shape == (1, 2, 3)
    colour = np.asarray(colour_map(np.ones((1, 1))), np.float64)[0, 0]
    part = shown.STRONGEST
    assert np.abs(found[0, 0] - 120).max() <= 0.5
    assert np.abs(found[0, 1] - ((1 - part) * 120 + part * colour)).max() <= 0.5


def test_pictures_for_the_screen_are_no_larger_than_it():
    for size, expected in (((4000, 2000), (1600, 800)), ((30, 20), (30, 20)), ((5000, 1), (1600, 1))):
        assert shown.fitted(Image.new("L", size)).size == expected
    assert shown.fitted(Image.new("LA", (3, 3))).mode == "RGBA"
