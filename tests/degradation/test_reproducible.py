"""The same (clean, category, seed) gives the same bytes, wherever, beside whatever and however often."""

import json
import random

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from f2d.degradation import CATEGORIES, degrade, degrade_batch, fields

SEEDS = (-(2**63), -(2**63) + 1, -2, -1, 0, 1, 2, 2**31, 2**32, 2**63 - 1, 2**63, 2**63 + 1, 2**64 - 2, 2**64 - 1)


@pytest.fixture(scope="module")
def clean():
    return torch.rand(3, 37, 45, generator=torch.Generator().manual_seed(0))


def same(a, b):
    return torch.equal(a.image, b.image) and torch.equal(a.maps, b.maps) and a.parameters == b.parameters


@pytest.mark.parametrize("category", CATEGORIES)
def test_same_seed_same_bytes(clean, category):
    first = degrade(clean, category, seed=5)
    torch.manual_seed(123)
    assert same(first, degrade(clean, category, seed=5))
    other = degrade(clean, category, seed=6)
    assert not torch.equal(first.image, other.image) and first.parameters != other.parameters


@pytest.mark.parametrize("factor", ["low", "haze", "rain", "snow"])
def test_seeds_of_the_whole_range_differ(factor):
    clean = torch.full((3, 9, 9), 0.5)
    seeds = [*SEEDS, *range(3, 200)]
    done = [degrade(clean, factor, seed=seed) for seed in seeds]
    assert [d.seed for d in done] == seeds
    assert len({json.dumps(d.parameters) for d in done}) == len(seeds)
    assert len({d.image.numpy().tobytes() for d in done}) == len(seeds)


@pytest.mark.parametrize(
    ("factor", "name", "low", "high"),
    [("low", "gamma", 2, 3), ("low", "noise", 0.03, 0.08), ("haze", "beta", 1, 2), ("haze", "airlight", 0.6, 0.9)],
)
def test_parameters_are_drawn_as_published(factor, name, low, high):
    clean = torch.full((3, 1, 1), 0.5)
    drawn = [degrade(clean, factor, seed=seed).parameters[factor][name] for seed in range(600)]
    assert low <= min(drawn) and max(drawn) <= high
    assert kstest(drawn, "uniform", args=(low, high - low)).pvalue > 1e-3
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 4 / 600**0.5  # neighbouring seeds share nothing


def test_factors_draw_from_streams_of_their_own(clean):
    seed = 9
    for index, factor in enumerate(("low", "haze", "rain", "snow")):
        alone = degrade(clean, factor, seed=seed)
        for category in (c for c in CATEGORIES if factor in c.split("_")):
            together = degrade(clean, category, seed=seed)
            assert together.parameters[factor] == alone.parameters[factor], category
            assert torch.equal(together.maps[index], alone.maps[index]), category
    drawn = [degrade(torch.full((3, 1, 1), 0.5), "low_haze", seed=s).parameters for s in range(400)]
    pairs = [(p["low"]["gamma"], p["haze"]["beta"]) for p in drawn]
    assert abs(np.corrcoef(np.transpose(pairs))[0, 1]) < 4 / 400**0.5


def test_a_sample_of_a_batch_is_what_it_is_alone(clean):
    batch = torch.stack([clean * scale for scale in torch.linspace(0.5, 1, len(CATEGORIES))])
    seeds = [10 + i for i in range(len(CATEGORIES))]
    for layout in (torch.contiguous_format, torch.channels_last):
        laid = batch.to(memory_format=layout)
        images, maps, labels, parameters = degrade_batch(laid, CATEGORIES, seeds)
        for i, (category, seed) in enumerate(zip(CATEGORIES, seeds, strict=True)):
            alone = degrade(batch[i], category, seed=seed)
            assert torch.equal(images[i], alone.image) and torch.equal(maps[i], alone.maps)
            assert parameters[i] == alone.parameters
            assert labels[i].tolist() == [float(f in category.split("_")) for f in ("low", "haze", "rain", "snow")]
        many = degrade(laid, "low_haze_rain", seed=seeds)
        one_seed = degrade(laid, "low_haze_rain", seed=3)
        assert many.seed == seeds and one_seed.seed == [3] * len(seeds)
        for i, seed in enumerate(seeds):
            alone = degrade(batch[i], "low_haze_rain", seed=seed)
            assert torch.equal(many.image[i], alone.image) and torch.equal(many.maps[i], alone.maps)
            assert many.parameters[i] == alone.parameters
            assert torch.equal(one_seed.image[i], degrade(batch[i], "low_haze_rain", seed=3).image)


