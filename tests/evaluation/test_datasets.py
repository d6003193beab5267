"""Datasets of the papers, laid out as their authors hand them out: what is found, and what is said to be missing."""

from pathlib import Path

import pytest
import torch

from f2d.data import open_pool
from f2d.data.naming import is_test_set, split_rank
from f2d.degradation import CATEGORIES, degrade
from f2d.evaluation.datasets import DataSet, open_data
from f2d.evaluation.presets import PRESETS
from f2d.images import ImageError, image_to_tensor
from tests.data.conftest import picture, save
from tests.evaluation.layouts import LAYOUTS


def lay_out(root, files: str) -> None:
    """Small pictures at the places that `files` lists."""
    for number, place in enumerate(files.split()):
        save(picture(number, 12, 16), root / place)


def found(data: DataSet) -> dict[str, tuple[str, str]]:
    """case -> (degraded, clean), as file names."""
    return {case.name: (case.degraded and case.degraded.name, case.clean and case.clean.name) for case in data.cases}


TREES = [(name, layout) for name, layouts in LAYOUTS.items() for layout in layouts]


@pytest.mark.parametrize("name, layout", TREES)
def test_a_data_set_as_it_is_handed_out(name, layout, tmp_path):
    files, expected = LAYOUTS[name][layout]
    lay_out(tmp_path / layout, files)
    data = open_data(f"{name}={tmp_path / layout}")
    assert data.published == (name,) and data.title == PRESETS[name].title
    assert open_data(data.spec).cases == data.cases
    if name == "composites":
        assert data.categories == CATEGORIES
        return
    assert found(data) == expected
    if name == "cdd-11":  # of which these are a part
        others = ", ".join(category for category in CATEGORIES if category not in ("low", "haze_rain"))
        assert data.problems == (
            f"{tmp_path / layout}: {others} missing, so averages are over the other categories only",
            f"{tmp_path / layout}: haze_rain has 1 of the 2 scenes",
        )
    else:
        assert not data.problems


@pytest.mark.parametrize("name, layout", TREES)
def test_what_archives_and_systems_leave_beside_the_images(name, layout, tmp_path):
    files, _ = LAYOUTS[name][layout]
    lay_out(tmp_path / layout, files)
    clean = open_data(f"{name}={tmp_path / layout}")
    for place in map(Path, files.split()):
        copies = tmp_path / layout / "__MACOSX" / place.parent, tmp_path / layout / place.parent / ".thumbnails"
        for folder in copies:
            folder.mkdir(parents=True, exist_ok=True)
        for folder in (copies[0], tmp_path / layout / place.parent):  # an exFAT disk keeps them beside their files
            (folder / f"._{place.name}").write_bytes(b"resource fork")
        save(picture(0, 4, 4), copies[1] / place.name)
        for junk in (".DS_Store", "Thumbs.db", "readme.txt", f"{place.stem}.mat"):
            (tmp_path / layout / place.parent / junk).write_bytes(b"no image")
    littered = open_data(f"{name}={tmp_path / layout}")
    assert littered.cases == clean.cases and littered.problems == clean.problems


def test_pairs_to_train_on_beside_what_a_mac_archives(tmp_path):
    lay_out(tmp_path, "input/1.png target/1.png")
    for side in ("input", "target"):
        (tmp_path / "__MACOSX" / side).mkdir(parents=True)
        (tmp_path / "__MACOSX" / side / "._1.png").write_bytes(b"resource fork")
    lay_out(tmp_path / "deeper", "Set/input/1.png Set/target/1.png")
    for side in ("input", "target"):
        (tmp_path / "deeper" / "__MACOSX" / "Set" / side).mkdir(parents=True)
        (tmp_path / "deeper" / "__MACOSX" / "Set" / side / "._1.png").write_bytes(b"resource fork")
    for folder in (tmp_path, tmp_path / "deeper"):
        assert len(open_pool(folder, "pairs", category="rain")) == 1


