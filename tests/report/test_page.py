"""The page as a file: what it says, what it cannot do, and what it refuses."""

import html
import json
import re
import shutil
from dataclasses import replace
from statistics import fmean

import numpy as np
import pytest
from PIL import Image

from f2d.evaluation.case import Case
from f2d.evaluation.folder import EvaluationFolder
from f2d.evaluation.method import load_evaluated
from f2d.evaluation.record import Record
from f2d.metrics.measure import About
from f2d.report.gather import gather
from f2d.report.page import write_report
from f2d.report.pictures import PHOTOGRAPHS, encode_within
from tests.report.reader import Reader
from tests.report.sample import CATEGORIES, ERROR, PSNR, WORDS, data_set, evaluate, make_cases, settings


def test_page_is_whole_and_says_what_it_is_of(page, sample):
    path, notes = page
    read = Reader(path.read_text())
    assert read.open == []
    for words in ("Photographs, degraded by recipe", "F²D-Net lite vs Median 3×3", WORDS, "LPIPS its network is not"):
        assert words in read.text
    assert "clean/none.png: cannot be read" in read.text and "Published, not measured here." in read.text
    assert (
        notes == [note for note in notes if note.startswith("Median 3×3: shown without expert maps")]
        and notes[0] in read.text
    )
    assert len(read.all("article")) == len(sample.data.cases)


def test_numbers_are_those_of_the_records(page, sample):
    text = page[0].read_text()
    folders = [EvaluationFolder.open(folder) for folder in sample.folders]
    for case in sample.data.cases:
        article = re.search(rf'<article[^>]*aria-label="{case.name}".*?</article>', text, re.S)[0]
        rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>.*?</tr>", article)[1:]]
        records = [folder.record(case.name) for folder in folders]
        for row, about in zip(rows, (PSNR, ERROR)):
            wanted = [records[0].input[about.key], *(record.values[about.key] for record in records)]
            assert [re.sub("<.*?>| best", "", cell) for cell in row] == [f"{v:.{about.digits}f}" for v in wanted]
            first = (max if about.better == "higher" else min)(range(3), key=wanted.__getitem__)
            assert "<strong>" in row[first]
        scores = json.loads(html.unescape(re.search(r'data-scores="(.*?)"', article)[1]))
        assert scores == [[record.values[about.key] for about in (PSNR, ERROR)] for record in records]


def test_tables_have_all_rows_and_published_ones_stand_apart(page, sample):
    text = page[0].read_text()
    results = re.search(r'<section id="results">.*?</section>', text, re.S)[0]
    for name in (*{case.category for case in sample.data.cases}, "one factor", "several", "all"):
        assert results.count(f'<th scope="row">{name}</th>') == 2  # in the table of each convention
    assert "99.90" not in results and "Best of 2020" not in results
    folders = [EvaluationFolder.open(folder) for folder in sample.folders]
    table = next(table for table in results.split("<table") if PSNR.title in table)
    for name, members in (*((c, (c,)) for c in CATEGORIES), *sample.data.tiers, ("all", CATEGORIES)):
        records = [[[f.record(c.name) for c in sample.data.cases if c.category == m] for m in members] for f in folders]
        values = [fmean(fmean(r.input[PSNR.key] for r in those) for those in records[0])]  # the mean over categories
        values += [fmean(fmean(r.values[PSNR.key] for r in those) for those in of) for of in records]
        row = re.search(rf'<th scope="row">{name}</th>(.*?)</tr>', table)[1]
        cells = re.findall(r"<td[^>]*>(?:<strong>)?([^<]+)", row)
        assert cells == [str(sum(map(len, records[0]))), *(f"{value:.2f}" for value in values)]
    published = re.search(r'<section id="published">.*?</section>', text, re.S)[0]
    assert "99.90" in published and "Somebody et al. (2020), table 2" in published and "5.98M" in published
    assert "luma in floating point. The same as Error above, but ours is of a part of the data." in published


