"""Every kind of picture comes back as the kind it was; what does not fit is refused with what would."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from f2d.degradation import FACTORS, degrade, degrade_batch, synthesis

CATEGORY = "low_haze_rain"


@pytest.fixture(scope="module")
def bytes_():
    return np.random.default_rng(0).integers(0, 256, (20, 31, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def truth(bytes_):
    """The float32 tensor result for the same picture."""
    return degrade(torch.from_numpy(bytes_).permute(2, 0, 1).float() / 255, CATEGORY, seed=3)


def test_8_bits(bytes_, truth):
    expected = (truth.image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    array = degrade(bytes_, CATEGORY, seed=3)
    assert array.image.dtype == np.uint8 and np.array_equal(array.image, expected)
    picture = degrade(Image.fromarray(bytes_), CATEGORY, seed=3)
    assert isinstance(picture.image, Image.Image) and picture.image.mode == "RGB" and picture.image.size == (31, 20)
    assert np.array_equal(np.asarray(picture.image), expected)
    assert torch.equal(array.maps, truth.maps) and torch.equal(picture.maps, truth.maps)


def test_a_pillow_image_keeps_its_profile(bytes_, tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(bytes_).save(tmp_path / "given.png", icc_profile=profile)
    with Image.open(tmp_path / "given.png") as given:
        degrade(given, CATEGORY, seed=3).image.save(tmp_path / "hard.png")
    with Image.open(tmp_path / "hard.png") as hard:
        assert hard.info["icc_profile"] == profile


@pytest.mark.parametrize("space", [b"GRAY", b"CMYK"])
def test_a_profile_that_is_not_one_of_rgb_goes(bytes_, space):
    given = Image.fromarray(bytes_)
    given.info["icc_profile"] = bytes(16) + space + bytes(108)  # Image.convert("RGB") leaves it so
    assert "icc_profile" not in degrade(given, CATEGORY, seed=3).image.info


@pytest.mark.parametrize("dtype", [np.float32, np.float64, ">f4"])
def test_floating_arrays(bytes_, truth, dtype):
    hard = degrade((bytes_.astype(np.float32) / 255).astype(dtype), CATEGORY, seed=3)
    assert hard.image.dtype == np.dtype(dtype) and hard.image.shape == bytes_.shape
    assert np.array_equal(hard.image, truth.image.permute(1, 2, 0).numpy())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_tensors(bytes_, dtype):
    clean = (torch.from_numpy(bytes_).permute(2, 0, 1).float() / 255).to(dtype)
    expected = degrade(clean.float(), CATEGORY, seed=3)
    single, batch = degrade(clean, CATEGORY, seed=3), degrade(clean[None], CATEGORY, seed=3)
    assert single.image.dtype == dtype and single.image.shape == clean.shape and single.maps.shape == (4, 20, 31)
    assert batch.image.dtype == dtype and batch.image.shape == (1, *clean.shape) and batch.maps.shape == (1, 4, 20, 31)
    assert torch.equal(single.image, expected.image.to(dtype)) and torch.equal(batch.image[0], single.image)
    assert single.maps.dtype == torch.float32 and torch.equal(single.maps, expected.maps)
    images, maps, labels, _ = degrade_batch(clean[None], [CATEGORY], [3])
    assert images.dtype == dtype and torch.equal(images[0], single.image) and torch.equal(maps[0], single.maps)
    assert labels.tolist() == [[1, 1, 1, 0]]


def test_read_only_and_strided_arrays(bytes_):
    expected = degrade(bytes_[:, ::-1].copy(), CATEGORY, seed=3).image
    view = bytes_[:, ::-1]
    view.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(degrade(view, CATEGORY, seed=3).image, expected)


@pytest.mark.parametrize("seed", [np.int64(3), np.uint8(3), torch.tensor(3), [3], (3,), range(3, 4)])
def test_seeds_of_other_kinds(bytes_, truth, seed):
    hard = degrade(bytes_, CATEGORY, seed=seed)
    assert hard.seed == 3 and type(hard.seed) is int and torch.equal(hard.maps, truth.maps)


GOOD = torch.full((3, 6, 8), 0.5)
NAN = GOOD.clone().index_fill_(1, torch.tensor([2]), float("nan"))
REFUSED = [
    (TypeError, "PIL image, an array or a tensor, got list", {"image": [[0.5]]}),
    (TypeError, "got str", {"image": "photo.png"}),
    (ValueError, r"must have mode RGB .*got RGBA", {"image": Image.new("RGBA", (8, 6))}),
    (ValueError, r"must have mode RGB .*got L", {"image": Image.new("L", (8, 6))}),
    (ValueError, r"must be \[H,W,3\], got \(6, 8\)", {"image": np.zeros((6, 8))}),
    (ValueError, r"must be \[H,W,3\], got \(3, 6, 8\)", {"image": np.zeros((3, 6, 8))}),
    (ValueError, r"\(0, 8, 3\)", {"image": np.zeros((0, 8, 3))}),
    (ValueError, r"must be uint8.*got int64", {"image": np.zeros((6, 8, 3), np.int64)}),
    (ValueError, r"must be uint8.*got bool", {"image": np.zeros((6, 8, 3), bool)}),
    (ValueError, r"values must lie in \[0, 1\], got \[0, 255\]", {"image": np.linspace(0, 255, 144).reshape(6, 8, 3)}),
    (ValueError, r"must be \[3,H,W\].*got .* torch.uint8", {"image": torch.zeros(3, 6, 8, dtype=torch.uint8)}),
    (ValueError, r"\(1, 6, 8\)", {"image": GOOD[:1]}),
    (ValueError, r"\(6, 8\)", {"image": GOOD[0]}),
    (ValueError, r"\(1, 1, 3, 6, 8\)", {"image": GOOD[None, None]}),
    (ValueError, r"\(0, 3, 6, 8\)", {"image": GOOD[None][:0]}),
    (ValueError, r"\(3, 0, 8\)", {"image": GOOD[:, :0]}),
    (ValueError, r"\[-0.5, -0.5\]", {"image": -GOOD}),
    (ValueError, r"\[1.5, 1.5\]", {"image": 3 * GOOD}),
    (ValueError, "nan", {"image": NAN}),
    (ValueError, "nan", {"image": NAN.permute(1, 2, 0).numpy()}),
    (ValueError, "got 'fog'", {"category": "fog"}),
    (ValueError, "got 'rain_snow'", {"category": "rain_snow"}),
    (TypeError, "string such as 'low_haze_rain', got int", {"category": 3}),
    (TypeError, "whole number or a list of them, got float", {"seed": 1.0}),
    (TypeError, "got bool", {"seed": True}),
    (TypeError, "got NoneType", {"seed": None}),
    (TypeError, "got str", {"seed": "7"}),
    (TypeError, "got ndarray", {"seed": np.array([1, 2])}),
    (TypeError, "got float", {"image": GOOD[None].repeat(2, 1, 1, 1), "seed": [1, 2.0]}),
    (ValueError, r"seed must lie in \[-2\^63, 2\^64\)", {"seed": 2**64}),
    (ValueError, r"seed must lie in \[-2\^63, 2\^64\)", {"seed": -(2**63) - 1}),
    (ValueError, "seeds must be one, or one for each of 1 images, got 2", {"seed": [1, 2]}),
    (ValueError, "seeds must be one, or one for each of 1 images, got 0", {"seed": []}),
    (
        ValueError,
        "seeds must be one, or one for each of 2 images, got 1",
        {"image": GOOD[None].repeat(2, 1, 1, 1), "seed": [1]},
    ),
    (ValueError, r"depth must be \[H,W\] = \(6, 8\).*got \(8, 6\)", {"depth": torch.zeros(8, 6)}),
    (ValueError, r"light must be .*got \(1, 6, 8\)", {"light": torch.zeros(1, 6, 8)}),
    (ValueError, "rain must lie in", {"rain": torch.full((6, 8), 2.0)}),
    (ValueError, "snow must lie in", {"snow": torch.full((6, 8), -0.1)}),
    (ValueError, "depth must lie in", {"depth": torch.full((6, 8), float("nan"))}),
    (TypeError, r"rain must be a tensor or an array \[H,W\], got str", {"rain": "mask.png"}),
    (TypeError, "light must be a tensor or an array", {"light": [[0.5, 0.5], [0.5]]}),
    (TypeError, r"parameters must be factor -> name -> value.*got 3", {"parameters": 3}),
    (TypeError, r"parameters must be factor.*got 3", {"parameters": [3]}),
    (TypeError, "parameters must be factor -> name -> value", {"parameters": {"low": 2.5}}),
    (ValueError, "no factor 'fog', only low, haze, rain, snow", {"parameters": {"fog": {}}}),
    (ValueError, "low has no parameter 'gama', only gamma, noise", {"parameters": {"low": {"gama": 2.0}}}),
    (ValueError, "rain has no parameter 'beta', only angle", {"parameters": {"rain": {"beta": 2.0}}}),
    (ValueError, r"gamma of low must be a finite number.*got 'dark'", {"parameters": {"low": {"gamma": "dark"}}}),
    (ValueError, "beta of haze must be a finite number, got nan", {"parameters": {"haze": {"beta": float("nan")}}}),
    (ValueError, "parameters must be one, or one for each of 1 images, got 2", {"parameters": [{}, {}]}),
]


@pytest.mark.parametrize(("error", "words", "changes"), REFUSED)
def test_refused(error, words, changes):
    with pytest.raises(error, match=f"degrade: .*{words}" if "category" not in changes else words):
        degrade(**{"image": GOOD, "category": "haze", "seed": 0} | changes)


@pytest.mark.parametrize(
    ("error", "words", "changes"),
    [
        (ValueError, "a category and seed per image, got 2, 1, 2", {"categories": ["low"]}),
        (ValueError, "a category and seed per image, got 2, 2, 3", {"seeds": [1, 2, 3]}),
        (ValueError, "category must be one of", {"categories": ["low", "fog"]}),
        (TypeError, "category must be a string", {"categories": ["low", None]}),
        (TypeError, "whole number", {"seeds": [1, 2.5]}),
        (ValueError, "seed must lie in", {"seeds": [1, 2**64]}),
        (
            ValueError,
            r"clean must be \[B,3,H,W\], got \(3, 6, 8\)",
            {"clean": GOOD, "categories": ["low"] * 3, "seeds": [1, 2, 3]},
        ),
        (ValueError, r"\(2, 1, 6, 8\)", {"clean": torch.zeros(2, 1, 6, 8)}),
        (ValueError, "values must lie in", {"clean": torch.full((2, 3, 6, 8), 1.5)}),
    ],
)
def test_refused_batches(error, words, changes):
    with pytest.raises(error, match=words):
        degrade_batch(
            **{"clean": GOOD[None].repeat(2, 1, 1, 1), "categories": ["low", "haze"], "seeds": [1, 2]} | changes
        )


def test_refused_before_work_is_done(monkeypatch):
    def fail(*_):
        raise AssertionError("work was done")

    monkeypatch.setattr("f2d.degradation.synthesis._all", fail)
    pair = GOOD[None].repeat(2, 1, 1, 1)
    with pytest.raises(TypeError):
        degrade(pair, "low", seed=[1, "x"])
    with pytest.raises(ValueError):
        degrade(pair, "low", seed=1, parameters=[{}, {"low": {"x": 1}}])
    with pytest.raises(TypeError):
        degrade_batch(pair, ["low", "low"], [1, "x"])


@pytest.mark.parametrize(
    ("factor", "name", "value"),
    [
        ("low", "gamma", -1.0),
        ("low", "gamma", 0),
        ("low", "noise", -0.1),
        ("haze", "beta", -1.0),
        ("haze", "airlight", 1.1),
        ("rain", "angle", 35.0),
        ("rain", "density", -1e-3),
        ("rain", "length", 1e9),
        ("rain", "veil", -0.1),
        ("snow", "size", 0),
        ("snow", "size", -1.0),
        ("snow", "opacity", 2.0),
        ("snow", "blur", -1.0),
    ],
)
def test_parameters_out_of_range_are_named(factor, name, value):
    with pytest.raises(ValueError, match=rf"{name} of {factor} must lie in .* to .*, got {value}"):
        degrade(torch.rand(3, 8, 8), factor, seed=1, parameters={factor: {name: value}})


@pytest.mark.parametrize("factor", FACTORS)
def test_ends_of_the_ranges_give_pictures(factor):
    """Every limit on its own, of kernels as large as the limits allow."""
    clean = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    ranges = synthesis._MODULES[factor].RANGES
    for seed in range(20):
        drawn = degrade(clean, factor, seed=seed).parameters[factor]
        assert drawn.keys() == ranges.keys()
        assert all(ranges[name][0] <= value <= ranges[name][1] for name, value in drawn.items())
    for name, ends in ranges.items():
        for value in ends:
            image = degrade(clean, factor, seed=1, parameters={factor: {name: value}}).image
            assert image.isfinite().all() and image.min() >= 0 and image.max() <= 1, (name, value)
