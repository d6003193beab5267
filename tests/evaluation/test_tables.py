"""The files of an evaluation: every number is in them, in words one can trust, and in the same bytes each time."""

import csv
import html
import io
import json
import random
from dataclasses import replace
from math import inf, nan
from types import SimpleNamespace

import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from f2d.evaluation.markdown import plain
from f2d.evaluation.presets import PRESETS
from f2d.evaluation.record import Record
from f2d.evaluation.summary import summarize
from f2d.evaluation.tables import SPEED, terminal_table, write_results
from f2d.metrics.measure import About
from tests.evaluation.records import NIQE, PSNR, SETTINGS, SSIM, folder_of, record

FID = About("fid", "FID", "lower", digits=2)
TIERS = (("single", ("low", "haze")), ("pair", ("low_haze",)))
RECORDS = [
    record("low/a", 20.0, gates={"low": 0.5, "haze": 0.1}),
    record("low/b|c", 30.0, values={NIQE.key: nan}),
    record("haze/a", inf),
    record("low_haze/a", 26.125),
    Record("low_haze/b", "low_haze", error="b.png: cannot be read"),
]
DATA = SimpleNamespace(title="CDD-11", problems=("clear/x.png: no picture to compare it with",), published=("cdd-11",))


def written(path, records=RECORDS, over_sets=None, data=DATA, **changes):
    folder = folder_of(path, records, **changes)
    write_results(folder, data, summarize(records, TIERS), records, over_sets)
    return {file.name: file.read_bytes().decode() for file in path.iterdir() if file.is_file()}


def cells_of(text: str, heading: str) -> list[list[str]]:
    """The first Markdown table below a heading, without its rule."""
    after = text.split(heading, 1)[1].split("|", 1)[1]
    lines = ("|" + after).split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if set(line) - set("|-: ")]


def test_json_has_every_row_and_reads_as_numbers(tmp_path):
    found = json.loads(written(tmp_path)["results.json"])
    rows = {row["name"]: row for row in found["rows"]}
    assert rows["low"]["values"][PSNR.key] == 25 and rows["low"]["input"][PSNR.key] == 15
    assert float(rows["haze"]["values"][PSNR.key]) == inf
    assert rows["low"]["undefined"] == {NIQE.key: 1}
    assert found["failed"] == [{"name": "low_haze/b", "reason": "b.png: cannot be read"}]
    assert found["problems"] == list(DATA.problems)
    assert found["settings"]["measures"][0]["key"] == PSNR.key
    assert found["published"][0]["rows"][0]["values"]["low"] == 12.0


def test_csv_has_a_line_for_every_picture(tmp_path):
    lines = list(csv.DictReader(written(tmp_path)["results.csv"].splitlines()))
    assert [line["name"] for line in lines] == [record.name for record in RECORDS]
    for line, of in zip(lines, RECORDS):
        for about in (PSNR, SSIM, NIQE):
            for column, values in ((about.key, of.values), (f"input {about.key}", of.input)):
                text = line[column]
                assert (text == "") == (about.key not in values)
                assert not text or repr(float(text)) == repr(values[about.key])
    assert lines[0]["gate haze"] == "0.1" and lines[-1]["error"] == "b.png: cannot be read"


def test_markdown_has_a_table_for_each_convention_with_its_sentence(tmp_path):
    others = {"moce-ir": {"text": "RGB in float", "keys": [PSNR.key]}}
    text = written(tmp_path, conventions=SETTINGS.conventions | others)["results.md"]
    first, second = text.index("## Convention onerestore"), text.index("## Convention moce-ir")
    assert first < text.index("RGB after 8 bits; SSIM 7x7 uniform.") < second < text.index("RGB in float.")
    header, *rows = cells_of(text, "## Convention onerestore")
    assert header == ["", "pictures", "PSNR RGB (dB)", "input", "SSIM RGB", "input"]
    table = {row[0]: row[1:] for row in rows}
    assert table["low"] == ["2", "25.00", "15.00", "0.6250", "0.5000"]
    assert table["low_haze"][:3] == ["1", "26.12", "16.12"]
    assert table["single (mean of 2)"][:2] == ["3", "∞"]
    assert list(table)[-1] == "all (mean of 3)"
    assert len(cells_of(text, "## Convention moce-ir")[0]) == 4
    assert [row[0] for row in cells_of(text, "## Other measures")[0:1]] == [""]
    assert cells_of(text, "## Other measures")[0][2] == "NIQE"
    assert "NIQE is not defined for 1 of 4 pictures" in text


def test_markdown_says_what_is_missing(tmp_path):
    text = written(tmp_path, absent={"lpips": "the package lpips is not installed"})["results.md"]
    assert "4 pictures evaluated, 1 failed, 1 problems of the data" in text
    assert "## Pictures without numbers (1)\n\n- low_haze/b: b.png: cannot be read\n" in text
    assert "## Absent measures (1)\n\n- lpips: the package lpips is not installed\n" in text
    assert "## Problems of the data (1)\n\n- clear/x.png: no picture" in text


