"""The files of `f2d eval`: it writes over none of the user's, and none is left of an earlier evaluation."""

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from f2d.evaluation.folder import EvaluationFolder
from f2d.evaluation.method import ModelMethod
from f2d.evaluation.tables import FILES
from tests.cli.conftest import assert_one_line_error
from tests.cli.test_eval import contents, rows
from tests.data.conftest import picture, save


@pytest.fixture
def pairs(tmp_path):
    for i in range(2):
        save(picture(i), tmp_path / "pairs" / "gt" / f"{i}.png")
        save(picture(i) // 2, tmp_path / "pairs" / "input" / f"{i}.png")
    return tmp_path / "pairs"


def files(folder) -> dict:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_list_that_names_photographs_above_it_leaves_them_as_they_are(f2d, model, tmp_path):
    """From the results' folder, rain/../../../photos/1.png was the photograph itself."""
    save(picture(1), tmp_path / "photos" / "1.png")
    save(picture(2), tmp_path / "clean" / "1.png")
    before, lists = files(tmp_path), tmp_path / "a" / "b" / "c"
    lists.mkdir(parents=True)
    (lists / "test.txt").write_text("../../../photos/1.png ../../../clean/1.png rain\n")
    out = tmp_path / "out"
    done = f2d("eval", model, "--data", lists / "test.txt", "-o", out, "--measures", "mae")
    assert done.exit_code == 0, done.output
    assert {path: path.read_bytes() for path in before} == before
    assert len(list((out / "restored").rglob("*.png"))) == 1 and len(list((out / "images").rglob("*.json"))) == 1


def test_what_an_evaluation_reads_is_not_where_it_writes(f2d, model, pairs, tmp_path):
    """Its restorations replaced the evaluated ones, and --overwrite removed them."""
    theirs = tmp_path / "theirs"
    for i in range(2):
        save(picture(i) // 2, theirs / "restored" / "pairs" / f"{i}.png")
    listed = tmp_path / "test.txt"
    listed.write_text("theirs/restored/pairs/0.png pairs/gt/0.png rain\n")
    before = files(tmp_path)
    for data, method in (
        (pairs, theirs / "restored"),
        (f"composites={theirs / 'restored'}", model),
        (listed, model),
    ):
        refused = f2d("eval", method, "--data", data, "-o", theirs, "--overwrite")
        assert_one_line_error(refused, 2, "must lie outside", "which is written")
    assert files(tmp_path) == before


@pytest.mark.parametrize("name", [*FILES, "restored", "images"])
def test_what_no_evaluation_wrote_is_kept(f2d, model, pairs, tmp_path, name):
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("somebody's own")
    refused = f2d("eval", model, "--data", pairs, "-o", out)
    assert_one_line_error(refused, 2, f"contains {name}, but no evaluation", "--overwrite")
    assert files(out) == {out / name: b"somebody's own"}


@pytest.mark.parametrize("name", ["input", "Ground truth"])
def test_a_folder_called_as_a_column_needs_another_name(f2d, pairs, tmp_path, name):
    """A figure showed its pictures as the input."""
    (tmp_path / name).mkdir()
    for i in range(2):
        save(picture(i), tmp_path / name / f"{i}.png")
    command = ("eval", tmp_path / name, "--data", pairs, "-o", tmp_path / "out", "--measures", "mae")
    assert_one_line_error(f2d(*command), 2, f"'{name}' has a special meaning", "--name")
    assert f2d(*command, "--name", "theirs").exit_code == 0


def test_a_damaged_record_is_an_error_until_it_is_measured_anew(f2d, model, pairs, tmp_path):
    """A page said that the image was not evaluated."""
    out, page = tmp_path / "out", tmp_path / "page.html"
    command = ("eval", model, "--data", pairs, "-o", out, "--measures", "mae")
    assert f2d(*command).exit_code == 0
    before, (record, kept) = files(out), sorted((out / "images").rglob("*.json"))
    unchanged = kept.stat().st_mtime_ns
    record.write_text(record.read_text().replace('"scene"', '"scenery"'))
    refused = f2d("report", out, "-o", page, "--no-details")
    assert_one_line_error(refused, 2, f"{record} is damaged", "without scene", "run f2d eval again")
    record.write_bytes(b"\xff half")
    assert f2d(*command).exit_code == 0 and kept.stat().st_mtime_ns == unchanged
    assert all(files(out)[path] == before[path] for path in before if path.name.startswith("results"))


def test_names_that_are_not_unicode_are_in_every_file(f2d, model, pairs, tmp_path):
    """An unreadable image, an image without a partner or a folder of such a name ended everything without results."""
    data, out, page = os.fsdecode(os.fsencode(tmp_path) + b"/\xff"), tmp_path / "out", tmp_path / "page.html"
    os.rename(pairs, data)
    for side in ("gt", "input"):
        os.rename(f"{data}/{side}/1.png", os.fsencode(f"{data}/{side}") + b"/\xfe.png")
    with open(os.fsencode(f"{data}/input") + b"/\xfe.png", "wb") as file:
        file.write(b"no picture")
    shutil.copy(f"{data}/input/0.png", os.fsencode(f"{data}/input") + b"/\xfd.png")
    command = ("eval", model, "--data", f"pairs={data}", "-o", out, "--measures", "mae")
    done = f2d(*command)
    assert done.exit_code == 1 and "1 evaluated, 1 failed, 1 data problems" in done.stdout, done.output
    assert list(rows(out)) == [r"\udcff/0", r"\udcff/\udcfe"] and data in EvaluationFolder.open(out).settings.data
    written = contents(out)
    assert all(rb"\udcfe.png" in text for name, text in written.items() if name != "results.md")
    assert rb"\udcfd.png: no image to compare it with" in written["results.md"]
    assert (
        f2d("report", out, "-o", page, "--no-details").exit_code == 0 and r'aria-label="\udcff/0"' in page.read_text()
    )
    again = f2d(*command)
    assert again.exit_code == 1 and contents(out) == written


def test_a_restoration_that_is_not_a_number_is_a_failure(f2d, model, pairs, tmp_path, monkeypatch):
    """Every mean left it out, and was that of the others."""
    restore = ModelMethod.restore

    def overflowing(self, case, degraded):
        answer = restore(self, case, degraded)
        return answer._replace(image=answer.image / 0) if case.name == "pairs/1" else answer

    monkeypatch.setattr(ModelMethod, "restore", overflowing)
    done = f2d("eval", model, "--data", pairs, "-o", tmp_path / "out", "--measures", "mae")
    assert done.exit_code == 1 and "1 evaluated, 1 failed" in done.stdout
    assert "pairs/1: the restored image has values that are infinite or not a number" in done.stderr
    assert not (tmp_path / "out" / "restored" / "pairs" / "1.png").exists()


def test_a_limit_makes_no_name_unique(f2d, tmp_path):
    """Of two videos with equal names, the restored frame of one was measured as that of the other."""
    for k, video in enumerate(("one", "two")):
        save(picture(k), tmp_path / "gopro" / "test" / video / "sharp" / "1.png")
        save(picture(k) // 2, tmp_path / "gopro" / "test" / video / "blur" / "1.png")
    save(picture(1), tmp_path / "flat" / "1.png")  # of the second
    save(picture(1), tmp_path / "flat" / "GoPro" / "two" / "1.png")
    command = ("eval", tmp_path / "flat", "--data", f"gopro={tmp_path / 'gopro'}", "-o", tmp_path / "out")
    done = f2d(*command, "--limit", 1)
    assert done.exit_code == 1 and "has no image for GoPro/one/1 (looked for GoPro/one/1" in done.stderr


def test_whatever_restore_writes_for_the_data_is_found(f2d, model, pairs, tmp_path):
    """A GIF becomes 0.gif.png, and of 1.jpg and 1.png each has an output of its own name."""
    (pairs / "input" / "0.png").unlink()
    Image.fromarray(picture(0) // 2).save(pairs / "input" / "0.gif")
    Image.fromarray(picture(5)).save(pairs / "input" / "1.jpg")
    assert f2d("restore", pairs / "input", "--model", model, "-o", tmp_path / "theirs").exit_code == 0
    done = f2d("eval", tmp_path / "theirs", "--data", pairs, "-o", tmp_path / "out", "--measures", "mae")
    assert done.exit_code == 0, done.output
    outputs = {"pairs/0": "0.gif.png", "pairs/1.jpg": "1.jpg", "pairs/1.png": "1.png"}
    found = rows(tmp_path / "out")
    assert found.keys() == outputs.keys()
    for name, file in outputs.items():
        with Image.open(tmp_path / "theirs" / file) as image:
            restored = np.asarray(image.convert("RGB"), np.float64)
        wanted = np.abs(restored - picture(int(name[6]))).mean() / 255
        assert float(found[name]["mae rgb 8bit"]) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("change", ["without images", "failed"])
def test_no_restoration_of_earlier_files_stays(f2d, model, pairs, tmp_path, change):
    """Later commands took it for that of the new files."""
    out = tmp_path / "out"
    command = ("eval", model, "--data", pairs, "-o", out, "--measures", "mae")
    assert f2d(*command).exit_code == 0
    if change == "failed":
        (pairs / "input" / "1.png").write_bytes(b"no picture")
    else:
        save(picture(7), pairs / "input" / "1.png")
    assert f2d(*command, "--no-images").exit_code == (change == "failed")
    folder = EvaluationFolder.open(out)
    assert not folder.restored("pairs/1").exists() and folder.restored("pairs/0").exists()
    save(picture(7), pairs / "input" / "1.png")
    assert f2d(*command).exit_code == 0
    fresh = tmp_path / "fresh"
    assert f2d("eval", model, "--data", pairs, "-o", fresh, "--measures", "mae").exit_code == 0
    again, once = (Image.open(EvaluationFolder.open(path).restored("pairs/1")) for path in (out, fresh))
    assert list(again.getdata()) == list(once.getdata())


@pytest.mark.parametrize("change", ["overwrite", "data"])
def test_results_of_the_evaluation_before_do_not_outlive_it(f2d, model, pairs, tmp_path, monkeypatch, change):
    """Interrupted, the page of a new evaluation showed the FID of the one before."""
    out = tmp_path / "out"
    command = ("eval", model, "--data", pairs, "-o", out, "--measures", "mae")
    assert f2d(*command).exit_code == 0
    assert json.loads((out / "results.json").read_text())["settings"]["options"]["seed"] == 0

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("f2d.evaluation.run.Run._one", stop)
    again = ("--seed", "1", "--overwrite") if change == "overwrite" else ()
    save(picture(7), pairs / "input" / "1.png")
    assert f2d(*command, *again).exit_code != 0
    assert not any((out / name).exists() for name in FILES)


def test_overwriting_leaves_no_image_of_the_earlier_method(f2d, model, pairs, tmp_path):
    """restored/ was then evaluated as one method, with the images of two."""
    out, again = tmp_path / "out", tmp_path / "again"
    assert f2d("eval", model, "--data", pairs, "-o", out, "--measures", "mae").exit_code == 0
    (out / "images" / "own.json").write_text("{}")
    moved = json.loads((out / "images" / "pairs" / "0.json").read_text()) | {"name": "../../photo"}
    (out / "images" / "moved.json").write_text(json.dumps(moved))
    save(picture(0), tmp_path / "photo.png")
    save(picture(0), out / "restored" / "own.png")
    options = ("--measures", "mae", "--steps", 2, "--limit", 1, "--overwrite")
    assert f2d("eval", model, "--data", pairs, "-o", out, *options).exit_code == 0
    written = {path.relative_to(out).as_posix() for folder in ("images", "restored") for path in files(out / folder)}
    own = {"images/own.json", "images/moved.json", "restored/own.png"}
    assert written == {"images/pairs/0.json", "restored/pairs/0.png"} | own and (tmp_path / "photo.png").is_file()
    done = f2d("eval", out / "restored", "--data", pairs, "-o", again, "--measures", "mae")
    assert done.exit_code == 1 and "has no image for pairs/1" in done.stderr
