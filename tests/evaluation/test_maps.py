"""How well maps agree with ground-truth masks, from the record of a picture to the files of an evaluation."""

import csv
import json
import math
import random
from dataclasses import fields
from types import SimpleNamespace

import pytest
import torch

from f2d.evaluation.record import Record
from f2d.evaluation.summary import summarize
from f2d.evaluation.tables import write_results
from f2d.metrics.localisation import located
from tests.evaluation.records import folder_of, record
from tests.evaluation.test_tables import cells_of

RAMP = torch.tensor([[0.0, 0.25], [0.5, 0.75]])  # two of the four pixels are above the mean
SIZE = {"width": 2, "height": 2}
RIGHT, WRONG, CONSTANT = located(RAMP, RAMP), located(1 - RAMP, RAMP), located(torch.full((2, 2), 0.3), RAMP)
EMPTY = located(RAMP, torch.zeros(2, 2), 0.1)
RECORDS = [
    record("low/a", 20.0, localisation={"low": RIGHT}, **SIZE),
    record("low/b", 20.0, localisation={"low": WRONG}, **SIZE),
    record("low_rain/a", 20.0, localisation={"low": CONSTANT, "rain": RIGHT}, **SIZE),
    record("rain/a", 20.0, localisation={"rain": EMPTY}, **SIZE),
]


def written(path, records) -> dict[str, str]:
    data = SimpleNamespace(title="composites", problems=(), published=())
    write_results(folder_of(path, records), data, summarize(records), records)
    return {file.name: file.read_text() for file in path.iterdir() if file.is_file()}


def test_a_record_comes_back_with_numbers_that_json_does_not_have():
    back = Record.from_json(RECORDS[3].to_json())
    assert math.isnan(back.localisation["rain"].average_precision)
    assert back.localisation["rain"]._replace(average_precision=0) == EMPTY._replace(average_precision=0)
    assert Record.from_json(RECORDS[2].to_json()) == RECORDS[2]


@pytest.mark.parametrize("name", [each.name for each in fields(Record)])
def test_every_field_is_required_and_named_with_its_file(tmp_path, name):
    """Without the hash of its data, a record was taken for one of the data as they are now."""
    folder = folder_of(tmp_path, [RECORDS[0]])
    (file,) = (tmp_path / "images").rglob("*.json")
    values = json.loads(file.read_text())
    del values[name]
    file.write_text(json.dumps(values))
    for read in (lambda: folder.record("low/a"), folder.names):
        with pytest.raises(ValueError, match=f"a.json is damaged .*without {name}") as found:
            read()
        assert str(file) in str(found.value)


@pytest.mark.parametrize("broken", [{"low": {"map_mean": 1}}, {"low": [1, 2]}, {"low": {"map_mean": None}}, 3, None])
def test_broken_records_are_refused(broken):
    values = json.loads(RECORDS[0].to_json()) | {"localisation": broken}
    with pytest.raises(ValueError, match="not a record of a picture"):
        Record.from_json(json.dumps(values))


def test_each_factor_counts_the_pictures_in_which_it_is_present():
    failed = Record("rain/b", "rain", error="cannot read it")
    found = summarize([*RECORDS, failed]).localisation
    assert list(found) == ["low", "rain"]
    low, rain = found.values()
    assert (low.images, low.undefined, low.unranked) == (3, 1, 0)
    assert low.correlation == pytest.approx(0, abs=1e-12)
    assert low.average_precision == pytest.approx((1 + (1 / 3 + 2 / 4) / 2 + 1 / 2) / 3)
    assert (rain.images, rain.undefined, rain.unranked) == (2, 1, 1)
    assert rain.correlation == pytest.approx(1) and rain.average_precision == 1


def test_pooled_correlations_count_every_pixel_once():
    large = torch.rand(9, 8, generator=torch.Generator().manual_seed(0))
    records = [
        record("low/a", 20.0, localisation={"low": RIGHT}, **SIZE),
        record("low/b", 20.0, localisation={"low": located(1 - large, large)}, width=8, height=9),
    ]
    maps, masks = torch.cat([RAMP.flatten(), 1 - large.flatten()]), torch.cat([RAMP.flatten(), large.flatten()])
    expected = float(torch.corrcoef(torch.stack([maps, masks]).double())[0, 1])
    assert summarize(records).localisation["low"].pooled_correlation == pytest.approx(expected, abs=1e-12)


def test_the_tables_have_a_row_for_each_factor_and_say_what_they_leave_out(tmp_path):
    text = written(tmp_path, RECORDS)["results.md"]
    header, low, rain = cells_of(text, "## Maps of the experts")
    assert header == ["", "pictures", "correlation", "pooled correlation", "average precision", "by chance"]
    assert low[:3] == ["low", "3", "0.000"] and low[4:] == ["0.639", "0.500"]
    assert rain[:3] == ["rain", "2", "1.000"] and rain[4:] == ["1.000", "0.500"]
    assert "low: the mean correlation leaves out 1 of 3 pictures" in text
    assert "low: the mean average precision" not in text
    assert "rain: the mean average precision leaves out 1 of 2 pictures" in text
    assert "snow: mask above 0.1;" in text


def test_the_files_for_programs_have_every_number(tmp_path):
    files = written(tmp_path, RECORDS)
    summary = summarize(RECORDS).localisation
    assert json.loads(files["results.json"])["localisation"] == {name: one._asdict() for name, one in summary.items()}
    lines = list(csv.DictReader(files["results.csv"].splitlines()))
    assert [line["map correlation low"] for line in lines] == ["1.0", "-1.0", "nan", ""]
    assert lines[2]["map average precision low"] == "0.5" and lines[2]["map average precision rain"] == "1.0"
    assert lines[3]["degraded share rain"] == "0.0"


def test_without_maps_there_is_nothing(tmp_path):
    files = written(tmp_path, [record("low/a", 20.0), record("rain/a", 20.0)])
    assert "Maps of the experts" not in files["results.md"] and "map correlation" not in files["results.csv"]
    assert json.loads(files["results.json"])["localisation"] == {}


def test_bytes_do_not_depend_on_the_order_of_work(tmp_path):
    draws = torch.Generator().manual_seed(1)
    records = []
    for i in range(20):
        mask = torch.rand(7, 9, generator=draws)
        maps = {"low": located(mask * torch.rand(7, 9, generator=draws), mask)}
        records.append(record(f"low/{i:02}", 20.0, localisation=maps, width=9, height=7))
    expected = summarize(records)
    for _ in range(5):
        random.Random(0).shuffle(records)
        assert summarize(records) == expected
