"""Shift-Tolerant LPIPS: the authors' published value, laws of a distance, and files that are not its weights."""

import math
from functools import cache
from pathlib import Path

import pytest
import torch

from f2d.images import image_to_tensor
from f2d.metrics.measure import FunctionMeasure
from f2d.metrics.shift_tolerant_lpips import SMALLEST, st_lpips
from tests.metrics.pictures import noisy, photograph

FILE = "alex_shift_tolerant.pth"


@pytest.fixture
def folder(shared) -> Path:
    return shared / "data/metrics/stlpips"


@cache
def _measure(path: Path) -> FunctionMeasure:
    return st_lpips(path)


@pytest.fixture
def measure(folder):
    return _measure(folder / FILE)


def test_the_authors_example(folder, measure):
    """0.7777555 in their README, of two pictures in their repository."""
    pictures = [image_to_tensor(folder / name) for name in ("check_p0.png", "check_ref.png")]
    assert measure(*pictures) == pytest.approx(0.7777554988861084, abs=1e-5)


def test_a_distance_that_tolerates_shifts(measure):
    clean = photograph("chelsea", (100, 120))
    other = noisy(clean, 25)
    assert measure(clean, clean) == 0
    assert measure(other, clean) == pytest.approx(measure(clean, other), rel=1e-5)
    shifted = measure(clean[:, :, 1:], clean[:, :, :-1])
    assert 0 < shifted < 0.05 < measure(other, clean)


def test_pictures_are_seen_after_eight_bits(measure):
    clean = photograph("chelsea", (48, 64))
    assert measure(clean + 0.4 / 255, clean) == 0 < measure(clean + 0.6 / 255, clean)


def test_the_smallest_picture(measure):
    image = torch.rand(3, SMALLEST, 40)
    assert math.isfinite(measure(image, 1 - image))
    assert math.isnan(measure(image[:, 1:], image[:, 1:]))
    with pytest.raises(ValueError, match=r"st-lpips alex: .* must have the same shape"):
        measure(image, image[:, :, 1:])


def test_files_that_are_not_its_weights(tmp_path):
    absent, text, other, odd = (tmp_path / name for name in ("absent.pth", "text.pth", "other.pth", "odd.pth"))
    text.write_text("not weights")
    torch.save({"net.slice1.0.weight": torch.zeros(64, 3, 3, 3)}, other)
    torch.save([1, 2, 3], odd)
    with pytest.raises(ValueError, match=r"there is no file .*absent.pth \(the weights are alex_shift_tolerant.pth"):
        st_lpips(absent)
    with pytest.raises(ValueError, match=r"text.pth cannot be read, .* \(the weights are alex_shift_tolerant.pth"):
        st_lpips(text)
    with pytest.raises(ValueError, match=r"cannot be read, .* \(the weights are alex_shift_tolerant.pth"):
        st_lpips(tmp_path)
    for path in (other, odd):
        with pytest.raises(
            ValueError, match=r"contains different weights: scaling_layer.shift is missing, not \(1, 3, 1, 1\)"
        ):
            st_lpips(path)


def test_code_in_a_file_of_weights_does_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save(Evil(), tmp_path / "evil.pth")
    with pytest.raises(ValueError, match=r"evil.pth cannot be read"):
        st_lpips(tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


def test_one_wrong_shape_is_named(folder, tmp_path):
    state = dict(torch.load(folder / FILE, map_location="cpu", weights_only=True))
    state["lin2.model.1.weight"] = state["lin2.model.1.weight"][:, :100]
    torch.save(state, tmp_path / "cut.pth")
    with pytest.raises(ValueError, match=r"lin2.model.1.weight is \(1, 100, 1, 1\), not \(1, 384, 1, 1\)"):
        st_lpips(tmp_path / "cut.pth")
