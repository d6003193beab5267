"""Layouts on disk: what is found in them, and what is said of those that do not fit."""

import numpy as np
import pytest
from PIL import Image

from f2d.data import open_pool
from f2d.data.pairs import find_pairs
from f2d.data.pictures import Pictures, find_images
from f2d.degradation import CATEGORIES
from tests.data.conftest import negative, picture, save


def names(pairs) -> list[tuple[str, str]]:
    return [(pair.degraded.stem, pair.clean.stem) for pair in pairs]


def make_pairs(folder, inputs: dict[str, list[str]]) -> None:
    for home, stems in inputs.items():
        for stem in stems:
            save(picture(0, 4, 5), folder / home / f"{stem}.png")


def test_links_to_folders_are_followed_once(tmp_path):
    save(picture(0), tmp_path / "data" / "real" / "a.png")
    save(picture(1), tmp_path / "elsewhere" / "deep" / "b.png")
    (tmp_path / "data" / "also").symlink_to(tmp_path / "data" / "real")  # before the real folder in the alphabet
    (tmp_path / "data" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "loop").symlink_to(tmp_path / "data")
    found = [path.relative_to(tmp_path / "data").as_posix() for path in find_images(tmp_path / "data")]
    assert found == ["linked/deep/b.png", "real/a.png"]


def test_what_lies_below_transparency_is_not_trained_on(tmp_path):
    """A cut-out over black is the cut-out over white; what can be seen is as it is."""
    seen = np.zeros((40, 48), bool)
    seen[8:30, 10:40] = True
    for name, hidden in (("black", 0), ("white", 255)):
        levels = np.where(seen[..., None], picture(3), np.uint8(hidden))
        save(np.dstack([levels, np.where(seen, 255, 0).astype(np.uint8)]), tmp_path / f"{name}.png")
    black, white = (open_pool(tmp_path).read(i)[1].permute(1, 2, 0).numpy() for i in range(2))
    assert np.array_equal(black, white) and np.array_equal(black[seen], picture(3)[seen])


def test_clean_photographs(photographs):
    pool = open_pool(photographs)
    assert len(pool) == 12 and pool.synthesised and pool.categories == CATEGORIES
    degraded, clean = pool.read(0)
    assert degraded is None and np.array_equal(clean.permute(1, 2, 0).numpy(), picture(0))
    assert pool.size(0) == (48, 40) and pool.entries[0].category is None and pool.entries[0].name.endswith("00.png")
    assert list(pool.entries_of("noise25")) == list(range(12))


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (
            {"hazy": ["1_1_0.90", "1_2_0.97", "2_1_0.99"], "gt": ["1", "2"]},
            [("1_1_0.90", "1"), ("1_2_0.97", "1"), ("2_1_0.99", "2")],
        ),
        (
            {"input": ["im_1_s80_a04", "im_1_b_s1"], "gt": ["im_1", "im_1_b"]},
            [("im_1_b_s1", "im_1_b"), ("im_1_s80_a04", "im_1")],
        ),
        (
            {"rainy": ["rain-1", "rain-2"], "gt": ["norain-1", "norain-2"]},
            [("rain-1", "norain-1"), ("rain-2", "norain-2")],
        ),
        (
            {".": ["rain-1", "norain-1", "rainstreak-1", "rain-2", "norain-2"]},
            [("rain-1", "norain-1"), ("rain-2", "norain-2")],
        ),
        ({"low": ["a", "b"], "high": ["a", "b"]}, [("a", "a"), ("b", "b")]),
        ({"lq/x": ["a"], "gt/x": ["a"], "lq/y": ["a"], "gt/y": ["a"]}, [("a", "a"), ("a", "a")]),
        (
            {"Data/s1": ["1_NOISY_SRGB_010", "1_GT_SRGB_010"], "Data/s2": ["2_NOISY_SRGB_011", "2_GT_SRGB_011"]},
            [("1_NOISY_SRGB_010", "1_GT_SRGB_010"), ("2_NOISY_SRGB_011", "2_GT_SRGB_011")],
        ),
        ({"s1/blur": ["1"], "s1/sharp": ["1"], "s2/blur": ["1"], "s2/sharp": ["1"]}, [("1", "1"), ("1", "1")]),
    ],
    ids=["RESIDE", "longest", "Rain100L", "Rain100L in one folder", "LOL", "below", "SIDD", "GoPro"],
)
def test_pairs_under_the_benchmarks_names(tmp_path, folders, expected):
    make_pairs(tmp_path, folders)
    pairs = find_pairs(tmp_path, "rain")
    assert names(pairs) == expected
    assert all(pair.degraded.parent.name == pair.clean.parent.name for pair in pairs if "lq" in folders)
    assert len(open_pool(tmp_path, category="rain")) == len(expected)


