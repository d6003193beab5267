"""Crops of a picture and of a pair."""

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from f2d.data import Augment

PLAIN = Augment(scale=(1.0, 1.0), flips=False, turns=False, colour=0.0)


def indexed(height: int, width: int) -> torch.Tensor:
    """[3,H,W] uint8 whose red is the row and green the column."""
    rows = torch.arange(height, dtype=torch.uint8)[:, None].expand(height, width)
    columns = torch.arange(width, dtype=torch.uint8)[None].expand(height, width)
    return torch.stack([rows, columns, torch.zeros_like(rows)])


@settings(deadline=None)
@given(st.integers(0, 2**64), st.integers(8, 30), st.integers(30, 40), st.integers(30, 40))
def test_a_pair_stays_aligned(seed, crop, height, width):
    """The negative of every region, scaled, turned and flipped, is the region's negative."""
    clean = torch.randint(256, (3, height, width), generator=torch.Generator().manual_seed(seed % 2**63)).byte()
    first, second = Augment()(clean, 255 - clean, crop, random.Random(seed))
    assert first.shape == second.shape == (3, crop, crop)
    torch.testing.assert_close(second, 1 - first, rtol=0, atol=2e-6)


@settings(deadline=None)
@given(st.integers(0, 2**64), st.integers(1, 30))
def test_a_plain_crop_is_a_region_of_the_picture(seed, crop):
    clean = indexed(30, 33)
    region, nothing = PLAIN(clean, None, crop, random.Random(seed))
    top, left = (int(v) for v in (region[:2, 0, 0] * 255).round())
    assert nothing is None
    assert torch.equal(region, clean[:, top : top + crop, left : left + crop].float() / 255)


def test_every_place_turn_and_flip_comes():
    clean = indexed(6, 8)
    seen = {
        tuple((PLAIN(clean, None, 5, random.Random(s))[0][:2, 0, 0] * 255).round().int().tolist()) for s in range(99)
    }
    assert seen == {(top, left) for top in range(2) for left in range(4)}
    square = indexed(5, 5)
    turned = Augment(scale=(1.0, 1.0), colour=0.0)
    ways = {tuple(turned(square, None, 5, random.Random(s))[0].flatten().tolist()) for s in range(99)}
    expected = {
        tuple(torch.rot90(picture, k, (1, 2)).flatten().tolist())
        for k in range(4)
        for picture in (square.float() / 255, square.float().flip(2) / 255)
    }
    assert ways == expected and len(ways) == 8


def test_scale_enlarges_what_is_seen():
    """A ramp of 1 per pixel, seen at half the scale, rises by 2 per pixel."""
    ramp = indexed(100, 100)
    small, _ = Augment(scale=(0.5, 0.5), flips=False, turns=False, colour=0)(ramp, None, 40, random.Random(0))
    inner = small[0, 5:-5, 20] * 255
    torch.testing.assert_close(inner.diff(), torch.full((29,), 2.0), rtol=0, atol=1e-3)


def test_scale_stops_at_one_pixel():
    region, _ = Augment(scale=(50, 50), flips=False, turns=False, colour=0)(indexed(9, 9), None, 8, random.Random(0))
    assert region.shape == (3, 8, 8) and all(len(channel.unique()) == 1 for channel in region)


def test_colours_change_without_a_pair_only():
    grey = torch.full((3, 20, 20), 128, dtype=torch.uint8)
    always = Augment(colour=1.0)
    for seed in range(20):
        coloured, _ = always(grey, None, 10, random.Random(seed))
        stretched = (128 / 255 - 0.2) / 0.8  # the black level is at most 0.2
        low, high = 0.85 * stretched**1.35, 1.1 * stretched**0.75
        assert coloured.min() >= low and coloured.max() <= high and (coloured - 128 / 255).abs().max() > 1e-3
        pair = always(grey, grey, 10, random.Random(seed))
        assert all((p - 128 / 255).abs().max() < 1e-6 for p in pair)


@pytest.mark.parametrize(
    ("field", "value"), [("scale", (0, 1)), ("scale", (1.2, 1.0)), ("scale", 1.0), ("colour", 1.5), ("flips", 1)]
)
def test_options_that_cannot_work(field, value):
    with pytest.raises(ValueError, match=rf"augment: {field} must be"):
        Augment(**{field: value})


def test_colours_do_not_depend_on_the_default_dtype():
    photo = indexed(40, 40)
    expected, _ = Augment(colour=1.0)(photo, None, 16, random.Random(3))
    torch.set_default_dtype(torch.bfloat16)
    try:
        found, _ = Augment(colour=1.0)(photo, None, 16, random.Random(3))
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(found, expected)


def test_recoloured_photographs_have_black():
    """A ramp from 40 to 200 of 255, of which 0.5 % are values up to 40, is stretched to a ramp from 0."""
    ramp = torch.arange(40, 201).byte().expand(3, 161, 161).contiguous()
    region, _ = Augment(scale=(1, 1), flips=False, turns=False, colour=1)(ramp, None, 161, random.Random(0))
    draws = random.Random(0)
    for draw in (lambda: draws.uniform(1, 1), *[lambda: draws.randrange(1)] * 2, *[draws.random] * 3):
        draw()  # scale, place, turn, flip and whether to recolour
    gain = torch.tensor([draws.uniform(0.85, 1.1) for _ in range(3)]).view(3, 1, 1)
    expected = ((ramp.double() - 40) / 215) ** draws.uniform(0.75, 1.35) * gain
    assert region[:, :, 0].abs().max() == 0
    torch.testing.assert_close(region.double(), expected, rtol=0, atol=1e-6)