@pytest.mark.parametrize("name", ["rain100l", "rain100h", "nh-haze", "sidd"])
def test_a_missing_partner_is_named_in_every_kind_of_layout(name, tmp_path):
    files, _ = next(iter(LAYOUTS[name].values()))
    for number, side in enumerate(("degraded", "clean")):
        root = tmp_path / side
        lay_out(root, files)
        whole = open_data(f"{name}={root}")
        lost, kept = whole.cases[0].degraded, whole.cases[0].clean
        if number:
            lost, kept = kept, lost
        lost.unlink()
        data = open_data(f"{name}={root}")
        assert len(data.cases) == len(whole.cases) - 1
        assert any(str(kept) in line and "no image to compare it with" in line for line in data.problems)


def test_every_data_set_has_a_layout():
    assert set(LAYOUTS) == set(PRESETS) - {"pairs", "list", "unpaired"}


def test_a_data_set_in_the_folder_of_its_archive(tmp_path):
    """What an archive is unpacked into, one folder further out than the data."""
    for name, layout in (("sidd", "SIDD_Medium_Srgb"), ("dpdd", "dd_dp_dataset_png"), ("o-haze", "archive")):
        files, expected = LAYOUTS[name][layout]
        lay_out(tmp_path / name / "unpacked", files)
        pairs = found(open_data(f"{name}={tmp_path / name}"))
        assert sorted(pairs.values()) == sorted(expected.values())


def test_sorted_order_needs_as_many_of_either(tmp_path):
    lay_out(tmp_path, "test_c/source/1.png test_c/source/3.png test_c/target/2.png")
    with pytest.raises(ValueError, match=r"source has 2 images and .*target has 1, but their names do not match"):
        open_data(f"dpdd={tmp_path}")


def test_the_border_of_resides_indoor_ground_truth(tmp_path):
    """Hazy images of 620x460 beside ground truth of 640x480, the same but for ten pixels on each side."""
    clean = picture(0, 480, 640)
    save(clean, tmp_path / "gt" / "1400.png")
    save(clean[10:-10, 10:-10], tmp_path / "hazy" / "1400_1.png")
    pixels = open_data(f"sots={tmp_path}").cases[0].load()
    assert pixels.degraded.shape == (3, 460, 620) and torch.equal(pixels.clean, pixels.degraded)
    pool = open_pool(tmp_path, category="haze")
    degraded, truth = pool.read(0)
    assert pool.size(0) == (620, 460) and torch.equal(degraded, truth)


def test_composites_are_those_of_the_seeds(tmp_path):
    lay_out(tmp_path, "b.png a.png")
    data = open_data(f"composites={tmp_path}")
    assert data.categories == CATEGORIES and len(data.cases) == 22
    case = next(case for case in data.cases if case.name == "low_haze_rain/b")
    assert case.seed == 9001 and case.factors == ("low", "haze", "rain")
    pixels = case.load()
    expected = degrade(image_to_tensor(tmp_path / "b.png"), "low_haze_rain", seed=9001)
    assert torch.equal(pixels.degraded, expected.image.mul(255).round().div(255))
    assert torch.equal(pixels.maps, expected.maps)
    assert [(name, len(rows)) for name, rows in data.tiers] == [("single", 4), ("pair", 5), ("triple", 2)]


def test_a_folder_is_recognised(tmp_path, monkeypatch):
    lay_out(tmp_path, "cdd/clear/1.png cdd/low/1.png two/input/1.png two/gt/1.png plain/1.png")
    assert open_data(str(tmp_path / "cdd")).spec.startswith("cdd-11=")
    assert found(open_data(str(tmp_path / "two"))) == {"two/1": ("1.png", "1.png")}
    with pytest.raises(ValueError, match=r"composites=.*plain to degrade them if they are clean.* unpaired=.*plain to"):
        open_data(str(tmp_path / "plain"))
    (tmp_path / "list.txt").write_text("two/input/1.png two/gt/1.png rain\n")
    assert found(open_data(str(tmp_path / "list.txt"))) == {"rain/two/input/1": ("1.png", "1.png")}
    with pytest.raises(ValueError, match="cdd-11 needs a folder"):
        open_data("cdd-11")
    monkeypatch.setenv("F2D_DATA", str(tmp_path))
    with pytest.raises(ValueError, match="no folder named cdd-11 or CDD-11"):
        open_data("cdd-11")
    (tmp_path / "cdd").rename(tmp_path / "CDD11")
    assert len(open_data("cdd-11").cases) == 1


