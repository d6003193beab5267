"""What cannot be seen must not matter: the fill below transparent pixels, and what comes back."""

import numpy as np
import pytest
import torch
from PIL import Image

import f2d
from f2d.images import Photo, read, write
from f2d.images.filling import filled
from tests.cli.conftest import smooth_pixels

RNG = np.random.default_rng(0)
HEIGHT, WIDTH = 40, 60
Y, X = np.mgrid[0:HEIGHT, 0:WIDTH]
MASK = (Y - 18) ** 2 + (X - 25) ** 2 < 14**2
RGB = (smooth_pixels(HEIGHT, WIDTH) * 0.8 + RNG.integers(0, 50, (HEIGHT, WIDTH, 3))).astype(np.uint8)
BELOW = {"black": 0, "white": 255, "noise": RNG.integers(0, 256, RGB.shape), "itself": RGB}


def cut_out(below: str, alpha: int = 0) -> Photo:
    levels = np.where(MASK[..., None], RGB, BELOW[below]).astype(np.uint8)
    return Photo(levels, np.where(MASK, 255, alpha).astype(np.uint8))


@pytest.fixture(scope="module")
def restorer():
    return f2d.load("f2d-lite", device="cpu", precision="float32")


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
@pytest.mark.parametrize("alpha", [0, 1, 2])
def test_what_lies_below_does_not_matter(restorer, tmp_path, alpha, suffix):
    results = []
    for below in BELOW:
        photo = cut_out(below, alpha)
        write(photo, tmp_path / f"a{suffix}", quality=100)
        if suffix == ".webp":
            Image.fromarray(np.dstack([photo.levels, photo.alpha])).save(tmp_path / "a.webp", lossless=True, exact=True)
        result = np.asarray(restorer(tmp_path / f"a{suffix}").image)
        assert np.array_equal(result[..., 3], photo.alpha)
        assert np.array_equal(result[~MASK], np.dstack([photo.levels, photo.alpha])[~MASK])  # as they were
        results.append(result[MASK].astype(int))
    assert np.abs(results[0][:, :3] - RGB[MASK]).max() > 5  # it was restored
    assert max(np.abs(result - results[0]).max() for result in results) == 0


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("channels", [1, 3])
def test_photos_of_every_kind(depth, channels):
    tensors = []
    for below in BELOW:
        photo = cut_out(below)
        photo = Photo(photo.levels[..., :channels], photo.alpha).as_depth(depth)
        tensors.append(photo.tensor())
        restored = photo.replaced(torch.rand(3, HEIGHT, WIDTH))
        assert np.array_equal(restored.levels[~MASK], photo.levels[~MASK])
        assert not np.array_equal(restored.levels[MASK], photo.levels[MASK])
    assert all(torch.equal(tensor, tensors[0]) for tensor in tensors)
    assert torch.equal(tensors[0][:, MASK], Photo(RGB[..., :channels]).as_depth(depth).tensor()[:, MASK])


def test_what_can_be_seen_is_not_filled():
    alpha = np.full((HEIGHT, WIDTH), 3, np.uint8)
    assert torch.equal(Photo(RGB, alpha).tensor(), Photo(RGB).tensor())
    assert torch.equal(Photo(RGB, np.zeros_like(alpha)).tensor(), Photo(RGB).tensor())


def test_a_straight_edge_is_a_mirror():
    levels = RNG.integers(0, 256, (30, 40, 3)).astype(np.uint8)
    seen = np.zeros((30, 40), bool)
    seen[:, :25] = True
    assert np.array_equal(filled(levels, seen)[:, 25:], levels[:, 23:8:-1])
    turned = filled(levels.swapaxes(0, 1), seen.T)
    assert np.array_equal(turned[25:], levels.swapaxes(0, 1)[23:8:-1])


@pytest.mark.parametrize("size", [(1, 50), (50, 1), (3, 2), (700, 1300)])
def test_every_value_is_one_that_is_seen(size):
    levels = RNG.integers(1, 256, (*size, 3)).astype(np.uint8)
    seen = np.zeros(size, bool)
    seen[size[0] // 3 : size[0] // 3 + max(1, size[0] // 4), size[1] // 2 : size[1] // 2 + max(1, size[1] // 5)] = True
    levels[~seen] = 0
    result = filled(levels, seen)
    assert result.min() > 0 and np.array_equal(result[seen], levels[seen])


def test_changes_are_those_that_can_be_seen():
    photo = cut_out("black")
    other = Photo(np.where(MASK[..., None], photo.levels, 255).astype(np.uint8), photo.alpha)
    assert photo.change_to(other) == (0, 0)
    nothing = Photo(RGB, np.zeros((HEIGHT, WIDTH), np.uint8))
    assert nothing.change_to(Photo(255 - RGB, nothing.alpha)) == (0, 0)


def test_a_gif_with_a_transparent_colour(restorer, tmp_path):
    results = []
    for colour in ((0, 0, 0), (255, 255, 255)):
        picture = Image.fromarray(np.where(MASK[..., None], RGB, 128).astype(np.uint8)).quantize(32)
        palette = picture.getpalette()
        pixels = np.where(MASK, np.asarray(picture), 255).astype(np.uint8)
        palette = (palette + [0] * 768)[:765] + list(colour)
        picture = Image.fromarray(pixels)
        picture.putpalette(palette)
        picture.save(tmp_path / "a.gif", transparency=255)
        assert np.array_equal(read(tmp_path / "a.gif").alpha == 0, ~MASK)
        results.append(np.asarray(restorer(tmp_path / "a.gif").image)[MASK])
    assert np.array_equal(*results)
