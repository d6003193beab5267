"""`f2d report` and `f2d figures` after the data or the evaluation has changed: only what fits together is shown."""

import re
import shutil

import pytest

pytest.importorskip("matplotlib", reason="needs the [eval] extra")

from f2d.evaluation.folder import EvaluationFolder
from tests.cli.conftest import assert_one_line_error
from tests.data.conftest import picture, save
from tests.report.reader import Reader


@pytest.fixture
def evaluation(f2d, model, tmp_path):
    for i in range(3):
        save(picture(i), tmp_path / "rain" / "gt" / f"{i}.png")
        save(picture(i) // 2, tmp_path / "rain" / "input" / f"{i}.png")
    out = tmp_path / "out"
    assert f2d("eval", model, "--data", f"pairs={tmp_path / 'rain'}", "-o", out, "--measures", "mae").exit_code == 0
    return out


def shown_names(page) -> list[str]:
    return [article["aria-label"] for article in Reader(page.read_text()).all("article")]


def test_a_picture_that_has_changed_is_not_shown_beside_its_old_restoration(f2d, evaluation, tmp_path):
    page, figures = tmp_path / "page.html", tmp_path / "figures"
    assert f2d("report", evaluation, "-o", page, "--no-details").exit_code == 0
    assert shown_names(page) == ["rain/0", "rain/1", "rain/2"] and "have changed" not in page.read_text()
    save(picture(9), tmp_path / "rain" / "gt" / "0.png")
    again = f2d("report", evaluation, "-o", page, "--no-details", "--overwrite")
    assert again.exit_code == 0 and "The files of 1 of 3 pictures, such as rain/0, have changed" in " ".join(
        again.stderr.split()
    )
    assert shown_names(page) == ["rain/1", "rain/2"]
    refused = f2d("figures", evaluation, "-o", figures, "--case", "rain/0")
    assert_one_line_error(refused, 2, "files of rain/0 have changed", "run f2d eval again")
    done = f2d("figures", evaluation, "-o", figures, "--steps", "2", "--format", "svg")
    assert done.exit_code == 0, done.output


def test_changed_data_is_said_where_no_restoration_is_kept(f2d, model, evaluation, tmp_path):
    """Only pictures with a restoration in every evaluation were looked at."""
    out, page = tmp_path / "without", tmp_path / "page.html"
    command = ("eval", model, "--data", f"pairs={tmp_path / 'rain'}", "-o", out, "--measures", "mae", "--no-images")
    assert f2d(*command).exit_code == 0
    save(picture(9), tmp_path / "rain" / "gt" / "0.png")
    done = f2d("report", out, "-o", page, "--no-details")
    assert done.exit_code == 0 and "The files of 1 of 3 pictures, such as rain/0" in " ".join(done.stderr.split())


def test_gates_of_pictures_that_have_changed_are_not_drawn(f2d, model, tmp_path):
    """The figure of the gates where a factor is present and where it is absent took them as if nothing had changed."""
    for category in ("haze", "rain"):
        save(picture(1), tmp_path / "data" / category / "gt" / "1.png")
        save(picture(2), tmp_path / "data" / category / "input" / "1.png")
    out = tmp_path / "out"
    assert f2d("eval", model, "--data", f"pairs={tmp_path / 'data'}", "-o", out, "--measures", "mae").exit_code == 0
    draw = ("figures", out, "--steps", "2", "--format", "svg", "-o")
    assert f2d(*draw, tmp_path / "before").exit_code == 0 and (tmp_path / "before" / "weights.svg").exists()
    save(picture(3), tmp_path / "data" / "rain" / "input" / "1.png")
    assert f2d(*draw, tmp_path / "after").exit_code == 0 and (tmp_path / "after" / "comparison.svg").exists()
    assert not (tmp_path / "after" / "weights.svg").exists()  # haze alone is compared with nothing


def test_a_photograph_more_changes_the_seeds_of_those_behind_it(f2d, model, tmp_path):
    """Image i of category c is degraded with seed 1000 c + i, so the page showed another rain than was restored."""
    save(picture(1), tmp_path / "photos" / "b.png")
    out, page = tmp_path / "out", tmp_path / "page.html"
    data = f"composites={tmp_path / 'photos'}"
    assert f2d("eval", model, "--data", data, "-o", out, "--measures", "mae").exit_code == 0
    save(picture(2), tmp_path / "photos" / "a.png")
    assert f2d("report", out, "-o", page, "--no-details").exit_code == 0
    assert shown_names(page) == []
    assert_one_line_error(f2d("figures", out, "-o", tmp_path / "figures"), 2, "files as they are now")


def test_figures_draw_no_restoration_of_the_evaluation_before(f2d, model, evaluation, tmp_path):
    """Of three pictures, a new evaluation of one left two restorations of the old one behind."""
    again = (
        "eval",
        model,
        "--data",
        f"pairs={tmp_path / 'rain'}",
        "-o",
        evaluation,
        "--measures",
        "mae",
        "--overwrite",
    )
    assert f2d(*again, "--limit", "1", "--seed", "1").exit_code == 0
    refused = f2d("figures", evaluation, "-o", tmp_path / "figures", "--case", "rain/2")
    assert_one_line_error(refused, 2, "no restored image of rain/2")


def test_a_page_has_no_average_over_fewer_categories(f2d, model, tmp_path):
    """The mean of an unfinished evaluation, or of one that failed in a whole category, was that of the others."""
    for category, darker in (("haze", 2), ("rain", 3)):
        save(picture(1), tmp_path / "data" / category / "gt" / "1.png")
        save(picture(1) // darker, tmp_path / "data" / category / "input" / "1.png")
    out, page = tmp_path / "out", tmp_path / "page.html"
    assert f2d("eval", model, "--data", f"pairs={tmp_path / 'data'}", "-o", out, "--measures", "mae").exit_code == 0
    shutil.copytree(out, tmp_path / "whole")
    EvaluationFolder.open(out).remove("rain/1")

    def rows() -> dict[str, list[str]]:
        found = re.findall(r'<th scope="row">(haze|rain|all)</th>(.*?)</tr>', page.read_text())
        return {name: re.findall(r"<td[^>]*>(?:<strong>)?([^<]+)", cells) for name, cells in found}

    assert f2d("report", tmp_path / "whole", "-o", page, "--no-details").exit_code == 0
    whole = rows()
    assert f2d("report", out, tmp_path / "whole", "-o", page, "--no-details", "--overwrite").exit_code == 0
    assert rows()["all"][1:4] == [whole["all"][1], "–", whole["all"][2]]  # input, unfinished, whole
    assert f2d("report", out, "-o", page, "--no-details", "--overwrite").exit_code == 0
    part = rows()
    assert part["haze"] == whole["haze"] and set(part["rain"][1:]) == {"–"} and part["all"][1:] == part["rain"][1:]
    assert "rain/1: was not evaluated" in page.read_text()
