"""Mixtures: which samples there are, how often, and what is said before any work."""

import pickle
from collections import Counter
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from f2d.data import Augment, Mixture, Source, finish, stack
from f2d.data import mixture as mixtures
from f2d.data.augment import centre_crop
from f2d.data.mixture import mixed
from f2d.degradation import CATEGORIES, FACTORS
from tests.data.conftest import negative, picture, record, save

FIVE = ("noise", "haze", "rain", "blur", "low")
PLAIN = Augment(scale=(1.0, 1.0), flips=False, turns=False, colour=0.0)


@pytest.fixture(scope="session")
def root(tmp_path_factory, photographs, cdd11):
    """photographs, CDD-11, and pairs of haze, below one folder."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "clean").symlink_to(photographs)
    (folder / "cdd11").symlink_to(cdd11)
    for i in range(5):
        clean = picture(50 + i)
        save(clean, folder / "haze" / "gt" / f"{i}.png")
        for k in range(2):
            save(negative(clean, k), folder / "haze" / "hazy" / f"{i}_{k}.png")
    return folder


def same(a, b) -> bool:
    """Whether two samples are equal."""
    pictures = (
        [(a.clean, b.clean)] if a.degraded is b.degraded is None else [(a.clean, b.clean), (a.degraded, b.degraded)]
    )
    return a[2:] == b[2:] and all(torch.equal(x, y) for x, y in pictures)


@settings(deadline=None, max_examples=25)
@given(
    st.integers(0, 2**40), st.integers(0, 2**32), st.sampled_from([16, 32]), st.lists(st.integers(0, 99), max_size=3)
)
def test_a_sample_depends_on_seed_index_and_crop_alone(root, index, seed, crop, before):
    sources = [Source("clean"), Source("haze", category="haze"), Source("cdd11")]
    used, fresh = Mixture(sources, root, FACTORS, seed=seed), Mixture(sources, root, FACTORS, seed=seed, budget=0)
    for other in before:
        used[other, 24]
    torch.manual_seed(index % 7)
    sample = used[index, crop]
    assert same(sample, fresh[index, crop]) and same(sample, pickle.loads(pickle.dumps(used))[index, crop])
    assert sample.clean.shape == (3, crop, crop) and sample.clean.min() >= 0 and sample.clean.max() <= 1
    other = used[index, 20]
    assert (other.category, other.seed, other.degraded is None) == (*sample[2:], sample.degraded is None)


def test_samples_differ_between_indices_and_seeds(root):
    mixture, other = (Mixture([Source("clean")], root, FACTORS, seed=seed) for seed in (0, 1))
    samples = [mixture[i, 16] for i in range(50)] + [other[i, 16] for i in range(50)]
    assert len({sample.seed for sample in samples}) == 100
    assert len({sample.clean.numpy().tobytes() for sample in samples}) > 95


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_indices_of_a_seed_never_meet(seed, one, other):
    assert (mixed(seed, one) == mixed(seed, other)) == (one == other)


def test_mixing_is_the_published_finaliser():
    """SplitMix64 started at 0 gives E220A8397B1DCDAF first, at 1 234 567 gives 6457827717110365317."""
    assert mixed(0) == 0xE220A8397B1DCDAF and mixed(1234567) == 6457827717110365317


def within(count: int, n: int, p: float) -> bool:
    """Five standard deviations of a binomial: missed once in a million."""
    return abs(count - n * p) <= 5 * (n * p * (1 - p)) ** 0.5


def test_ratios_and_frequencies_are_followed(root):
    sources = [
        Source("clean", categories={"noise15": 1, "noise50": 3}, ratio=2),
        Source("haze", category="haze", ratio=1),
        Source("cdd11", categories={"low": 4, "snow": 0, "low_snow": 0, "haze_snow": 0, "snow_haze_low": 0}, ratio=1),
    ]
    n = 1500
    mixture = Mixture(sources, root, ("noise", *FACTORS), PLAIN, seed=5)
    samples = [mixture[i, 8] for i in range(n)]
    counts = Counter(s.category for s in samples)
    assert within(counts["noise15"], n, 0.125) and within(counts["noise50"], n, 0.375)
    assert within(counts["low"], n, 0.25 * 4 / 10)
    assert within(counts["haze"], n, 0.25 + 0.25 / 10) and within(counts["low_haze_rain"], n, 0.25 / 10)
    assert not [name for name in counts if "snow" in name]
    assert all((s.degraded is None) == s.category.startswith("noise") for s in samples)


def test_categories_are_balanced_whatever_their_number_of_pictures(make_lmdb):
    path = make_lmdb({**{f"{i}": record(i, "low") for i in range(9)}, "9": record(9, "haze")})
    mixture = Mixture([Source(path.name)], path.parent, FACTORS, PLAIN)
    assert within(Counter(mixture[i, 8].category for i in range(400))["haze"], 400, 0.5)


def test_given_pairs_stay_pairs(root):
    """In crops of CDD-11's layout the degraded picture is the negative, category by category."""
    mixture = Mixture([Source("cdd11")], root, FACTORS, Augment(scale=(1.0, 1.0)))
    for i in range(60):
        sample = mixture[i, 24]
        number = CATEGORIES.index(sample.category)
        expected = 1 - sample.clean.clamp(min=number / 255)
        torch.testing.assert_close(sample.degraded, expected, rtol=0, atol=1e-6)


