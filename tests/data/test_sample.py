"""Drafts and batches: what is synthesised, from what, and in which order its labels are."""

import io
import itertools
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader

import f2d
from f2d.data import Sample, finish, stack
from f2d.degradation import CATEGORIES, FACTORS, degrade, varied_parameters
from f2d.images import to_picture

FIVE = ("noise", "haze", "rain", "blur", "low")


def clean_picture(seed: int = 0, size: int = 24) -> torch.Tensor:
    grid = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(grid, (size, size), mode="bilinear")[0]


@settings(deadline=None)
@given(st.permutations(FACTORS), st.sampled_from(CATEGORIES), st.integers(0, 2**62))
def test_labels_and_maps_are_in_the_network_s_order(factors, category, seed):
    clean = clean_picture(size=16)
    batch = finish(stack([Sample(clean, None, category, seed)]), tuple(factors))
    known = f2d.degrade(clean, category, seed=seed)
    assert torch.equal(batch.degraded[0], known.image)
    for k, factor in enumerate(factors):
        assert batch.labels[0, k] == (factor in category.split("_"))
        assert torch.equal(batch.maps[0, k], known.maps[FACTORS.index(factor)])
    assert batch.categories == (category,) and batch.seeds.tolist() == [seed]


def test_a_sample_is_what_it_would_be_alone():
    names = ("low_haze_rain", "clear", "noise25", "snow", "noise", "jpeg10")
    factors = (*FACTORS, "noise", "jpeg")
    samples = [Sample(clean_picture(i), None, name, 1000 + i) for i, name in enumerate(names)]
    samples.append(Sample(clean_picture(7), clean_picture(8), "rain", 5))
    whole = finish(stack(samples), factors)
    for b, sample in enumerate(samples):
        alone = finish(stack([sample]), factors)
        for field in ("degraded", "clean", "maps", "labels", "seeds"):
            assert torch.equal(getattr(alone, field)[0], getattr(whole, field)[b]), (field, sample.category)
    assert torch.equal(whole.degraded[1], whole.clean[1]) and not whole.labels[1].any() and not whole.maps[1].any()
    assert torch.equal(whole.degraded[6], samples[6].degraded)


def test_a_share_of_the_composites_is_varied():
    """A varied sample has the parameters of its seed, and the others are as published."""
    names = ("low", "haze", "rain", "snow")
    samples = [Sample(clean_picture(seed), None, name, seed) for seed in range(20) for name in names]
    published, some, varied = (finish(stack(samples), FACTORS, share) for share in (0.0, 0.5, 1.0))
    changed = [not torch.equal(a, b) for a, b in zip(some.degraded, published.degraded, strict=True)]
    assert 20 < sum(changed) < 60
    for b, (sample, other) in enumerate(zip(samples, changed, strict=True)):
        assert torch.equal(some.degraded[b], (varied if other else published).degraded[b])
        parameters = varied_parameters(sample.category, sample.seed)
        alone = degrade(sample.clean, sample.category, seed=sample.seed, parameters=parameters)
        assert torch.equal(varied.degraded[b], alone.image) and torch.equal(varied.maps[b], alone.maps)


@pytest.mark.parametrize("category", ["haze", "blur", "noise50", "low", "noise", "rain_haze"])
def test_maps_of_given_pairs_are_their_labels(category):
    batch = finish(stack([Sample(clean_picture(0), clean_picture(1), category, 0)]), FIVE)
    present = [float(factor in category.replace("50", "").split("_")) for factor in FIVE]
    assert batch.labels.tolist() == [present]
    assert torch.equal(batch.maps[0], torch.tensor(present).view(-1, 1, 1).expand(-1, 24, 24))


@pytest.mark.parametrize("sigma", [15, 25, 50])
def test_noise_is_gaussian_of_its_sigma(sigma):
    """On mid-grey, where clipping cuts 1 % at most: mean 0 and the standard deviation within 4 standard errors."""
    clean = torch.full((3, 128, 128), 0.5)
    noise = (finish(stack([Sample(clean, None, f"noise{sigma}", 3)]), FIVE).degraded[0] - 0.5).double() * 255
    clipped = np.clip(np.random.default_rng(0).normal(0, sigma, 2**20), -127.5, 127.5).std()
    assert noise.mean().abs() < 4 * sigma / noise.numel() ** 0.5
    assert abs(noise.std().item() - clipped) < 4 * sigma / (2 * noise.numel()) ** 0.5 + 0.01 * sigma
    inside = (noise.abs() < sigma).double().mean().item()
    assert abs(inside - 0.6827) < 0.01
    other = finish(stack([Sample(clean, None, f"noise{sigma}", 4)]), FIVE).degraded[0]
    assert not torch.equal(other, finish(stack([Sample(clean, None, f"noise{sigma}", 3)]), FIVE).degraded[0])


def test_the_level_of_blind_noise_is_uniform():
    clean = torch.full((3, 32, 32), 0.5)
    batch = finish(stack([Sample(clean, None, "noise", seed) for seed in range(300)]), FIVE)
    sigmas = (batch.degraded - 0.5).flatten(1).std(1) * 255
    assert 0 < sigmas.min() < 2 and 47 < sigmas.max() < 52
    assert abs(sigmas.mean().item() - 25) < 4 * 50 / 12**0.5 / 300**0.5


def test_jpeg_is_pillow_s():
    clean = clean_picture(2, 32)
    file = io.BytesIO()
    Image.fromarray((clean.permute(1, 2, 0) * 255).round().byte().numpy()).save(file, "JPEG", quality=10)
    expected = np.array(Image.open(file))
    batch = finish(stack([Sample(clean, None, "jpeg10", 0)]), ("jpeg",))
    assert np.array_equal(np.array(to_picture(batch.degraded[0])), expected)


def test_categories_that_do_not_fit_are_named():
    clean = clean_picture()
    with pytest.raises(ValueError, match=r"category low_snow has snow, .* noise, haze, rain, blur, low"):
        finish(stack([Sample(clean, None, "low_snow", 0)]), FIVE)
    with pytest.raises(ValueError, match=r"category blur cannot be synthesised from a clean image, so .*low_haze_rain"):
        finish(stack([Sample(clean, None, "blur", 0)]), FIVE)
    with pytest.raises(ValueError, match="jpeg0 cannot be synthesised"):
        finish(stack([Sample(clean, None, "jpeg0", 0)]), ("jpeg",))


def test_drafts_travel():
    """Through a pickle, and through a loader's workers."""
    samples = [Sample(clean_picture(i), None, "haze", i) for i in range(4)]
    draft = stack(samples)
    again = pickle.loads(pickle.dumps(draft))
    loaded = next(iter(DataLoader(samples, batch_size=4, collate_fn=stack, num_workers=1)))
    for one, other in itertools.product((draft,), (again, loaded)):
        assert type(other) is type(draft) and other.categories == one.categories
        assert all(torch.equal(a, b) for a, b in zip(one[:4], other[:4], strict=True))
