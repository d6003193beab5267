"""What holds for every size, category and seed; and the maps are the truth."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, kstest, uniform

from f2d.degradation import CATEGORIES, FACTORS, degrade, parse_category, varied_parameters

seeds = st.integers(-(2**63), 2**64 - 1)
sides = st.integers(1, 40)


def picture(height, width, seed, scale=1.0):
    return scale * torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed % 2**32))


@settings(max_examples=150, deadline=None)
@given(
    height=sides, width=sides, category=st.sampled_from(CATEGORIES), seed=seeds, scale=st.sampled_from([0.0, 0.5, 1.0])
)
def test_any_picture(height, width, category, seed, scale):
    clean = picture(height, width, seed, scale)
    hard = degrade(clean, category, seed=seed)
    assert hard.image.shape == clean.shape and hard.maps.shape == (4, height, width)
    for values in (hard.image, hard.maps):  # NaN and infinity fail these too
        assert values.min() >= 0 and values.max() <= 1
    assert set(hard.parameters) == set(category.split("_"))
    for factor, present in zip(hard.maps, (f in category.split("_") for f in FACTORS), strict=True):
        assert present or not factor.any()
    low, haze = hard.parameters.get("low"), hard.parameters.get("haze")
    assert low is None or (2 <= low["gamma"] <= 3 and 0.03 <= low["noise"] <= 0.08)
    assert low is None or low["exposure"] == 1
    assert haze is None or (1 <= haze["beta"] <= 2 and 0.6 <= haze["airlight"] <= 0.9)
    assert haze is None or haze["red"] == haze["blue"] == haze["veil"] == 0


@settings(max_examples=60, deadline=None)
@given(height=sides, width=sides, category=st.sampled_from(CATEGORIES), seed=seeds, varied=st.booleans())
def test_maps_and_airlight_make_the_picture(height, width, category, seed, varied):
    clean = picture(height, width, seed)
    chosen = varied_parameters(category, seed) if varied else {}
    hard = degrade(clean, category, seed=seed, parameters=chosen | {"low": chosen.get("low", {}) | {"noise": 0.0}})
    low, haze, rain, snow = hard.maps.double()
    x = clean.double() * (1 - low) + rain
    x = x * (1 - snow) + snow
    air = hard.parameters.get("haze", {"airlight": 0.0, "red": 0.0, "blue": 0.0})
    colour = air["airlight"] * torch.tensor([1 + air["red"], 1, 1 + air["blue"]], dtype=torch.float64)
    x = x * (1 - haze) + colour.clamp(max=1)[:, None, None] * haze
    # the gain's float32 error is 3e-6 of it; the tiny 1e-7 of the formula vanishes beside that
    torch.testing.assert_close(hard.image.double(), x.clamp(0, 1), atol=2e-5, rtol=0)


@settings(max_examples=60, deadline=None)
@given(category=st.sampled_from(CATEGORIES), seed=seeds)
def test_varied_parameters_are_accepted_and_follow_the_seed(category, seed):
    chosen = varied_parameters(category, seed)
    assert set(chosen) == set(category.split("_")) and chosen == varied_parameters(category, seed)
    assert chosen != varied_parameters(category, (seed + 1) % 2**63)
    used = degrade(picture(20, 20, seed), category, seed=seed, parameters=chosen).parameters
    assert all(used[factor] | values == used[factor] for factor, values in chosen.items())


def test_varied_parameters_leave_the_published_ranges():
    """Half of the ranges are outside, to both sides where there is room: the beta of haze and the noise of the dark."""
    betas = [varied_parameters("haze", seed)["haze"]["beta"] for seed in range(200)]
    assert min(betas) < 0.5 and max(betas) > 2.5
    veils = [varied_parameters("haze", seed)["haze"]["veil"] for seed in range(200)]
    assert 0.3 < sum(veil == 0 for veil in veils) / 200 < 0.7 and max(veils) > 0.8
    noises = [varied_parameters("low", seed)["low"]["noise"] for seed in range(200)]
    assert min(noises) < 0.005


def test_three_quarters_of_the_wider_haze_have_resides_airlight():
    """U(0.7, 1) three times as often as U(0.3, 1): 6/7 of the samples have at least 0.7, and the darkest reach dusk."""
    airlights = [varied_parameters("haze", seed)["haze"]["airlight"] for seed in range(600)]
    assert 0.3 <= min(airlights) < 0.34 and 0.98 < max(airlights) <= 1
    assert binomtest(sum(airlight >= 0.7 for airlight in airlights), 600, 6 / 7).pvalue > 1e-3
    assert kstest(airlights, lambda a: 0.75 * uniform.cdf(a, 0.7, 0.3) + 0.25 * uniform.cdf(a, 0.3, 0.7)).pvalue > 1e-3


@pytest.mark.parametrize("category", ["haze_rain", "low_haze_rain"])
def test_rain_has_the_airlight_of_its_clouds(category):
    airlights = [varied_parameters(category, seed)["haze"]["airlight"] for seed in range(600)]
    assert kstest(airlights, uniform(0.3, 0.55).cdf).pvalue > 1e-3


def test_three_in_ten_of_the_wider_showers_are_sheets_of_long_streaks():
    """30 % have a veil of at least 0.05 and streaks of 40 to 140 pixels; the others at most 0.08 and 60 pixels."""
    showers = [varied_parameters("rain", seed)["rain"] for seed in range(600)]
    sheets = [shower for shower in showers if "contrast" in shower]
    assert binomtest(len(sheets), 600, 0.3).pvalue > 1e-3
    for name, low, high in (("length", 40, 140), ("veil", 0.05, 0.2), ("contrast", 0.4, 1.0), ("width", 0.5, 1.2)):
        assert kstest([sheet[name] for sheet in sheets], uniform(low, high - low).cdf).pvalue > 1e-3
    others = [shower for shower in showers if "contrast" not in shower]
    assert max(shower["length"] for shower in others) <= 60 and max(shower["veil"] for shower in others) <= 0.08


@pytest.mark.parametrize("category", ["haze", "haze_rain", "haze_snow"])
def test_haze_inverted_with_its_map_gives_the_clean_picture(category):
    clean = picture(60, 80, 1)
    hard = degrade(clean, category, seed=4)
    airlight, (_, haze, rain, snow) = hard.parameters["haze"]["airlight"], hard.maps
    x = (hard.image - airlight * haze) / (1 - haze)
    x = (x - snow) / (1 - snow).clamp(min=1e-3) - rain
    open_sky = ((hard.image > 0) & (hard.image < 1) & (snow < 0.9)).expand_as(x)
    assert open_sky.float().mean() > 0.8
    torch.testing.assert_close(x[open_sky], clean[open_sky], atol=2e-5, rtol=0)


def test_every_factor_is_seen():
    clean = picture(120, 160, 2)
    for index, factor in enumerate(FACTORS):
        for seed in range(5):
            hard = degrade(clean, factor, seed=seed)
            assert hard.maps[index].mean() > 0.005 and hard.maps[index].std() > 0.002
            assert (hard.image - clean).abs().mean() > 0.004


def test_external_maps_are_the_maps_returned():
    clean = picture(24, 30, 3)
    rain, snow = picture(24, 30, 4)[0], picture(24, 30, 5)[0]
    assert torch.equal(degrade(clean, "low_haze_rain", seed=0, rain=rain).maps[2], rain)
    assert torch.equal(degrade(clean, "low_haze_snow", seed=0, snow=snow).maps[3], snow)
    near = degrade(clean, "haze", seed=0, depth=torch.ones(24, 30))
    assert torch.equal(near.image, clean) and not near.maps.any()
    far = degrade(clean, "haze", seed=0, depth=np.zeros((24, 30)))
    lost = 1 - np.exp(-0.7 * far.parameters["haze"]["beta"])
    torch.testing.assert_close(far.maps[1], torch.full((24, 30), lost, dtype=torch.float32))


def test_external_maps_serve_a_whole_batch():
    clean = torch.stack([picture(24, 30, 3), picture(24, 30, 4)])
    maps = {name: picture(24, 30, k)[0] for k, name in enumerate(("light", "depth", "rain", "snow"), start=5)}
    for category in ("low_haze_rain", "low_haze_snow"):
        hard = degrade(clean, category, seed=[1, 2], **maps)
        for b in (0, 1):
            alone = degrade(clean[b], category, seed=b + 1, **maps)
            assert torch.equal(hard.image[b], alone.image) and torch.equal(hard.maps[b], alone.maps)


@given(st.permutations(FACTORS), st.integers(1, 4))
def test_category_names(order, count):
    chosen = order[:count]
    if {"rain", "snow"} <= set(chosen):
        with pytest.raises(ValueError, match="category must be one of"):
            parse_category("_".join(chosen))
    else:
        name = parse_category("_".join(chosen))
        assert name in CATEGORIES and sorted(name.split("_")) == sorted(chosen)


@pytest.mark.parametrize("name", ["", "fog", "low_", "low_low", "LOW", "rain_snow", "low_haze_rain_snow", "low-haze"])
def test_no_such_category(name):
    with pytest.raises(ValueError, match="low_haze_snow"):
        parse_category(name)