def test_what_is_missing_is_listed_and_the_rest_kept(tmp_path):
    lay_out(tmp_path, "clear/1.png clear/2.png low/1.png low/3.png haze/1.png")
    (tmp_path / "rain").mkdir()
    data = open_data(f"cdd-11={tmp_path}")
    assert set(found(data)) == {"low/1", "haze/1"}
    assert {
        f"{tmp_path}/low/3.png: no image to compare it with",
        f"{tmp_path}/rain: contains no images",
    } < set(data.problems)
    lay_out(tmp_path / "three", "Rain100L/input/1.png Rain100L/gt/1.png Rain100L/gt/2.png")
    data = open_data(f"three-task={tmp_path / 'three'}")
    assert set(found(data)) == {"Rain100L/1"}
    assert [problem.rpartition("three")[2] for problem in data.problems] == [
        ": SOTS is missing (looked for SOTS/outdoor, SOTS, dehaze, outdoor)",
        "/Rain100L/gt/2.png: no image to compare it with",
        ": noise15, noise25, noise50 is missing (looked for CBSD68/original_png, CBSD68, BSD68, denoise/CBSD68, "
        "denoise/bsd68, denoise)",
    ]


@pytest.mark.parametrize(
    "text, says",
    [
        ("nothing", "must be a folder or a dataset by name"),
        ("nothing=x", r"dataset must be one of .*got 'nothing'"),
        ("composites={}/empty", "nothing to evaluate as composites: .*contains no images"),
        ("cdd-11={}/empty", "no clear beside folders"),
        ("rain100l={}/missing", "no such file or folder"),
    ],
)
def test_what_cannot_be_evaluated_at_all(text, says, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=says):
        open_data(text.format(tmp_path))


def test_what_is_ambiguous_is_a_problem_and_not_the_end(tmp_path):
    lay_out(tmp_path, "two/input/a.png two/input/b.png two/gt/a.png two/gt/a.jpg two/gt/b.png")
    data = open_data(str(tmp_path / "two"))
    assert set(found(data)) == {"two/b"}
    assert any("clean images of the same name" in problem for problem in data.problems)
    (tmp_path / "list.txt").write_text("two/input/b.png two/gt/b.png\ntwo/input/c.png two/gt/b.png\n")
    data = open_data(str(tmp_path / "list.txt"))
    assert set(found(data)) == {"pairs/two/input/b"} and "c.png is not a file" in data.problems[0]


def test_columns_are_those_that_the_first_line_names(tmp_path):
    """Under clean,degraded every pair was evaluated the other way round."""
    lay_out(tmp_path, "gt/a.png in/a.png")
    (tmp_path / "list.csv").write_text("clean,degraded\ngt/a.png,in/a.png\ngt/a.png,in/a.png,rain\n")
    with pytest.raises(ValueError, match="line 3: must have the columns clean, degraded, got 3 columns"):
        open_data(str(tmp_path / "list.csv"))
    (tmp_path / "list.csv").write_text("clean,degraded\ngt/a.png,in/a.png\n")
    (case,) = open_data(str(tmp_path / "list.csv")).cases
    assert case.degraded == tmp_path / "in" / "a.png" and case.clean == tmp_path / "gt" / "a.png"


def test_of_a_folder_with_a_test_set_that_is_evaluated(tmp_path):
    lay_out(tmp_path, "our485/low/7.png our485/high/7.png eval15/low/1.png eval15/high/1.png")
    assert set(found(open_data(str(tmp_path)))) == {"eval15/1"}