def test_pairs_of_the_shared_benchmarks(shared):
    counts = {
        folder.name: len(open_pool(folder, category="haze")) for folder in sorted((shared / "data/paired").iterdir())
    }
    assert counts == {
        "lol_fullres": 6,
        "outdoor_rain_test1": 4,
        "rain100l_samples": 4,
        "rain_detailnet_samples": 3,
        "reside_its_samples": 4,
        "sots_outdoor_samples": 2,
    }


def test_pairs_under_other_names(tmp_path):
    make_pairs(tmp_path, {"bad": ["01_fog", "02_fog"], "good": ["01_sun", "02_sun"]})
    pool = open_pool(tmp_path, category="haze", degraded="bad", clean="good", pattern="*_fog -> *_sun")
    assert names(pool.pairs) == [("01_fog", "01_sun"), ("02_fog", "02_sun")]
    assert pool.categories == ("haze",) and pool.entries[1].category == "haze"
    for pattern in ("*_fog", "*-> a", "a -> *", "** -> *"):
        with pytest.raises(ValueError, match="one \\* each"):
            find_pairs(tmp_path, "haze", "bad", "good", pattern)
    with pytest.raises(ValueError, match=r"bad: 01_fog\.png, 02_fog\.png, and in .*good: 01_sun\.png, 02_sun\.png$"):
        find_pairs(tmp_path, "haze", "bad", "good")
    assert names(find_pairs(tmp_path, "haze", "bad", "good", "sorted")) == [("01_fog", "01_sun"), ("02_fog", "02_sun")]


def test_a_test_set_is_not_trained_on(tmp_path):
    """LOL's root has our485 and eval15, either with low and high."""
    make_pairs(tmp_path, {"our485/low": ["a"], "our485/high": ["a"], "eval15/low": ["b"], "eval15/high": ["b"]})
    with pytest.raises(ValueError, match="contains a test set, eval15"):
        open_pool(tmp_path, category="low")
    assert len(open_pool(tmp_path / "our485", category="low")) == 1


def test_folders_in_circles_and_in_other_cases(tmp_path):
    make_pairs(tmp_path, {"a/Input": ["1"], "a/TARGET": ["1"]})
    (tmp_path / "a" / "again").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "b").symlink_to(tmp_path, target_is_directory=True)
    assert names(find_pairs(tmp_path, "haze")) == [("1", "1")]


def test_two_photographs_of_such_names_are_no_pairs(tmp_path):
    """Nothing but a name and its own counterpart makes a folder one of pairs."""
    make_pairs(tmp_path, {".": ["london_hazy", "car_clean", "low_tide", "walk", "walk_1"]})
    assert len(open_pool(tmp_path)) == 5 and open_pool(tmp_path).entries[0].category is None


def test_pairs_that_do_not_fit(tmp_path):
    make_pairs(tmp_path, {"input": [f"a{i}" for i in range(9)], "gt": ["a0", "b"]})
    with pytest.raises(ValueError, match=r"input: a1\.png, a2\.png, a3\.png, a4\.png and 4 more, and in .*gt: b\.png$"):
        find_pairs(tmp_path, "haze")
    with pytest.raises(ValueError, match=r"without a category"):
        open_pool(tmp_path)
    with pytest.raises(ValueError, match=r"such as nothing beside gt, target"):
        find_pairs(tmp_path, "haze", degraded="nothing")
    Image.new("RGB", (4, 5)).save(tmp_path / "gt" / "b.bmp")
    with pytest.raises(ValueError, match="two clean images of the same name"):
        find_pairs(tmp_path, "haze")


def test_a_pair_of_two_sizes(tmp_path):
    save(picture(0, 4, 5), tmp_path / "input" / "a.png")
    save(picture(0, 5, 4), tmp_path / "gt" / "a.png")
    pool = open_pool(tmp_path, category="haze")
    for call in (pool.size, pool.read):
        with pytest.raises(ValueError, match=r"input.a\.png and .*gt.a\.png must have the same size, got 5x4 and 4x5"):
            call(0)


