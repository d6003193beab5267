"""`f2d figures`: what is drawn is what was evaluated."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("matplotlib", reason="needs the [eval] extra")

from f2d.engine.restorer import Restorer
from f2d.evaluation.case import Case
from f2d.evaluation.folder import EvaluationFolder
from f2d.figures.panels import Crop, Shown, comparison, errors, show, states
from tests.cli.conftest import assert_one_line_error
from tests.data.conftest import picture, save


@pytest.fixture
def evaluation(f2d, model, tmp_path):
    clean = tmp_path / "clean"
    save(picture(1), clean / "a.png")
    out = tmp_path / "one"
    assert f2d("eval", model, "--data", f"composites={clean}", "-o", out, "--measures", "mae").exit_code == 0
    return out


def test_all_figures_are_written_and_again_the_same(f2d, evaluation, tmp_path):
    name = EvaluationFolder.open(evaluation).settings.name
    for kind in ("png", "pdf", "svg"):
        bytes_of = []
        for folder in (tmp_path / f"{kind}1", tmp_path / f"{kind}2"):
            done = f2d("figures", evaluation, "-o", folder, "--format", kind, "--steps", 2, "--case", "low/a")
            assert done.exit_code == 0, done.output
            names = {"comparison", "errors", "maps", "weights", f"{name}-gates", f"{name}-trajectory"}
            assert {path.name for path in folder.iterdir()} == {f"{each}.{kind}" for each in names}
            bytes_of.append([path.read_bytes() for path in sorted(folder.iterdir())])
        assert bytes_of[0] == bytes_of[1]
    again = f2d("figures", evaluation, "-o", tmp_path / "png1", "--case", "low/a")
    assert_one_line_error(again, 2, "comparison.png", "exists (--overwrite")


def test_mistakes_are_one_line(f2d, evaluation, model, tmp_path):
    out = tmp_path / "figures"
    assert_one_line_error(f2d("figures", tmp_path, "-o", out), 2, "contains no evaluation")
    assert_one_line_error(f2d("figures", evaluation, "-o", out, "--case", "low/b"), 2, "has no low/b", "low/a")
    assert_one_line_error(f2d("figures", evaluation, evaluation, "-o", out), 2, "is listed twice")
    assert_one_line_error(f2d("figures", evaluation, "-o", out, "--steps", 101), 2, "steps must be 1 to 100, got 101")
    (evaluation / "restored" / "low" / "a.png").unlink()
    assert_one_line_error(f2d("figures", evaluation, "-o", out, "--case", "low/a"), 2, "no restored image of low/a")
    photos = tmp_path / "photos"
    save(picture(2), photos / "b.png")
    f2d("eval", model, "--data", f"unpaired={photos}", "-o", tmp_path / "other", "--measures", "mae", "--name", "x")
    assert_one_line_error(f2d("figures", evaluation, tmp_path / "other", "-o", out), 2, "different data")
    assert not out.exists()


def test_evaluations_of_one_name_are_told_apart_by_their_folders(f2d, evaluation, tmp_path):
    shutil.copytree(evaluation, tmp_path / "twin")
    done = f2d("figures", evaluation, tmp_path / "twin", "-o", tmp_path / "out", "--case", "low/a", "--steps", "2")
    assert done.exit_code == 0
    names = sorted(path.name for path in (tmp_path / "out").glob("*-trajectory.png"))
    assert len(names) == 2 and "twin" in names[-1] + names[0]


def test_an_error_map_is_the_mean_difference_in_levels():
    clean = torch.full((3, 8, 8), 0.5)
    degraded = clean + torch.tensor([0.0, 0.1, 0.2])[:, None, None]
    figure = errors([Shown("a", degraded, clean, {"ours": clean}, {})])
    maps = [axis.images[0].get_array() for axis in figure.axes if axis.images]
    np.testing.assert_allclose(maps[0], 25.5, rtol=1e-5)
    np.testing.assert_allclose(maps[1], 0, atol=1e-5)
    with pytest.raises(ValueError, match="needs a ground truth"):
        errors([Shown("a", degraded, None, {}, {})])


def test_a_crop_is_drawn_and_the_numbers_stay_those_of_the_image(f2d, evaluation, tmp_path):
    clean, case = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0)), {"name": "a", "masks": {}}
    degraded = clean * 0.5
    whole = Shown(degraded=degraded, clean=clean, restored={}, **case)
    part = whole._replace(crop=Crop(2, 1, 4, 3))
    for draw in (comparison, errors):
        before, after = (draw([shown]).axes[0] for shown in (whole, part))
        np.testing.assert_array_equal(after.images[0].get_array(), before.images[0].get_array()[1:4, 2:6])
        assert before.get_xlabel() == after.get_xlabel() != ""
    arguments = ("figures", evaluation, "-o", tmp_path / "out", "--case", "low/a", "--crop")
    assert_one_line_error(f2d(*arguments, 40, 0, 100, 8), 2, "100x8 pixels at (40, 0)", "low/a")
    assert_one_line_error(f2d(*arguments, 0, 0, 0, 8), 2, "must lie inside")
    assert f2d(*arguments, 3, 4, 16, 8).exit_code == 0


def test_the_trajectory_ends_where_the_sampler_does(model):
    restorer = Restorer.load(model, precision="float32")
    degraded = torch.from_numpy(picture(3)).permute(2, 0, 1) / 255
    path, noises, times = states(restorer, restorer.transport, degraded, steps=4, seed=5)
    expected = restorer(degraded, steps=4, sampler="MC", seed=5).image
    torch.testing.assert_close(path[-1], expected.clamp(0, 1), atol=1e-5, rtol=0)
    assert times == [0.0, 0.25, 0.5, 0.75, 1.0] and len(noises) == 5
    assert float(noises[0].abs().max()) == 0 and float(noises[1].abs().max()) > 0


def test_a_case_shows_what_lies_in_the_folder(evaluation, tmp_path):
    folder = EvaluationFolder.open(evaluation)
    case = Case("low/a", "low", None, tmp_path / "clean" / "a.png", 0)
    shown = show(case, {"ours": folder})
    file = np.array(Image.open(folder.restored("low/a")))
    np.testing.assert_array_equal((shown.restored["ours"] * 255).round().permute(1, 2, 0).numpy(), file)