@pytest.mark.parametrize("together", [1, 5 * 64 * 64, 2**30])
def test_how_many_samples_are_degraded_together_changes_no_byte(monkeypatch, together):
    """Crops of a training batch, degraded one by one, five at a time and all at once."""
    clean = torch.rand(12, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    names, seeds = [*CATEGORIES, "low_snow"], list(range(50, 62))
    monkeypatch.setattr("f2d.degradation.synthesis.TOGETHER", together)
    images, maps, _, parameters = degrade_batch(clean, names, seeds)
    for b, (name, seed) in enumerate(zip(names, seeds, strict=True)):
        alone = degrade(clean[b], name, seed=seed)
        assert torch.equal(images[b], alone.image) and torch.equal(maps[b], alone.maps), name
        assert parameters[b] == alone.parameters


@pytest.mark.parametrize("category", CATEGORIES)
def test_recorded_parameters_reproduce_the_picture(clean, category):
    changed = {
        "low": {"gamma": 2.9},
        "haze": {"beta": 1.1, "airlight": 0.7},
        "rain": {"angle": 0.3, "streaks": 0.4},
        "snow": {"opacity": 0.9},
    }
    first = degrade(clean, category, seed=21, parameters=changed)
    for factor in category.split("_"):
        assert changed[factor].items() <= first.parameters[factor].items()
    assert not torch.equal(first.image, degrade(clean, category, seed=21).image)
    record = json.loads(json.dumps({"category": first.category, "seed": first.seed, "parameters": first.parameters}))
    assert same(first, degrade(clean, **record))


@pytest.mark.parametrize("together", [1, 2**30])
def test_recorded_parameters_of_a_batch_reproduce_it(monkeypatch, clean, together):
    monkeypatch.setattr("f2d.degradation.synthesis.TOGETHER", together)
    batch = torch.stack([clean, clean.flip(1)])
    first = degrade(batch, "low_haze_snow", seed=[1, 2], parameters=[{"low": {"gamma": 2.0}}, {"snow": {"blur": 2}}])
    record = json.loads(json.dumps({"category": first.category, "seed": first.seed, "parameters": first.parameters}))
    assert first.parameters[0] != first.parameters[1] and same(first, degrade(batch, **record))


def test_global_generators_are_left_alone(clean):
    def states():
        return bytes(torch.get_rng_state()), np.random.get_state(legacy=True), random.getstate()

    before = states()
    degrade(clean, "low_haze_rain", seed=1)
    degrade(clean, "low_haze_snow", seed=1)
    after = states()
    assert after[0] == before[0] and after[2] == before[2]
    assert all(np.array_equal(a, b) for a, b in zip(after[1], before[1], strict=True))


@pytest.mark.parametrize("category", ["low", "haze", "rain", "snow"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_default_dtype_changes_no_byte(clean, category, dtype):
    """Random numbers of another type are others, and the weights of smooth fields are kept once computed."""
    fields._bicubic.cache_clear()
    torch.set_default_dtype(dtype)
    try:
        found = degrade(clean, category, seed=5)
    finally:
        torch.set_default_dtype(torch.float32)
    fields._bicubic.cache_clear()
    assert same(found, degrade(clean, category, seed=5)) and found.image.dtype == torch.float32


def test_the_default_device_changes_no_byte(clean):
    fields._bicubic.cache_clear()
    with torch.device("meta"):  # for any device but the picture's
        found = degrade(clean, "low_haze_rain", seed=5)
    fields._bicubic.cache_clear()
    assert same(found, degrade(clean, "low_haze_rain", seed=5))


def test_number_of_threads_changes_no_byte():
    # an odd number of pixels, and enough of them that PyTorch divides its loops among threads
    clean = torch.rand(3, 321, 481, generator=torch.Generator().manual_seed(0))
    threads = torch.get_num_threads()
    try:
        for category, seed in (("low_haze_rain", 3), ("snow", 6)):
            done = []
            for number in (1, 2):
                torch.set_num_threads(number)
                done.append(degrade(clean, category, seed=seed))
            assert same(*done), category
    finally:
        torch.set_num_threads(threads)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("category", CATEGORIES)
def test_a_gpu_makes_the_same_picture_up_to_rounding(clean, category):
    here, there = degrade(clean, category, seed=11), degrade(clean.cuda(), category, seed=11)
    assert there.image.is_cuda and there.maps.is_cuda and there.parameters == here.parameters
    torch.testing.assert_close(there.image.cpu(), here.image, atol=2e-3, rtol=0)
    torch.testing.assert_close(there.maps.cpu(), here.maps, atol=2e-3, rtol=0)


def test_the_clean_picture_is_not_touched(clean):
    before = clean.clone()
    for category in CATEGORIES:
        degrade(clean, category, seed=0)
        degrade_batch(clean[None], [category], [0])
    assert torch.equal(clean, before)