def test_lists(tmp_path):
    make_pairs(tmp_path, {"x": ["a", "b c"], "y": ["a", "b"]})
    for file, text in {
        "one.txt": "# pairs\nx/a.png y/a.png rain_low\n\nx/a.png  y/b.png\n",
        "two.txt": "x/a.png\ty/a.png\train_low\nx/b c.png\ty/b.png\n",
        "three.csv": 'degraded,clean,category\nx/a.png,y/a.png,rain_low\n"x/b c.png", y/b.png,\n',
        "four.csv": "# mine\nNo,Clean,Degraded,Category\n1,y/a.png,x/a.png,rain_low\n2,y/b.png,x/b c.png\n",
    }.items():
        (tmp_path / file).write_text(text)
        pool = open_pool(tmp_path / file, category="haze")
        assert len(pool) == 2 and pool.categories == ("haze", "low_rain")
        assert [pool.entries[i].category for i in range(2)] == ["low_rain", "haze"]
        assert pool.read(1)[0].shape == (3, 4, 5)
        assert all(pair.degraded.parent.name == "x" and pair.clean.parent.name == "y" for pair in pool.pairs)
    for text, words in {
        "x/a.png": "line 1: must have the columns .*got 1 columns",
        "\nx/a.png y/none.png haze": "line 2: .*none.png is not a file",
        "x/a.png y/a.png": "line 1: has no category",
        "# nothing": "contains no pairs",
    }.items():
        (tmp_path / "bad.txt").write_text(text)
        with pytest.raises(ValueError, match=rf"bad\.txt.*{words}"):
            open_pool(tmp_path / "bad.txt")
    for text, words in {
        "degraded,clean,type\nx/a.png,y/a.png,rain": "line 1: must name one of the columns category, got degraded",
        "category,clean,degraded\nrain,y/a.png": "line 2: must have the columns category, clean, degraded, got 2",
    }.items():
        (tmp_path / "bad.csv").write_text(text)
        with pytest.raises(ValueError, match=rf"bad\.csv.*{words}"):
            open_pool(tmp_path / "bad.csv", category="haze")  # types were ignored, and all was haze
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not text"):
        open_pool(tmp_path / "bad.txt")


def test_cdd11(cdd11):
    pool = open_pool(cdd11)
    assert len(pool) == 110 and pool.categories == CATEGORIES and not pool.synthesised
    for number, category in enumerate(CATEGORIES):
        entries = pool.entries_of(category)
        assert len(entries) == 10
        degraded, clean = pool.read(entries[3])
        assert np.array_equal(clean.permute(1, 2, 0).numpy(), picture(103))
        assert np.array_equal(degraded.permute(1, 2, 0).numpy(), negative(picture(103), number))
    assert len({pool.entries[i].scene for i in range(110)}) == 10


def test_cdd11_s_folders_in_another_order_of_factors(tmp_path):
    make_pairs(tmp_path, {"clear": ["1", "2"], "rain_haze_low": ["1"], "noise25": ["2"]})
    pool = open_pool(tmp_path)
    assert pool.categories == ("low_haze_rain", "noise25")
    make_pairs(tmp_path, {"snow": ["3"]})
    with pytest.raises(ValueError, match=r"clear has no images with the same names as snow: 3\.png"):
        open_pool(tmp_path)
    (tmp_path / "haze").mkdir()
    with pytest.raises(ValueError, match=r"haze contains no images"):
        open_pool(tmp_path)


def test_sorted_order_is_that_of_the_numbers(tmp_path):
    """1, 10, 2 beside 001, 002, 010 would be three wrong pairs of four."""
    make_pairs(tmp_path, {"bad": ["f1", "f2", "f9", "f10"], "good": ["c001", "c002", "c009", "c010"]})
    expected = [("f1", "c001"), ("f2", "c002"), ("f9", "c009"), ("f10", "c010")]
    assert names(find_pairs(tmp_path, "haze", "bad", "good", "sorted")) == expected


def test_sorted_order_takes_folder_after_folder(tmp_path):
    """As whole texts, a-b/x2 comes before a/x1, but a_b/y2 comes after a/y1."""
    make_pairs(tmp_path, {"bad/a": ["x1"], "bad/a-b": ["x2"], "good/a": ["y1"], "good/a_b": ["y2"]})
    assert names(find_pairs(tmp_path, "haze", "bad", "good", "sorted")) == [("x1", "y1"), ("x2", "y2")]