def test_published_rows_are_marked_and_only_compared_where_conventions_agree(tmp_path):
    text = written(tmp_path / "same")["results.md"]
    published = text.split("## Published results")[1]
    header, *rows = cells_of(published, "### CDD-11 by category")
    assert header[2:4] == ["low", "haze"]
    assert rows[1][:4] == ["AirNet (published)", "8.93M", "24.83", "24.21"]
    assert all(row[0].endswith("(published)") for row in rows)
    by_category, of_moce, of_f2dnet, *_ = published.split("### ")[1:]
    assert (
        "The same as onerestore above, but ours is of a part of the data." in by_category
        and "OneRestore authors' sheet" in by_category
    )
    assert "NOT the convention of any table above: do not compare" in of_moce
    assert "Convention: unknown" in of_f2dnet and "do not compare" in of_f2dnet
    other = written(tmp_path / "other", conventions={"f2dnet": {"text": "luma", "keys": [PSNR.key]}})["results.md"]
    assert "The same as" not in other


def test_selectivity_names_its_definitions(tmp_path):
    pairs = {"present_absent": (0.8, 0.1), "max_min": (0.9, 0.1)}
    text = written(tmp_path, [record("low/a", 20.0, selectivity=pairs)])["results.md"]
    table = {row[0]: row[1:] for row in cells_of(text, "## Selectivity")[1:]}
    assert "factors present / of those absent" in table["present_absent"][0]
    assert "largest / smallest" in table["max_min"][0]
    assert float(table["max_min"][1]) > 0


def test_measures_of_the_whole_set_and_a_single_category(tmp_path):
    text = written(
        tmp_path, [record("low/a", 20.0), record("low/b", 30.0)], {"fid": 27.216}, measures=(*SETTINGS.measures, FID)
    )["results.md"]
    assert cells_of(text, "## Measures of all pictures")[1] == ["FID", "27.22"]
    assert [row[0] for row in cells_of(text, "## Convention onerestore")[1:]] == ["low"]  # "all" would repeat it


def test_names_cannot_break_the_tables(tmp_path):
    records = [record("a|b\nc/x", 20.0), record("low_haze/x", 30.0)]
    _, first, second, *_ = cells_of(written(tmp_path, records)["results.md"], "## Convention onerestore")
    assert first[0] == "low_haze" and second[0] == "a\\|b c"
    assert len(first) == len(second) == 6


@pytest.mark.parametrize(
    "name", ["a&lt;b&amp;", "~~a~~", "a~b~c", "_a_ x_y", "*a*", "<b>`a`</b>", "![a](b) #", r"a\*b"]
)
def test_names_read_as_they_are(name):
    """Rendered, &lt; was another character, and ~~a~~ was struck through."""
    rendered = MarkdownIt("commonmark").enable("strikethrough").renderInline(plain(name))
    assert "<" not in rendered and html.unescape(rendered) == name


def test_bytes_are_the_same_whatever_the_order_of_work_and_its_speed(tmp_path):
    others = [replace(r, seconds=r.seconds * 3, peak_memory=7) for r in RECORDS]
    random.Random(1).shuffle(others)
    first = written(tmp_path / "first")
    folder = folder_of(tmp_path / "second", RECORDS)
    write_results(folder, DATA, summarize(others, TIERS), RECORDS)
    second = {name: (tmp_path / "second" / name).read_text() for name in first}
    assert {name for name in first if first[name] != second[name]} == {SPEED}
    results = "".join(first[f"results.{suffix}"] for suffix in ("json", "csv", "md"))
    assert str(tmp_path) not in results and "seconds" not in results and "peak" not in results


def test_speed_has_a_file_of_its_own(tmp_path):
    folder = folder_of(tmp_path, RECORDS)
    write_results(folder, DATA, summarize(RECORDS), RECORDS, device="cpu in bf16")
    found = json.loads((tmp_path / SPEED).read_text())
    assert found["speed"]["seconds"] == 0.5 and found["speed"]["peak_memory"] == 1000
    assert found["speed"]["megapixels_per_second"] == pytest.approx(0.12)
    assert found["device"] == "cpu in bf16" and {"f2d", "torch", "python"} <= set(found["versions"])


@pytest.mark.parametrize("count", [3, 12])
def test_the_terminal_gets_what_fits(count):
    abouts = tuple(About(f"m{i}", f"MEASURE {i}", "higher", "dB", 2) for i in range(count))
    values = {about.key: 10.0 + i for i, about in enumerate(abouts)}
    records = [record(f"{name}/a", 20.0, values=values, input={"m0": 1.5}) for name in ("low_haze_rain", "haze")]
    console = Console(width=300, record=True, file=io.StringIO())
    console.print(terminal_table(replace(SETTINGS, name="[b]x", measures=abouts), summarize(records)))
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= 100
    text = "\n".join(lines)
    assert "[b]x" in text and "10.00" in text and "1.50" in text
    assert (f"results.md has all {count} measures" in text) == (count == 12)


def test_data_without_published_results_say_so(tmp_path):
    for preset in ("weatherbench", "rtts"):
        data = SimpleNamespace(title=PRESETS[preset].title, problems=(), published=(preset,))
        text = written(tmp_path / preset, data=data)["results.md"]
        assert f"## Published results\n\nNone are collected here for {data.title}.\n" in text
