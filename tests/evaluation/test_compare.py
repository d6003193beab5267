"""`f2d compare`: on the same pictures or not at all."""

import csv
import json
from math import inf, nan

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from f2d.cli.compare import compare
from f2d.evaluation.bootstrap import paired
from f2d.evaluation.record import Record
from tests.cli.conftest import assert_one_line_error
from tests.evaluation.records import NIQE, PSNR, SSIM, folder_of, record

CATEGORIES = ("low", "haze", "low_haze")
NAMES = [f"{category}/{i}" for category in CATEGORIES for i in range(6)]
BASE = dict(zip(NAMES, np.random.default_rng(0).normal(25, 3, len(NAMES))))
GAIN = dict(zip(NAMES, np.random.default_rng(1).normal(0.5, 0.2, len(NAMES))))


def folder(path, gain: float = 0.0, skip=(), **changes):
    records = [
        record(name, BASE[name] + gain * GAIN[name], input={PSNR.key: BASE[name] - 9}, **changes.pop(name, {}))
        for name in NAMES
        if name not in skip
    ]
    # SSIM of `record` follows the PSNR; the input's is the same picture's
    records = [Record(**{**r.__dict__, "input": {PSNR.key: r.input[PSNR.key], NIQE.key: 8.0}}) for r in records]
    return folder_of(path, records, **changes)


def run(*arguments: object):
    app = typer.Typer()
    app.command()(compare)
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "140"})


@pytest.fixture
def two(tmp_path):
    folder(tmp_path / "a", name="first")
    folder(tmp_path / "b", 1.0, name="second")
    return tmp_path


def entries(path) -> dict[tuple, dict]:
    return {(e["measure"], e["row"], e["method"]): e for e in json.loads((path / "compare.json").read_text())["lines"]}


def test_means_and_intervals_are_those_of_the_pictures(two):
    result = run(two / "a", two / "b", "-o", two / "out", "--resamples", 2000, "--seed", 3)
    assert result.exit_code == 0, result.output
    found = entries(two / "out")
    low = [name for name in NAMES if name.startswith("low/")]
    assert found[PSNR.key, "low", "first"]["mean"] == pytest.approx(np.mean([BASE[name] for name in low]))
    line = found[PSNR.key, "low", "second"]
    assert line["difference"] == pytest.approx(np.mean([GAIN[name] for name in low]))
    everything = {c: {str(i): GAIN[f"{c}/{i}"] for i in range(6)} for c in CATEGORIES}
    expected = paired(everything, 2000, 3)
    line = found[PSNR.key, "all", "second"]
    assert (line["low"], line["high"]) == pytest.approx((expected.low, expected.high))
    assert line["verdict"] == "better" and line["share_better"] == 1
    assert {"single", "pair"} <= {row for _, row, _ in found} and "triple" not in {row for _, row, _ in found}
    # NIQE is 4 everywhere, an interval of no width that does not exclude 0
    line = found[NIQE.key, "all", "second"]
    assert (line["difference"], line["low"], line["verdict"], line["share_better"]) == (0, 0, "", 0.5)


def test_the_terminal_says_who_is_better(two):
    lines = run(two / "a", two / "b", "--measure", PSNR.key).stdout.splitlines()
    (line,) = [line for line in lines if "second" in line and "better" in line and "+" in line][-1:]
    assert " *" in line and " to " in line
    assert not any("NIQE" in line for line in lines)


def test_lower_is_better_where_it_is(tmp_path):
    folder(tmp_path / "a", name="first")
    worse = {name: {"values": {NIQE.key: 4.5 + 0.02 * i}} for i, name in enumerate(NAMES)}
    folder(tmp_path / "b", name="second", **worse)
    assert run(tmp_path / "a", tmp_path / "b", "-o", tmp_path / "out").exit_code == 0
    line = entries(tmp_path / "out")[NIQE.key, "all", "second"]
    assert line["verdict"] == "worse" and line["share_better"] == 0 and line["difference"] > 0
    text = (tmp_path / "out" / "compare.md").read_text().split("## NIQE")[1]
    assert "first | 4.00 \\*" in text and "second | 4.67 |" in text