def test_scenes_that_are_called_almost_as_a_split(tmp_path):
    """The trains were not evaluated, as a training set, and for the valley, a test set, nothing could be trained."""
    lay_out(tmp_path, " ".join(f"{name}/{side}/1.png" for name in ("trains", "valley") for side in ("input", "gt")))
    assert open_data(str(tmp_path)).categories == ("trains", "valley")
    assert len(open_pool(tmp_path, category="rain")) == 2


@pytest.mark.parametrize("name", ["TrainingSet", "trainingdata", "TrainImages", "trainvalHR", "train2014", "Train_gt"])
def test_names_of_training_sets(name):
    assert split_rank(("rain", name)) == 3


@pytest.mark.parametrize("name", ["ValImages", "valHR", "ValidationSet", "validset", "val2017", "Val_input"])
def test_names_of_sets_that_are_not_trained_on(name):
    assert is_test_set(("rain", name))


def test_pairs_of_folders_of_one_name_are_categories_of_their_own(tmp_path):
    """Rain and haze at night were one row, with one mean, as were those of the day."""
    pairs = [f"{weather}/{time}" for weather in ("haze", "rain") for time in ("day", "night")]
    lay_out(tmp_path, " ".join(f"{pair}/{side}/1.png" for pair in (*pairs, "snow") for side in ("input", "gt")))
    data = open_data(str(tmp_path))
    assert data.categories == ("haze day", "haze night", "rain day", "rain night", "snow")
    assert set(found(data)) == {f"{category}/1" for category in data.categories}


def test_pairs_of_folders_of_one_name_keep_its_factors(tmp_path):
    lay_out(tmp_path, " ".join(f"{place}/rain/{side}/1.png" for place in "ab" for side in ("input", "gt")))
    cases = open_data(str(tmp_path)).cases
    assert {case.category: case.factors for case in cases} == {"a rain": ("rain",), "b rain": ("rain",)}


def test_a_name_that_is_a_folder_too_is_the_data_set(tmp_path, monkeypatch):
    lay_out(tmp_path, "rain100l/input/1.png rain100l/gt/1.png")
    monkeypatch.chdir(tmp_path)
    assert open_data("rain100l").spec == f"rain100l={tmp_path / 'rain100l'}"


def test_tasks_lie_side_by_side_in_the_root(tmp_path, monkeypatch):
    files, expected = LAYOUTS["three-task"]["side by side"]
    lay_out(tmp_path, files)
    monkeypatch.setenv("F2D_DATA", str(tmp_path))
    assert found(open_data("three-task")) == expected


def test_names_stay_apart_and_limits_count_by_category(tmp_path):
    lay_out(tmp_path, "a.png a.jpg b.png")
    names = [case.name for case in open_data(f"live1-jpeg10={tmp_path}").cases]
    assert names == ["jpeg10/a.jpg", "jpeg10/a.png", "jpeg10/b"]
    lay_out(tmp_path, "a.jpg.png")
    names = [case.name for case in open_data(f"live1-jpeg10={tmp_path}").cases]
    assert names == ["jpeg10/a.jpg 2", "jpeg10/a.jpg", "jpeg10/a.png", "jpeg10/b"]
    assert len(open_data(f"composites={tmp_path}", limit=2).cases) == 22


def test_a_case_that_cannot_be_loaded_says_why(tmp_path):
    save(picture(0, 12, 16), tmp_path / "input" / "a.png")
    save(picture(0, 16, 12), tmp_path / "gt" / "a.png")
    (tmp_path / "input" / "b.png").write_bytes(b"no picture")
    save(picture(0, 16, 12), tmp_path / "gt" / "b.png")
    sizes, broken = open_data(str(tmp_path)).cases
    with pytest.raises(ValueError, match=r"input.a\.png and .*gt.a\.png must have the same size, got 16x12 and 12x16"):
        sizes.load()
    with pytest.raises(ImageError, match=r"b\.png"):
        broken.load()