def test_a_category_says_that_folders_are_a_pair(tmp_path):
    """haze and clear are CDD-11's names as well as RESIDE's, where several hazes are of one picture."""
    make_pairs(tmp_path, {"haze": ["1_1_0.90", "1_2_0.97"], "clear": ["1"]})
    with pytest.raises(ValueError, match="if these folders are a pair under other names, set layout: pairs"):
        open_pool(tmp_path)
    assert names(open_pool(tmp_path, category="haze").pairs) == [("1_1_0.90", "1"), ("1_2_0.97", "1")]


@pytest.mark.parametrize("clean", ["gt", "clear"])
def test_several_degraded_folders_beside_one_clean_one(clean, tmp_path):
    """The first by a list of names was read under whatever category was given, and the others were not mentioned."""
    make_pairs(tmp_path, {"haze": ["1"], "rain": ["1", "2"], clean: ["1", "2"]})
    for layout in ("auto", "pairs"):
        with pytest.raises(ValueError, match=rf"degraded images beside {clean} \(haze, rain\): set sources.0.degraded"):
            open_pool(tmp_path, layout, category="rain")
    assert names(open_pool(tmp_path, category="rain", degraded="rain").pairs) == [("1", "1"), ("2", "2")]


def test_what_cannot_be_recognised(tmp_path):
    with pytest.raises(ValueError, match=r"contains no data \(looked for data\.mdb .*CDD-11.*pairs.*clean photographs"):
        open_pool(tmp_path)
    with pytest.raises(ValueError, match="contains no photographs"):
        open_pool(tmp_path, "clean")
    with pytest.raises(ValueError, match="no clear beside"):
        open_pool(tmp_path, "cdd11")
    with pytest.raises(ValueError, match="no such file or folder"):
        open_pool(tmp_path / "none")
    with pytest.raises(ValueError, match=r"layout must be one of auto, clean.*got 'folder'"):
        open_pool(tmp_path, "folder")
    with pytest.raises(ValueError, match="is a folder, which layout list does not read"):
        open_pool(tmp_path, "list")
    file = save(picture(0), tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"must be a folder or a list of pairs"):
        open_pool(file)
    make_pairs(tmp_path, {"clear": ["1"], "derain": ["1"]})  # degraded pictures must not pass as clean ones
    with pytest.raises(ValueError, match="folders whose names are not categories"):
        open_pool(tmp_path)


def test_folders_named_as_images_and_hidden_ones_hold_no_photographs(tmp_path):
    save(picture(0), tmp_path / "a.png")
    (tmp_path / "album.jpg").mkdir()
    save(picture(1), tmp_path / "album.jpg" / "b.png")
    for hidden in (".thumbnails", ".ipynb_checkpoints"):
        (tmp_path / hidden).mkdir()
        save(picture(2), tmp_path / hidden / "c.png")
    save(picture(2), tmp_path / "._a.png")
    pool = open_pool(tmp_path, "clean")
    assert [entry.name for entry in pool.entries] == [str(tmp_path / "a.png"), str(tmp_path / "album.jpg" / "b.png")]
    assert [pool.size(i) for i in range(len(pool))] == [pool.read(i)[1].shape[:0:-1] for i in range(len(pool))]


def test_decoded_pictures_are_kept_up_to_the_budget(tmp_path):
    paths = [save(picture(i, 4, 5), tmp_path / f"{i}.png") for i in range(3)]
    pictures = Pictures(budget=2 * 3 * 4 * 5)
    first = [pictures(path) for path in paths]
    assert [pictures(path) is kept for path, kept in zip(paths, first)] == [True, True, False]
    save(np.full((4, 5), 7, np.uint8), tmp_path / "grey.png")
    assert pictures(tmp_path / "grey.png").tolist() == np.full((3, 4, 5), 7).tolist()


def test_every_pair_of_the_research_data_has_one_size(shared):
    folders = sorted((shared / "data" / "paired").iterdir())
    pairs = [pair for folder in folders for pair in find_pairs(folder, folder.name)]
    assert len(pairs) == 4 + 4 + 6 + 3 + 4 + 2  # the counts that come with the data
    for pair in pairs:
        with Image.open(pair.degraded) as degraded, Image.open(pair.clean) as clean:
            assert degraded.size == clean.size
