"""Planes to RGB and back: published code values, and nothing lost where nothing changes."""

import pytest
import torch

from f2d.video.colour import MATRICES, Colour, changed, to_rgb

BT601, BT709, BT2020 = MATRICES[6], MATRICES[1], MATRICES[9]
RED, GREEN, BLUE, WHITE, BLACK = (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1), (0, 0, 0)

# Of 100 % bars, as the recommendations and many books have them; full range of BT.601 is JPEG's
CODES = [
    (Colour(BT709, False, 8), RED, (63, 102, 240)),
    (Colour(BT709, False, 8), GREEN, (173, 42, 26)),
    (Colour(BT709, False, 8), BLUE, (32, 240, 118)),
    (Colour(BT709, False, 8), WHITE, (235, 128, 128)),
    (Colour(BT709, False, 8), BLACK, (16, 128, 128)),
    (Colour(BT601, False, 8), RED, (81, 90, 240)),
    (Colour(BT601, False, 8), GREEN, (145, 54, 34)),
    (Colour(BT601, False, 8), BLUE, (41, 240, 110)),
    (Colour(BT601, True, 8), RED, (76, 85, 255)),
    (Colour(BT601, True, 8), GREEN, (150, 44, 21)),
    (Colour(BT709, False, 10), RED, (250, 409, 960)),
    (Colour(BT709, False, 10), WHITE, (940, 512, 512)),
    (Colour(BT2020, False, 10), RED, (294, 387, 960)),
    (Colour(BT2020, False, 10), GREEN, (658, 189, 100)),
    (Colour(BT2020, False, 12), WHITE, (3760, 2048, 2048)),
]


def constant(values, size=(4, 6)):
    return [torch.full((1, 1, *size), float(value)) for value in values]


@pytest.mark.parametrize("colour, rgb, codes", CODES)
def test_published_code_values(colour, rgb, codes):
    image = torch.tensor(rgb, dtype=torch.float32).reshape(1, 3, 1, 1).expand(1, 3, 4, 6)
    step = 1 / (219 * 2 ** (colour.bits - 8))
    assert (to_rgb(constant(codes), colour) - image).abs().max() < 1.6 * step  # codes are rounded to whole numbers
    black = 0 if colour.full else 16 * 2 ** (colour.bits - 8)
    middle = 2 ** (colour.bits - 1)
    planes = changed(constant((black, middle, middle)), image, colour)
    assert [int(plane.unique()) for plane in planes] == list(codes)


def test_grey_and_rgb_planes():
    for full, black, white in ((False, 16, 235), (True, 0, 255)):
        grey = Colour(None, full, 8)
        assert torch.equal(to_rgb(constant([white]), grey), torch.ones(1, 3, 4, 6))
        (plane,) = changed(constant([black]), torch.ones(1, 3, 4, 6), grey)
        assert int(plane.unique()) == white
    planes = constant((51, 102, 255))  # in the order G, B, R
    assert torch.allclose(to_rgb(planes, Colour(None, True, 8))[0, :, 0, 0], torch.tensor([1, 0.2, 0.4]))
    red = torch.tensor([-1.0, 0, 0]).reshape(1, 3, 1, 1).expand(1, 3, 4, 6)
    assert [int(plane.unique()) for plane in changed(planes, red, Colour(None, True, 8))] == [51, 102, 0]


@pytest.mark.parametrize("across, down", [(1, 1), (2, 1), (2, 2), (1, 2), (4, 1), (4, 4)])
@pytest.mark.parametrize("height, width", [(16, 24), (13, 21), (1, 1)])
def test_no_change_changes_nothing(across, down, height, width):
    """Every code value survives, those outside the nominal range included."""
    torch.manual_seed(0)
    chroma = (-(-height // down), -(-width // across))
    planes = [torch.randint(0, 256, (1, 1, *size)).float() for size in ((height, width), chroma, chroma)]
    colour = Colour(BT709, False, 8)
    assert to_rgb(planes, colour).shape == (1, 3, height, width)
    for before, after in zip(planes, changed(planes, torch.zeros(1, 3, height, width), colour)):
        assert torch.equal(before, after)


@pytest.mark.parametrize("across, down", [(2, 1), (2, 2), (4, 1)])
def test_chroma_lies_where_it_is_said_to(across, down):
    """A ramp is exact under linear interpolation: columns k · across, and midway between the rows."""
    height, width = 16, 32
    y, x = (torch.arange(n, dtype=torch.float32) for n in (height, width))
    rows, columns = (torch.arange(height // down) + 0.5) * down - 0.5, torch.arange(width // across) * across
    ramp = 100 + 2 * y[:, None] + 1.5 * x
    sampled = 100 + 2 * rows[:, None] + 1.5 * columns
    colour = Colour(BT601, True, 8)
    flat, neutral = torch.full((1, 1, height, width), 128.0), torch.full((1, 1, *sampled.shape), 128.0)
    rgb = to_rgb([flat, neutral, sampled[None, None]], colour)
    expected = 128 / 255 + 2 * (1 - 0.299) * (ramp - 128) / 255
    inside = slice(down, -down), slice(across, -across)
    assert torch.allclose(rgb[0, 0][inside], expected[inside], atol=1e-6)
    # a change that is grey but for red, as a ramp of Cr alone: kr R + kg G = 0
    red = 2 * (1 - 0.299) * ramp / 2550
    change = torch.stack([red, -0.299 / 0.587 * red, torch.zeros_like(red)])[None]
    luma, _, cr = changed([flat, neutral, neutral], change, colour)
    assert torch.equal(luma, flat)
    assert ((cr - 128)[0, 0] - sampled / 10)[1:-1, 1:-1].abs().max() <= 0.5 + 1e-4  # rounded to code values