def test_a_batch_through_workers(root):
    """Three- and five-task training: pairs, noise and JPEG in one batch."""
    sources = [
        Source("clean", category="noise25"),
        Source("haze", layout="pairs", category="haze"),
        Source("clean", layout="clean", category="jpeg10"),
    ]
    factors = ("jpeg", *FIVE)
    mixture = Mixture(sources, root, factors, crop_check={"stages.0.crop": 40})
    keys = [(i, 32) for i in range(24)]
    loader = partial(DataLoader, mixture, batch_size=12, sampler=keys, collate_fn=stack)
    batches = [[finish(draft, factors) for draft in loader(num_workers=workers)] for workers in (0, 2)]
    for one, other in zip(*batches, strict=True):
        assert one.categories == other.categories
        assert all(torch.equal(a, b) for a, b in zip(one[:5], other[:5], strict=True))
        for b, category in enumerate(one.categories):
            assert one.labels[b].tolist() == [float(category.startswith(name)) for name in factors]
            assert not torch.equal(one.degraded[b], one.clean[b])
    assert {name for batch in batches[0] for name in batch.categories} == {"noise25", "haze", "jpeg10"}


def test_scenes_are_held_out_whole(root):
    whole = Mixture([Source("cdd11")], root, FACTORS, PLAIN)
    train, validation = whole.split(22, 32)
    (part,) = train.parts
    left = {part.pool.entries[e].scene for entries in part.entries.values() for e in entries}
    assert len(left) == 9 and all(len(entries) == 9 for entries in part.entries.values())
    assert [s.category for s in validation] == list(CATEGORIES)  # one scene, each of its categories once
    clean = torch.from_numpy(picture(100)).permute(2, 0, 1)[:, 4:36, 8:40].float() / 255
    assert all(torch.equal(s.clean, clean) for s in validation)
    assert all(same(a, b) for a, b in zip(validation, whole.split(22, 32)[1], strict=True))
    shown = {tuple(train[i, 40].clean[:, ::13, 3].flatten().tolist()) for i in range(200)}
    held = torch.from_numpy(picture(100)).permute(2, 0, 1).float() / 255
    corners = {tuple(held[:, ::13, left + 3].flatten().tolist()) for left in range(9)}
    assert shown and not shown & corners
    assert len(whole.parts[0].used()) == 110  # the mixture itself is as it was


