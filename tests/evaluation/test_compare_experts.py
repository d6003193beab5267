"""`f2d compare` on experts: selectivity and map correlations by hand, and methods that lack them."""

import csv
import json
from dataclasses import replace

import pytest
import torch

from f2d.evaluation.bootstrap import ratio
from f2d.evaluation.record import Record
from f2d.evaluation.summary import summarize
from f2d.metrics.localisation import located
from f2d.metrics.selectivity import EPSILON
from tests.evaluation.records import folder_of, record
from tests.evaluation.test_compare import run
from tests.evaluation.test_tables import cells_of

RAMP = torch.tensor([[0.0, 0.25], [0.5, 0.75]])
MAPS = {1: RAMP, -1: 1 - RAMP, None: torch.full((2, 2), 0.3)}
CORRELATIONS = {"rain/a": 1, "rain/b": -1, "rain/c": 1, "low_rain/a": 1, "low_rain/b": 1, "low_rain/c": -1}
# three scenes with (numerator, denominator) in each of two categories
PAIRS = {
    "rain/a": (4.0, 1.0),
    "rain/b": (2.0, 1.0),
    "rain/c": (3.0, 0.5),
    "low_rain/a": (1.0, 0.5),
    "low_rain/b": (5.0, 2.0),
    "low_rain/c": (6.0, 2.0),
}


def experts(name: str, correlation: int | None, times: float = 1.0, **others) -> Record:
    above, below = PAIRS[name]
    return record(
        name,
        25.0,
        gates={"low": 0.5, "rain": 0.5},
        selectivity={"present_absent": (times * above, below)},
        localisation={"rain": located(MAPS[correlation], RAMP)},
        **others,
    )


@pytest.fixture
def three(tmp_path):
    """Experts with maps, image-level gates of ratio one without maps, and a method without factors."""
    maps = [experts(name, correlation) for name, correlation in CORRELATIONS.items()]
    whole = [replace(one, localisation={}, selectivity={"present_absent": (2.0, 2.0)}) for one in maps]
    folder_of(tmp_path / "maps", maps, name="maps")
    folder_of(tmp_path / "whole", whole, name="whole")
    folder_of(tmp_path / "none", [record(name, 25.0) for name in PAIRS], name="none")
    return tmp_path


def compared(home, *names: str, **options) -> tuple[dict, str]:
    arguments = [f"--{option}={value}" for option, value in options.items()]
    result = run(*(home / name for name in names), "-o", home / "out", *arguments)
    assert result.exit_code == 0, result.output
    lines = json.loads((home / "out" / "compare.json").read_text())["lines"]
    return {(line["measure"], line["method"]): line for line in lines if "mean_low" in line}, result.stdout


def test_the_ratios_are_those_of_the_sets(three):
    lines, _ = compared(three, "maps", "whole", "none", resamples=2000, seed=3)
    line = lines["selectivity present_absent", "maps"]
    assert line["images"] == 6 and line["mean"] == pytest.approx(21 / 7, rel=1e-5)
    scenes = {
        c: {s: (PAIRS[f"{c}/{s}"][0], PAIRS[f"{c}/{s}"][1] + EPSILON) for s in "abc"} for c in ("low_rain", "rain")
    }
    assert (line["mean"], line["mean_low"], line["mean_high"]) == pytest.approx(ratio(scenes, 2000, 3))
    # scenes are drawn whole: the least and the most selective one have 5/1.5 and 7/3
    assert 7 / 3 - 1e-3 <= line["mean_low"] < line["mean"] < line["mean_high"] <= 9 / 2.5 + 1e-3
    line = lines["selectivity present_absent", "whole"]
    assert line["mean"] == pytest.approx(1, abs=1e-5) and line["mean_low"] == line["mean_high"] == line["mean"]
    line = lines["map correlation rain", "maps"]
    assert line["mean"] == pytest.approx(2 / 6) and line["mean_low"] < 2 / 6 < line["mean_high"]
    assert {method for _, method in lines} == {"maps", "whole"}