@pytest.mark.parametrize(("left", "words"), [(1, "fewer than two scenes has no"), (6, "has 6 scenes")])
def test_few_pictures_are_told(tmp_path, left, words):
    skip = {f"haze/{i}" for i in range(left, 6)}
    folder(tmp_path / "a", skip=skip, name="first")
    folder(tmp_path / "b", 1.0, skip=skip, name="second")
    result = run(tmp_path / "a", tmp_path / "b", "--resamples", 100)
    assert result.exit_code == 0 and words in result.stdout


def test_a_comparison_without_any_interval_says_what_would_give_some(tmp_path):
    """All it said was what holds of a category with fewer than two scenes."""
    skip = {name for name in NAMES if not name.endswith("/0")}
    folder(tmp_path / "a", skip=skip, name="first")
    folder(tmp_path / "b", 1.0, skip=skip, name="second")
    told = run(tmp_path / "a", tmp_path / "b", "--resamples", 100).stdout
    assert "No category has two scenes, so there are no intervals" in told and "evaluate more images" in told
    assert "A category with fewer" not in told and "infinite" not in told


@pytest.mark.parametrize(("left", "words"), [(1, "fewer than two scenes has no"), (3, "has 3 scenes")])
def test_few_pictures_of_a_later_measure_are_told(tmp_path, left, words):
    """Only those of the first measure were counted."""
    undefined = {f"haze/{i}": {"values": {NIQE.key: nan}} for i in range(left, 6)}
    folder(tmp_path / "a", name="first", **undefined)
    folder(tmp_path / "b", 1.0, name="second", **undefined)
    told = run(tmp_path / "a", tmp_path / "b", "--resamples", 100).stdout
    assert words in told and f"has {left if left > 1 else 6} scenes: intervals from so few" in told


def test_what_one_lacks_is_left_out_of_all_and_listed(tmp_path):
    folder(tmp_path / "a", skip={"low/0"}, name="first")
    broken = folder(tmp_path / "b", 1.0, name="second")
    broken.write(Record("haze/3", "haze", error="b.png: cannot be read"))
    result = run(tmp_path / "a", tmp_path / "b", "-o", tmp_path / "out")
    assert result.exit_code == 0
    assert "Excluded pictures: 2" in result.stdout
    assert "low/0: first has none" in result.stdout and "haze/3: second: b.png: cannot be read" in result.stdout
    left = [BASE[name] for name in NAMES if name.startswith("low/") and name != "low/0"]
    found = entries(tmp_path / "out")
    assert found[PSNR.key, "low", "second"]["images"] == 5
    assert found[PSNR.key, "low", "first"]["mean"] == pytest.approx(np.mean(left))
    assert set(json.loads((tmp_path / "out" / "compare.json").read_text())["left_out"]) == {"low/0", "haze/3"}


def test_a_category_that_one_lacks_is_named(tmp_path):
    """The means over the other categories passed for those of all."""
    folder(tmp_path / "a", name="first")
    folder(tmp_path / "b", 1.0, name="second", skip={name for name in NAMES if name.startswith("haze/")})
    result = run(tmp_path / "a", tmp_path / "b", "-o", tmp_path / "out")
    told = "No picture of haze is in every evaluation, so tiers and the overall mean are over the other categories."
    assert told in " ".join(result.stdout.split()) and told in (tmp_path / "out" / "compare.md").read_text()
    others = [np.mean([BASE[f"{category}/{i}"] for i in range(6)]) for category in ("low", "low_haze")]
    found = entries(tmp_path / "out")
    assert found[PSNR.key, "all", "first"]["mean"] == pytest.approx(np.mean(others))
    assert found[PSNR.key, "single", "first"]["mean"] == pytest.approx(others[0])
    assert "No picture of" not in run(tmp_path / "a", folder(tmp_path / "c", skip={"haze/1"}).path).stdout


def test_a_measure_that_is_not_defined_somewhere_is_left_out_of_both(tmp_path):
    folder(tmp_path / "a", name="first", **{"low/1": {"values": {NIQE.key: 100.0}}})
    folder(tmp_path / "b", name="second", **{"low/1": {"values": {NIQE.key: nan}}})
    result = run(tmp_path / "a", tmp_path / "b", "-o", tmp_path / "out")
    assert f"{NIQE.key} is undefined for 1 of them" in result.stdout
    found = entries(tmp_path / "out")
    assert found[NIQE.key, "low", "first"]["mean"] == 4 and found[NIQE.key, "low", "first"]["images"] == 5
    assert found[PSNR.key, "low", "first"]["images"] == 6