def test_maps_have_a_row_for_each_factor_of_methods_that_have_them(page, sample):
    table = re.search(r'aria-label="Maps and ground-truth masks">.*?</table>', page[0].read_text(), re.S)[0]
    head, *rows = (re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>.*?</tr>", table))
    assert head[:4] == ["Method", "Factor", "pictures", "correlation"] and head[5] == "average precision"
    folder = EvaluationFolder.open(sample.folders[0])
    records = [folder.record(case.name) for case in sample.data.cases]
    assert sorted(row[1] for row in rows) == ["haze", "low", "rain", "snow"]
    for name, factor, pictures, correlation, _, precision, _ in rows:
        found = [record.localisation[factor] for record in records if factor in record.localisation]
        assert name.endswith("F²D-Net lite") and pictures == str(len(found))
        assert correlation == f"{fmean(one.correlation for one in found):.3f}"
        assert precision == f"{fmean(one.average_precision for one in found):.3f}"


def test_every_picture_has_its_sources_maps_and_words(page, sample):
    read = Reader(page[0].read_text())
    count = len(sample.data.cases)
    sources = [a["data-source"] for a in read.all("figure") if "data-source" in a]
    assert sources == ["Input", "F²D-Net lite", "Median 3×3", "Ground truth"] * count
    images = read.all("img")
    assert len(images) == count * (4 + 2 + 4 + 3)  # photographs, errors, experts, spreads
    for image in images:
        assert image["alt"] and image["loading"] == "lazy" and image["decoding"] == "async"
        assert image["src"].startswith("data:image/webp;base64,") and int(image["width"]) <= 960
    assert len(read.all("svg", role="img")) == 2 + count  # bars of two measures, gates of each picture
    assert "no spread by construction" in read.text and "Measured at 160 × 112 pixels" in read.text


def test_nothing_in_the_page_can_reach_a_network(page):
    text = page[0].read_text()
    read = Reader(text)
    policy = read.all("meta", http_equiv="Content-Security-Policy")[0]["content"]
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-")
    assert not re.search(r"https?:|@import|url\(", re.sub(r"data:image/webp;base64,[\w+/=]+", "", text))
    links = [a.get("href") or a.get("src") for _, a in read.elements if "href" in a or "src" in a]
    assert all(link.startswith(("#", "data:image/webp;base64,")) for link in links)


def test_same_input_gives_the_same_bytes(opened, sample, tmp_path):
    paths = [tmp_path / name for name in ("a.html", "b.html")]
    for path in paths:
        write_report(sample.folders, path, images=2, details=False)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.html", "b.html"]


EVIL = "<script>alert(1)</script>'\"&"


def test_names_are_harmless(opened, tmp_path):
    cases = make_cases(tmp_path / "clean", (32, 24), 2)
    name = EVIL.replace("/", "")
    cases = [case._replace(name=f"{name}/{i}", category=name, degraded=case.clean) for i, case in enumerate(cases)]
    absent, options = {EVIL: EVIL}, {EVIL: EVIL}
    folder = evaluate(tmp_path / "one", EVIL, cases, lambda p: p, absent=absent, options=options, model=EVIL)
    other = EvaluationFolder.open(folder)
    other.write(replace(other.record(cases[0].name), error=EVIL))
    opened(data_set(EVIL, cases, (EVIL,), ((EVIL, (name,)),)), ())
    notes = write_report([folder], tmp_path / "page.html", device="cpu")
    read = Reader((tmp_path / "page.html").read_text())
    assert len(read.all("script")) == 1 and len(read.all("article")) == 1 and read.open == []
    assert read.text.count(EVIL) > 10
    assert "is neither a folder nor a preset with shipped weights" in notes[0]


def test_without_details_the_model_is_not_asked(opened, sample, tmp_path, monkeypatch):
    monkeypatch.setattr("f2d.report.page.load_evaluated", None)
    assert write_report(sample.folders[:1], tmp_path / "page.html", details=False) == []
    read = Reader((tmp_path / "page.html").read_text())
    assert len(read.all("img")) == len(sample.data.cases) * 4 and "Experts" not in read.text


def test_without_truth_there_is_no_error_map(opened, sample, tmp_path):
    cases = [case._replace(degraded=case.clean, clean=None) for case in sample.data.cases]
    opened(replace(sample.data, cases=tuple(cases)))
    folders = [shutil.copytree(folder, tmp_path / folder.name) for folder in sample.folders]
    for folder in map(EvaluationFolder.open, folders):
        for case in cases:
            folder.write(replace(folder.record(case.name), data=case.files()))
    write_report(folders, tmp_path / "page.html", details=False)
    read = Reader((tmp_path / "page.html").read_text())
    assert len(read.all("img")) == len(cases) * 3 and "round truth" not in read.text


def test_failed_pictures_are_told_and_not_shown(opened, sample, tmp_path):
    cases = sample.data.cases[:2]
    folder = EvaluationFolder(tmp_path / "some", settings("Some"))
    folder.create()
    folder.write(replace(EvaluationFolder.open(sample.folders[0]).record(cases[0].name), error="out of memory"))
    with pytest.raises(ValueError, match="some has no results of any image yet"):
        gather([folder.path], 5)
    folder.write(EvaluationFolder.open(sample.folders[0]).record(cases[1].name))
    notes = write_report([folder.path], tmp_path / "page.html", details=False)
    text = Reader((tmp_path / "page.html").read_text()).text
    assert f"Some: {cases[0].name}: out of memory" in text and "3 failed" in text and "1 of 4" in text
    assert all(f"Some: {case.name}: was not evaluated" in text for case in cases[2:])
    assert notes == ["No pictures are shown: none has an up-to-date restoration in every evaluation."]
    assert notes[0] in text


def test_evaluations_that_do_not_belong_together_are_refused(opened, sample, tmp_path):
    def made(name, **changes):
        folder = EvaluationFolder(tmp_path / name, settings(name, **changes))
        folder.create()
        return folder.path

    first = sample.folders[0]
    with pytest.raises(ValueError, match=r"uses synthetic=photographs and .*data uses cdd11=other, but evaluations"):
        gather([first, made("data", data="cdd11=other")], 5)
    words = {"RGB": {"text": "otherwise", "keys": [PSNR.key]}}
    with pytest.raises(ValueError, match="define RGB"):
        gather([first, made("words", conventions=words)], 5)
    with pytest.raises(ValueError, match="contains no evaluation"):
        gather([tmp_path], 5)
    with pytest.raises(ValueError, match="7 evaluations, but one page compares at most 6"):
        gather([first] * 7, 5)


def test_measures_of_one_title_are_told_apart_by_their_conventions(opened, sample, tmp_path):
    folder = EvaluationFolder.open(sample.folders[0])
    other = About("psnr float", PSNR.title, "higher", "dB", 2)
    conventions = folder.settings.conventions | {"Float": {"text": "not rounded", "keys": [other.key]}}
    new = EvaluationFolder(tmp_path / "two", settings("Two", conventions=conventions, measures=(PSNR, ERROR, other)))
    new.create()
    for case in sample.data.cases:
        record = folder.record(case.name)
        new.write(replace(record, values=record.values | {other.key: 1.0}))
    assert [about.title for about in gather([new.path], 1).measures] == ["PSNR, RGB", "Error", "PSNR, Float"]


def test_what_one_evaluation_measured_is_not_called_absent(opened, sample, tmp_path):
    """The page had a column of LPIPS, and said that it was not measured."""
    lpips, folder = About("lpips alex", "LPIPS", "lower", "", 4), EvaluationFolder.open(sample.folders[0])
    with_it = settings("One", measures=(PSNR, ERROR, lpips), absent={})
    without = settings("Two", absent={"lpips": "no network", "dists": "neither"})
    for name, of in (("one", with_it), ("two", without)):
        new = EvaluationFolder(tmp_path / name, of)
        new.create()
        for case in sample.data.cases:
            new.write(folder.record(case.name))
    assert gather([tmp_path / "one", tmp_path / "two"], 1).absent == {"dists": "neither"}


def test_other_weights_than_were_evaluated_are_not_asked():
    with pytest.raises(ValueError, match="the weights in f2d-lite are no longer those that were evaluated"):
        load_evaluated(settings("Old", digest="0" * 64), "cpu")


def test_methods_of_one_name_are_told_apart_by_their_folders(opened, sample):
    content = gather([sample.folders[0]] * 2, 1)
    assert [method.name for method in content.methods] == [f"F²D-Net lite ({sample.folders[0]})"] * 2


def test_a_restoration_of_another_size_is_refused(opened, sample, tmp_path):
    case = sample.data.cases[0]
    folder = EvaluationFolder(tmp_path / "one", settings("One"))
    folder.create()
    folder.write(EvaluationFolder.open(sample.folders[0]).record(case.name))
    folder.restored(case.name).parent.mkdir(parents=True)
    Image.new("RGB", (5, 5)).save(folder.restored(case.name))
    with pytest.raises(ValueError, match="does not have the size of its input"):
        write_report([folder.path], tmp_path / "page.html", details=False)
    assert not (tmp_path / "page.html").exists()


def test_fifty_photographs_stay_under_30_mb(opened, tmp_path, monkeypatch):
    """960 x 640 with grain of 12 levels in input, restoration and truth, which is 66 MB as WebP of the best quality.

    There are two photographs, each 25 times: what is the same is encoded once, as it would be again.
    """
    known = {}

    def once(pictures, budget, ladder):
        key = (budget, ladder, *(picture.tobytes() for picture in pictures))
        if key not in known:
            known[key] = encode_within(pictures, budget, ladder)
        return known[key]

    monkeypatch.setattr("f2d.report.cards.encode_within", once)
    generator = np.random.default_rng(0)
    folder = EvaluationFolder(tmp_path / "fifty", settings("Fifty", model=None, outputs="out"))
    folder.create()
    clean, cases = make_cases(tmp_path / "clean", (400, 266), 2, ("coffee", "astronaut")), []
    for case in clean:
        picture = np.asarray(Image.open(case.clean).resize((960, 640), Image.Resampling.LANCZOS))
        for name in ("clean", "degraded", "restored"):
            grainy = picture + generator.normal(0, 12, picture.shape)
            Image.fromarray(grainy.clip(0, 255).astype("uint8")).save(
                case.clean.with_suffix(f".{name}.png"), compress_level=1
            )
    for i in range(50):
        original = clean[i % 2]
        files = {name: original.clean.with_suffix(f".{name}.png") for name in ("clean", "degraded", "restored")}
        case = Case(f"{original.category}/{i}", original.category, files["degraded"], files["clean"])
        record = Record(case.name, case.category, 960, 640, {PSNR.key: 30.0}, {PSNR.key: 30.0}, data=case.files())
        folder.write(record)
        folder.restored(case.name).parent.mkdir(parents=True, exist_ok=True)
        folder.restored(case.name).symlink_to(files["restored"])
        cases.append(case)
    opened(data_set("Fifty", cases))
    write_report([folder.path], tmp_path / "page.html", images=50)
    assert len(known) == 4  # photographs and maps of the two
    best_ = sum(encode_within([Image.open(files[name])], 0, PHOTOGRAPHS[:1]).characters for name in files)
    size = (tmp_path / "page.html").stat().st_size
    assert 20e6 < size < 30e6 < 50 * best_  # the room is used, and needed
    assert len(Reader((tmp_path / "page.html").read_text()).all("article")) == 50


def test_a_model_of_few_steps_is_shown_without_its_details(sample, opened, tmp_path, monkeypatch):
    monkeypatch.setattr("f2d.report.details.SPREAD_STEPS", (1, 101))
    notes = write_report(sample.folders[:1], tmp_path / "report.html", device="cpu", images=1)
    assert len(notes) == 1 and "shown without expert maps" in notes[0]
    assert "steps must be 1 to 100, got 101" in notes[0] and (tmp_path / "report.html").is_file()