def test_held_out_scenes_are_spread_and_all_are_seen(tmp_path):
    for i in range(60):
        save(picture(i), tmp_path / f"{i:02}.png")
    whole = Mixture([Source(".", layout="clean")], tmp_path, FACTORS, PLAIN)
    train, validation = whole.split(33, 40)
    kept = {train.parts[0].pool.entries[e].name[-6:-4] for e in train.parts[0].used()}
    assert {f"{i:02}" for i in range(60)} - kept == {f"{i:02}" for i in range(0, 60, 10)}
    assert Counter(s.category for s in validation) == dict.fromkeys(CATEGORIES, 3)
    assert len({s.clean.numpy().tobytes() for s in validation}) == 6
    assert len({s.seed for s in validation}) == 33


def test_categories_and_scenes_meet_in_all_ways(tmp_path):
    """4 categories and 2 scenes in step would only meet in 4 ways."""
    for i in range(20):
        save(picture(i), tmp_path / f"{i:02}.png")
    source = Source(".", layout="clean", categories=dict.fromkeys(("noise15", "noise25", "noise50", "clear"), 1))
    _, validation = Mixture([source], tmp_path, ("noise",)).split(8, 40)
    assert len({(s.category, s.clean.numpy().tobytes()) for s in validation}) == 8


def test_every_source_is_validated(root):
    sources = [Source("clean", category="noise25"), Source("haze", category="haze")]
    train, validation = Mixture(sources, root, FIVE).split(5, 40)
    assert [s.category for s in validation] == ["noise25", "haze", "noise25", "haze", "noise25"]
    assert len(train.parts[1].used()) == 8  # both pairs of one scene
    with pytest.raises(ValueError, match="smaller than the crop of 41"):
        Mixture(sources, root, FIVE).split(5, 41)


def test_a_scene_that_one_source_holds_out_is_not_trained_on_from_another(tmp_path):
    """Of 20 photographs the first source holds out two and the second one; clear/ of CDD-11 is both."""
    for i in range(20):
        save(picture(i), tmp_path / "clear" / f"{i:02}.png")
        save(negative(picture(i)), tmp_path / "low" / f"{i:02}.png")
    sources = [Source("clear", layout="clean"), Source("clear", category="clear"), Source(".", layout="cdd11")]
    train, validation = Mixture(sources, tmp_path, FACTORS, PLAIN).split(4, 40)
    held = {s.clean.numpy().tobytes() for s in validation}
    crops = [torch.from_numpy(picture(i)).permute(2, 0, 1)[:, :, 4:44].float() / 255 for i in range(20)]
    names = {f"{i:02}" for i, crop in enumerate(crops) if crop.numpy().tobytes() in held}
    assert len(names) == len(held) == 2
    for part in train.parts:
        left = {part.pool.entries[entry].scene[-6:-4] for entry in part.used()}
        assert len(left) == 18 and not left & names