def test_the_numbers_are_those_of_the_evaluation(three):
    """One definition: what `f2d eval` says of a set is what `f2d compare` says of it, here with unequal categories."""
    records = [experts(name, correlation) for name, correlation in list(CORRELATIONS.items())[:-1]]
    folder_of(three / "uneven", records, name="uneven")
    summary = summarize(records)
    lines, _ = compared(three, "uneven", "none")
    line = lines["selectivity present_absent", "uneven"]
    assert line["mean"] == pytest.approx(summary.selectivity["present_absent"].ratio, rel=1e-12)
    line = lines["map correlation rain", "uneven"]
    assert line["mean"] == pytest.approx(summary.localisation["rain"].correlation, rel=1e-12)


def test_what_is_missing_is_said(three):
    _, told = compared(three, "maps", "whole", "none")
    told = " ".join(told.split())
    assert "none has no factors" in told and "whole has one gate per image and no maps" in told
    assert "maps has" not in told


def test_a_picture_without_a_correlation_is_left_out_of_every_method(three):
    changed = [experts(name, None if name == "rain/b" else 1) for name in CORRELATIONS]
    folder_of(three / "constant", changed, name="constant")
    lines, _ = compared(three, "maps", "constant")
    assert lines["map correlation rain", "constant"]["mean"] == pytest.approx(1)
    line = lines["map correlation rain", "maps"]
    assert line["images"] == 5 and line["mean"] == pytest.approx(3 / 5)


def test_methods_without_a_common_image_have_no_correlation_and_the_rest_is_compared(three):
    """Each of two methods has a constant map where the other has none."""
    names = list(CORRELATIONS)
    for method, constant in (("left", names[:3]), ("right", names[3:])):
        folder_of(three / method, [experts(n, None if n in constant else 1) for n in names], name=method)
    lines, told = compared(three, "left", "right")
    assert {measure for measure, _ in lines} == {"selectivity present_absent"}
    told = " ".join(told.split())
    assert "left has the map correlation rain, but in no image for which the others have it too." in told
    assert "right has the map correlation rain, but in no image" in told


def test_a_map_that_is_constant_everywhere_is_named(three):
    folder_of(three / "flat", [experts(name, None) for name in CORRELATIONS], name="flat")
    _, told = compared(three, "maps", "flat")
    assert "flat has no map correlation rain, because its map is constant in every image" in " ".join(told.split())


def test_chosen_measures_are_printed_without_notes_on_experts(three):
    _, told = compared(three, "maps", "whole", measure="psnr rgb 8bit")
    assert "numbers about experts" not in told and "Selectivity" not in told


def test_the_page_and_the_table_have_them(three):
    lines, told = compared(three, "maps", "whole", "none")
    text = (three / "out" / "compare.md").read_text()
    _, first, second, third = cells_of(text, "## Selectivity of the experts")
    line = lines["selectivity present_absent", "maps"]
    interval = f"{line['mean_low']:.2f} to {line['mean_high']:.2f}"
    assert first == ["present_absent", "6", "maps", "3.00", interval]
    assert second == ["", "", "whole", "1.00", "1.00 to 1.00"] and third == ["", "", "none", "–", ""]
    assert interval in told and "Correlation of the experts' maps" in told
    header, maps, *_, none = cells_of(text, "## Overview")
    assert header[:2] == ["", "PSNR RGB (dB)"] and maps[:2] == ["maps", "25.00"]
    assert none[:2] == ["none", "25.00 (+0.00 to +0.00)"]
    rows = list(csv.DictReader((three / "out" / "compare.csv").read_text().splitlines()))
    (row,) = [row for row in rows if (row["measure"], row["method"]) == ("selectivity present_absent", "maps")]
    assert (float(row["mean_low"]), row["difference"]) == (line["mean_low"], "")


def test_methods_without_experts_have_no_tables(three):
    folder_of(three / "other", [record(name, 25.0) for name in PAIRS], name="other")
    lines, told = compared(three, "none", "other")
    text = told + (three / "out" / "compare.md").read_text()
    assert lines == {} and "Selectivity" not in text and "numbers about experts" not in text
