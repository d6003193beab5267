"""Means over pictures, then over categories; nothing is lost on the way."""

import random
from fractions import Fraction
from math import inf, isnan, nan

import pytest

from f2d.evaluation.record import Record
from f2d.evaluation.summary import Failure, summarize
from tests.evaluation.records import NIQE, PSNR, record

TIERS = (("single", ("low", "haze")), ("pair", ("low_haze",)), ("triple", ("low_haze_rain",)))


def rows(summary) -> dict[str, tuple]:
    return {row.name: row for row in summary.rows}


def test_every_category_counts_once_in_averages():
    records = [record("low/a", 10.0), record("low/b", 20.0), record("low/c", 30.0), record("haze/a", 40.0)]
    found = rows(summarize([*records, record("low_haze/a", 50.0)], TIERS))
    assert list(found) == ["low", "haze", "low_haze", "single", "pair", "all"]  # as published; no triples here
    assert found["low"].values[PSNR.key] == 20
    assert found["single"].values[PSNR.key] == 30  # of pictures it would be 25
    assert found["single"].input[PSNR.key] == 20
    assert found["single"].images == 4 and found["single"].categories == ("low", "haze")
    assert found["all"].values[PSNR.key] == pytest.approx(110 / 3, abs=1e-12)
    assert found["all"].kind == "all" and found["all"].images == 5


def test_means_are_those_of_exact_arithmetic_whatever_the_order():
    draw = random.Random(0)
    records = [record(f"low/{i}", value) for i, value in enumerate((1e16, 1.0, 1.0, 1.0, -1e16))]
    records += [record(f"rain/{i}", draw.uniform(10, 1e9)) for i in range(50)]
    first = summarize(records)
    assert rows(first)["low"].values[PSNR.key] == 3 / 5
    exact = sum(Fraction(record.values[PSNR.key]) for record in records[5:]) / 50
    assert rows(first)["rain"].values[PSNR.key] == pytest.approx(float(exact), rel=3e-16)
    for _ in range(5):
        draw.shuffle(records)
        assert summarize(records) == first


def test_failures_are_listed_and_in_no_mean():
    failed = Record("haze/b", "haze", error="cannot read it")
    summary = summarize([record("haze/a", 30.0), failed])
    assert summary.failed == (Failure("haze/b", "cannot read it"),)
    assert summary.all.images == 1 and summary.all.values[PSNR.key] == 30


def test_a_category_without_numbers_leaves_no_average_over_the_others():
    summary = summarize([record("haze/a", 30.0), Record("low/a", "low", error="cannot read it")], TIERS)
    found = rows(summary)
    assert found["low"].images == 0 and isnan(found["low"].values[PSNR.key])
    assert isnan(found["single"].values[PSNR.key]) and isnan(summary.all.values[PSNR.key])
    assert found["haze"].values[PSNR.key] == 30


def test_what_is_not_defined_is_left_out_and_counted():
    small = record("low/b", 30.0, values={NIQE.key: nan})
    summary = summarize([record("low/a", 20.0), small, record("haze/a", 30.0)])
    assert rows(summary)["low"].values[NIQE.key] == 4
    assert rows(summary)["low"].undefined == {NIQE.key: 1} == summary.all.undefined
    assert rows(summary)["low"].values[PSNR.key] == 25


def test_identical_pictures_stay_infinitely_good():
    summary = summarize([record("low/a", inf), record("low/b", 30.0), record("haze/a", 20.0)])
    assert summary.all.values[PSNR.key] == inf and rows(summary)["haze"].values[PSNR.key] == 20


def test_selectivity_is_that_of_the_records_that_have_it():
    pairs = {"present_absent": (0.8, 0.1)}
    summary = summarize([record("low/a", 20.0, selectivity=pairs), record("low/b", 20.0)])
    assert "present_absent" in summary.selectivity
    assert summarize([record("low/b", 20.0)]).selectivity == {}


def test_speed_is_of_what_was_timed():
    timed = [record(f"low/{i}", 20.0, seconds=s, peak_memory=i) for i, s in enumerate((1.0, 2.0, 6.0))]
    speed = summarize([*timed, record("low/x", 20.0, seconds=0.0, peak_memory=99)]).speed
    assert (speed.images, speed.seconds, speed.peak_memory) == (3, 2.0, 2)
    assert speed.megapixels_per_second == pytest.approx(3 * 0.06 / 9)
    assert summarize([record("low/x", 20.0, seconds=0.0)]).speed is None


def test_no_records_are_refused():
    with pytest.raises(ValueError, match="no records"):
        summarize([])
