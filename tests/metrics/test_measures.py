"""Measures by name: which there are, in what order, and what is said of one that cannot be had."""

import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError

import pytest

from f2d.metrics import sharpness
from f2d.metrics.conventions import CONVENTIONS
from f2d.metrics.measures import NAMES, OF_METHODS, PICTURES, SETS, SHARPNESS, find, find_sets
from tests.metrics.pictures import noisy, photograph


def _keys(measures) -> list[str]:
    return [measure.about.key for measure in measures]


def test_each_measure_once_in_the_order_asked_for():
    measures, absent = find(["f2dnet", "onerestore"], ["niqe", "mae", "niqe", "sharpness"])
    own, other = ["psnr y 8bit", "ssim y 8bit 7x7"], ["psnr rgb 8bit", "ssim rgb 8bit 7x7"]
    assert _keys(measures) == [*own, *other, "niqe", "mae rgb 8bit", "sharpness"] and absent == {}
    assert len(find([*CONVENTIONS], [])[0]) == 14
    assert find([], []) == ([], {}) and find_sets(["niqe"]) == ([], {})


def test_unknown_names():
    with pytest.raises(ValueError, match=r"convention must be one of onerestore, moce-ir.*got 'nafnet'"):
        find(["nafnet"], [])
    for call in (lambda: find([], ["vmaf"]), lambda: find_sets(["vmaf"])):
        with pytest.raises(ValueError, match=r"measure must be one of mae, .*, fid.*got 'vmaf'"):
            call()
    assert (*PICTURES, *OF_METHODS, *SETS) == NAMES and SETS == ("fid",)


def test_st_lpips_wants_its_weights(shared, tmp_path):
    measures, absent = find([], ["st-lpips", "mae"])
    assert _keys(measures) == ["mae rgb 8bit"] and "alex_shift_tolerant.pth" in absent["st-lpips"]
    weights = shared / "data/metrics/stlpips/alex_shift_tolerant.pth"
    assert _keys(find([], ["st-lpips"], stlpips_weights=weights)[0]) == ["st-lpips alex"]
    with pytest.raises(ValueError, match="there is no file"):
        find([], ["st-lpips"], stlpips_weights=tmp_path / "none.pth")


@pytest.fixture
def bare(monkeypatch):
    """As where neither torchvision, torch-fidelity nor pyiqa is installed."""
    monkeypatch.setattr("torchmetrics.image.lpip._TORCHVISION_AVAILABLE", False)
    monkeypatch.setattr("torchmetrics.functional.image.dists._TORCHVISION_AVAILABLE", False)
    monkeypatch.setattr("torchmetrics.image.fid._TORCH_FIDELITY_AVAILABLE", False)
    monkeypatch.setitem(sys.modules, "pyiqa", None)


def test_packages_that_are_not_here(bare):
    measures, absent = find([], ["lpips", "dists", "mae", "musiq", "clip-iqa", "fid"])
    sets, absent_sets = find_sets(["fid", "mae"])
    assert _keys(measures) == ["mae rgb 8bit"] and sets == []
    advice = {
        "lpips": "pip install torchmetrics torchvision",
        "dists": "pip install 'torchmetrics>=1.7' torchvision",
        "musiq": "pip install pyiqa",
        "clip-iqa": "pip install pyiqa",
        "fid": "pip install torchmetrics torch-fidelity",
    }
    absent |= absent_sets
    assert list(absent) == list(advice)
    for name, reason in absent.items():
        assert reason.startswith("a package is not installed (") and "\n" not in reason
        assert reason.endswith(advice[name])


@pytest.mark.parametrize(
    "error", [URLError("no route to host"), OSError("no route to host"), RuntimeError("no route to host\nat line 3")]
)
def test_weights_that_cannot_be_downloaded(error, monkeypatch):
    def create_metric(*_, **__):
        raise error

    monkeypatch.setitem(sys.modules, "pyiqa", SimpleNamespace(create_metric=create_metric))
    measures, absent = find([], ["musiq", "niqe"])
    assert _keys(measures) == ["niqe"]
    assert "could not be loaded (" in absent["musiq"] and "no route to host" in absent["musiq"]
    assert "\n" not in absent["musiq"] and "downloads the weights" in absent["musiq"]


def test_no_library_of_networks_is_imported_before_it_is_asked_for():
    code = (
        "import sys; from f2d.metrics.measures import find, NAMES; from f2d.metrics.conventions import CONVENTIONS\n"
        "find([*CONVENTIONS], ['mae', 'sharpness', 'niqe', 'affine-psnr', 'spread', 'st-lpips'])\n"
        "print({'torchmetrics', 'torchvision', 'pyiqa', 'torch_fidelity', 'skimage'} & {*sys.modules})"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


def test_sharpness_as_a_measure():
    clean = photograph("coffee", (40, 50))
    restored = noisy(clean, 10)
    rounded = (restored.clamp(0, 1) * 255).round() / 255
    assert SHARPNESS(restored, clean) == pytest.approx(float(sharpness(rounded[None], clean[None])), rel=1e-6)
    assert SHARPNESS(clean, clean) == 1 < SHARPNESS(restored, clean)
    assert math.isnan(SHARPNESS(clean[:, :1], clean[:, :1]))
    with pytest.raises(ValueError, match="sharpness: restored image and ground truth must"):
        SHARPNESS(clean, None)
