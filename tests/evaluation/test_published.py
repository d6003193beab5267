"""Published numbers are those of the collection they were copied from, read here in another way."""

import re
from collections import Counter

import pytest

from f2d.degradation import CATEGORIES
from f2d.evaluation.presets import PRESETS
from f2d.evaluation.published import tables

RESFLOW = {
    "Snow100K-L": ("snow100k", ("PSNR", "SSIM", "LPIPS")),
    "Outdoor-Rain": ("outdoor-rain", ("PSNR", "SSIM", "LPIPS")),
    "Dense-Haze": ("dense-haze", ("PSNR", "SSIM")),
    "NH-HAZE": ("nh-haze", ("PSNR", "SSIM")),
    "SIDD": ("sidd", ("PSNR", "SSIM")),
    "LHP": ("lhp", ("PSNR", "SSIM")),
    "RealSnow": ("realsnow", ("PSNR", "SSIM")),
    "DPDD": ("dpdd", ("PSNR", "SSIM", "MAE", "LPIPS")),
    "BSD500": ("bsd500-jpeg10", ("PSNR", "SSIM")),
    "LIVE1": ("live1-jpeg10", ("PSNR", "SSIM")),
}


@pytest.fixture(scope="module")
def collected(shared) -> str:
    return (shared / "spec" / "RESULTS.md").read_text(encoding="utf-8")


def numbers(text: str) -> list[float]:
    return [float(found) for found in re.findall(r"(?<![\w.])\d*\.\d+(?![\w.]*\w)", text)]


def ours(name: str, title: str = "") -> dict[str, list[float | None]]:
    """Method -> its numbers in the order of the columns."""
    rows = [row for table in tables([name]) if title in table.title for row in table.rows]
    assert len({row.method for row in rows}) == len(rows)
    return {row.method: list(row.values.values()) for row in rows}


def test_cdd11_by_category(collected):
    lines = [line.strip("| \n").split(" | ") for line in collected.splitlines() if line.startswith("| ")]
    lines = [cells for cells in lines if cells[0] != "method (params)"]
    assert len(lines) == 8
    found = {row.method: row for table in tables(["cdd-11"]) if "category" in table.title for row in table.rows}
    assert len(found) == len(lines)
    for name, *cells in lines:
        match = re.fullmatch(r"(.*?)(?: ([\d.]+M))?", name)
        row = found[match[1]]
        assert row.parameters == match[2]
        average, _, ssim = cells[-1].partition(" / ")
        expected = [*map(float, cells[:-1]), float(average), float(ssim) if ssim else None]
        assert list(row.values.values()) == expected
        assert tuple(row.values)[:-2] == CATEGORIES


def test_cdd11_averages_are_those_of_the_categories():
    """The rows of the sheet reproduce their average as a mean in which each category counts once."""
    off = {}
    for row in (row for table in tables(["cdd-11"]) if "category" in table.title for row in table.rows):
        mean = sum(row.values[name] for name in CATEGORIES) / 11
        # the printed average, and each of the eleven numbers, is off by up to half a digit
        if abs(mean - row.values["average"]) > 0.0101:
            off[row.method] = (mean, row.values["average"])
    assert off == {}


def test_cdd11_tiers(collected):
    line = re.search(r"F²D-Net, tier means only: (.*?); MoCE-IR-S ([\d./ ]+)\.\n", collected)
    assert ours("cdd-11", "number of factors") == {"F²D-Net": numbers(line[1]), "MoCE-IR-S": numbers(line[2] + " ")}
    # four singles, five pairs and two triples
    single, pair, triple, average, _ = ours("cdd-11", "number of factors")["MoCE-IR-S"]
    assert (4 * single + 5 * pair + 2 * triple) / 11 == pytest.approx(average, abs=0.01)
    single, pair, triple, average, _ = ours("cdd-11", "number of factors")["F²D-Net"]
    assert (4 * single + 5 * pair + 2 * triple) / 11 == pytest.approx(28.84, abs=0.01) and average == 28.72
    notes = [table.convention for table in tables(["cdd-11"]) if table.rows[0].method == "F²D-Net"]
    assert all(note.startswith("unknown") for note in notes) and "28.84" in notes[0] and "luma" in notes[0]


def test_cdd11_perceptual(collected):
    text = re.search(r"^Perceptual \(.*?\): (.*?\n.*?)\. F²D-Net's tiers", collected, re.S | re.M)[1]
    found = {part.split(" ")[0]: numbers(part) for part in text.replace("\n", " ").split("; ")}
    assert ours("cdd-11", "perceptual") == found and len(found) == 3


@pytest.mark.parametrize(("name", "title", "methods"), [("three-task", "Three", 4), ("five-task", "Five", 3)])
def test_several_tasks(collected, name, title, methods):
    section = collected.split(f"## {title} tasks")[1].split("\n", 1)[1].split("\n## ")[0]
    found = {part.split(" ")[0]: numbers(part) for part in re.split(r"\. (?=[A-Z])", section.strip().rstrip("."))}
    assert len(found) == methods
    assert ours(name) == found


def test_resflow(collected):
    section = collected.split("## ResFlow\n")[1].split("\n\n")[0].replace("\n", " ")
    for label, (name, columns) in RESFLOW.items():
        # of "JPEG q10 BSD500 28.21 / .835, LIVE1 27.95 / .830" each its own
        part = re.split(r"[;,]", section.split(f"{label} ", 1)[1])[0].rstrip(". ")
        (table,) = tables([name])
        assert table.columns == columns
        assert list(table.rows[0].values.values()) == numbers(part)


def test_no_number_of_the_collection_is_missing(collected):
    """As a bag of numbers: what a list of rows could forget. The caveats' own are not results."""
    text = collected.split("## Metric conventions")[0].replace("imply an average of 28.84", "")
    text = text.replace("its table prints 28.72", "")
    there = Counter(value for name in PRESETS for t in tables([name]) if "several tasks" not in t.title
                    for row in t.rows for value in row.values.values() if value is not None)  # fmt: skip
    assert there == Counter(numbers(text))


def test_a_part_of_several_tasks_has_its_column_and_says_where_it_is_from():
    found = tables(["sots"])
    assert {table.columns for table in found} == {("SOTS",)}
    assert all("several tasks" in table.title for table in found)
    assert {row.method: row.values["SOTS"] for row in found[0].rows} == {
        "MoCE-IR": 31.34,
        "PromptIR": 30.58,
        "AirNet": 27.94,
    }
    assert [table.columns for table in tables(["lol"])] == [("LOLv1",)] * 2
    assert tables(["rtts", "nothing of that name"]) == []


def test_digits_are_kept_as_printed():
    row = next(t for t in tables(["cdd-11"]) if t.rows[0].method == "MoCE-IR-S").rows[0]
    assert row.printed["triple"] == "25.40" and row.values["triple"] == 25.4