def test_pictures_without_error(tmp_path):
    perfect = {"low/1": {"values": {PSNR.key: inf}}}
    folder(tmp_path / "a", name="first", **perfect)
    folder(tmp_path / "b", name="second", **perfect)
    folder(tmp_path / "c", name="third")
    told = run(tmp_path / "a", tmp_path / "b", tmp_path / "c", "-o", tmp_path / "out").stdout
    assert "A mean is infinite" in told and "two scenes" not in told
    found = entries(tmp_path / "out")
    assert found[PSNR.key, "low", "second"]["difference"] == 0
    third = found[PSNR.key, "low", "third"]
    assert (float(third["difference"]), str(third["low"]), third["verdict"]) == (-inf, "nan", "")


def test_only_common_measures_are_compared(tmp_path):
    folder(tmp_path / "a", name="first")
    folder(tmp_path / "b", name="second", measures=(SSIM,))
    result = run(tmp_path / "a", tmp_path / "b")
    assert result.exit_code == 0
    assert f"{PSNR.key} is not compared: not measured alike in second" in result.stdout
    assert "SSIM RGB" in result.stdout and "PSNR RGB (dB)" not in result.stdout
    assert_one_line_error(run(tmp_path / "a", tmp_path / "b", "--measure", PSNR.key), 2, PSNR.key, SSIM.key)
    folder(tmp_path / "c", name="third", measures=(NIQE,))
    assert_one_line_error(run(tmp_path / "b", tmp_path / "c"), 2, "no measure in common")


def test_what_cannot_be_compared_is_one_line(two):
    folder(two / "sots", name="sots", data="sots=SOTS")
    folder_of(two / "empty", [])
    folder_of(two / "small", [record(NAMES[0], 20.0, width=8)])
    folder_of(two / "another", [record(NAMES[0], BASE[NAMES[0]], input={PSNR.key: 3.0})])
    assert_one_line_error(run(two / "a"), 2, "two or more")
    assert_one_line_error(run(two / "a", two / "b" / ".." / "a"), 2, "two or more different evaluations")
    assert_one_line_error(run(two / "a", two / "none"), 2, "contains no evaluation")
    assert_one_line_error(run(two / "a", two / "sots"), 2, "different datasets", "first on cdd-11", "sots on sots")
    assert_one_line_error(run(two / "a", two / "empty"), 2, "no image")
    assert_one_line_error(run(two / "a", two / "small"), 2, "300x200 and 8x200")
    assert_one_line_error(run(two / "a", two / "another"), 2, "not the same image", PSNR.key)
    (two / "file").touch()
    assert_one_line_error(run(two / "a", two / "b", "-o", two / "file"), 2, "is a file")


def test_the_same_data_elsewhere_and_the_same_name_twice(tmp_path):
    folder(tmp_path / "a", data="cdd-11=here")
    folder(tmp_path / "b", data="cdd-11=there")
    result = run(tmp_path / "a", tmp_path / "b", "-o", tmp_path / "out")
    assert result.exit_code == 0
    assert {method for _, _, method in entries(tmp_path / "out")} == {
        f"one ({tmp_path / 'a'})",
        f"one ({tmp_path / 'b'})",
    }


def test_files_agree_and_are_the_same_each_time(two):
    for out in ("x", "y"):
        run(two / "a", two / "b", "-o", two / out, "--resamples", 500)
    assert all((two / "x" / n).read_bytes() == (two / "y" / n).read_bytes() for n in ("compare.json", "compare.md"))
    lines = list(csv.DictReader((two / "x" / "compare.csv").read_text().splitlines()))
    found = entries(two / "x")
    assert len(lines) == len(found)
    for line in lines:
        entry = found[line["measure"], line["row"], line["method"]]
        assert float(line["mean"]) == entry["mean"]
        assert (line["low"] and float(line["low"])) == entry.get("low", "")