def test_a_scene_is_held_out_by_whatever_links_it_is_reached(tmp_path):
    """A folder of links, a link to a folder and a path with .. lead to the same 20 photographs."""
    for i in range(20):
        real = save(picture(i), tmp_path / "photos" / f"{i:02}.png")
        save(negative(picture(i)), tmp_path / "pairs" / "hazy" / f"{i:02}.png")
        (tmp_path / "chosen").mkdir(exist_ok=True)
        (tmp_path / "chosen" / f"{19 - i:02}_of_mine.png").symlink_to(real)
    (tmp_path / "pairs" / "gt").symlink_to(tmp_path / "photos")
    sources = [Source("photos"), Source("chosen"), Source("pairs/../photos"), Source("pairs", category="haze")]
    train, validation = Mixture(sources, tmp_path, FACTORS, PLAIN).split(8, 40)
    held = {s.clean.numpy().tobytes() for s in validation}
    assert len(held) == 2
    for part in train.parts:
        left = {centre_crop(part.pool.read(entry)[1], 40).numpy().tobytes() for entry in part.used()}
        assert len(left) == 20 - len(held) and not left & held


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"path": "none"}, r"none: no such file or folder"),
        ({"path": "empty"}, r"empty contains no data"),
        ({"path": "haze"}, r"without a category"),
        (
            {"path": "clean", "categories": {"fog": 1}},
            r"clean: categories must be among low, .*noise25.*jpeg10.*got fog",
        ),
        ({"path": "clean", "category": "blur"}, r"clean: categories must be among low.*got blur"),
        (
            {"path": "cdd11", "categories": {"noise": 2}},
            r"cdd11: categories must be among low, .*low_haze_snow, got noise$",
        ),
        ({"path": "cdd11", "categories": dict.fromkeys(CATEGORIES, 0)}, "all 0"),
        ({"path": "clean", "categories": {"low_haze": 1, "haze_low": 1}}, "lists a category twice"),
        ({"path": "clean", "category": "noise15"}, r"noise15 has noise, .*: low, haze, rain, snow"),
        ({"path": "haze", "category": "blur_haze"}, r"haze: category blur_haze has blur, .*: low, haze, rain, snow"),
    ],
)
def test_sources_that_do_not_fit(root, source, words, monkeypatch):
    (root / "empty").mkdir(exist_ok=True)
    monkeypatch.setattr("f2d.data.pictures.read", lambda path: pytest.fail("a picture was decoded"))
    with pytest.raises(ValueError, match=words):
        Mixture(
            [Source("clean", categories={"low": 1}), Source(**source)], root, FACTORS, crop_check={"stages.0.crop": 8}
        )


def test_other_mistakes(root, tmp_path):
    with pytest.raises(ValueError, match="sources must have at least one entry"):
        Mixture([], root, FACTORS)
    with pytest.raises(ValueError, match=r"00\.png is 48x40, smaller than the crop of 41 \(validation_crop\)"):
        Mixture([Source("clean")], root, FACTORS, crop_check={"stages.0.crop": 8, "validation_crop": 41})
    with pytest.raises(ValueError, match=r"png is 48x40, smaller than the crop of 41"):
        Mixture([Source("clean")], root, FACTORS)[0, 41]
    save(np.zeros((9, 9, 3), np.uint8), tmp_path / "only.png")
    with pytest.raises(ValueError, match=r"only\.png is the only image, but training needs at least two"):
        Mixture([Source(".")], tmp_path, FACTORS).split(2, 8)


def test_a_category_is_never_held_out_whole(make_lmdb):
    path = make_lmdb({"a": record(0, "haze"), "b": record(1, "low")})
    with pytest.raises(ValueError, match=r"all images of (haze|low) would be held out"):
        Mixture([Source(path.name)], path.parent, FACTORS).split(2, 8)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("path", {"path": ""}),
        ("path", {"path": 3}),
        ("layout", {"layout": "folders"}),
        ("ratio", {"ratio": 0}),
        ("ratio", {"ratio": float("nan")}),
        ("categories", {"categories": {"low": -1}}),
        ("categories", {"categories": ["low"]}),
        ("categories", {"category": "low", "categories": {"low": 1}}),
        ("category", {"layout": "cdd11", "category": "low"}),
        ("degraded", {"layout": "lmdb", "degraded": "input"}),
        ("pattern", {"layout": "clean", "pattern": "* -> *"}),
    ],
)
def test_a_field_of_a_source_that_cannot_work_is_named(field, values):
    with pytest.raises(ValueError, match=rf"^data source.*: {field} must be"):
        Source(**{"path": "x", **values})


def test_files_are_decoded_once(root, monkeypatch):
    reads = []
    read = mixtures.Pictures.__call__.__globals__["read"]
    monkeypatch.setattr("f2d.data.pictures.read", lambda path: reads.append(path) or read(path))
    mixture = Mixture([Source("clean"), Source("clean", category="clear")], root, FACTORS)
    for i in range(100):
        mixture[i, 8]
    assert len(reads) == len(set(reads)) == 12
