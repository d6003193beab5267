"""`f2d eval` as its users run it: numbers, resumption, several processes, and data with faults."""

import csv
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from f2d.degradation import CATEGORIES
from f2d.evaluation import run
from f2d.evaluation.folder import EvaluationFolder
from tests.cli.conftest import assert_one_line_error
from tests.data.conftest import picture, save

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ("results.json", "results.csv", "results.md")


@pytest.fixture
def pairs(tmp_path) -> Path:
    """Three pairs, whose degraded picture is the clean one with noise."""
    folder = tmp_path / "pairs"
    for i in range(3):
        clean = picture(i)
        noise = np.random.default_rng(i).normal(0, 20, clean.shape)
        save(clean, folder / "gt" / f"{i}.png")
        save((clean + noise).clip(0, 255).astype(np.uint8), folder / "input" / f"{i}.png")
    return folder


def rows(path: Path) -> dict[str, dict[str, str]]:
    with open(path / "results.csv", newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in RESULTS}


def test_the_numbers_are_scikit_images(f2d, model, pairs, tmp_path):
    out = tmp_path / "out"
    done = f2d("eval", model, "--data", pairs, "-o", out, "--convention", "onerestore")
    assert done.exit_code == 0, done.output
    found = rows(out)
    assert sorted(found) == ["pairs/0", "pairs/1", "pairs/2"]
    for name, row in found.items():
        stem = name.rpartition("/")[2]
        truth, degraded = (np.array(Image.open(pairs / side / f"{stem}.png")) for side in ("gt", "input"))
        restored = np.array(Image.open(out / "restored" / f"{name}.png"))
        for image, prefix in ((restored, ""), (degraded, "input ")):
            expected = peak_signal_noise_ratio(truth, image)
            assert float(row[f"{prefix}psnr rgb 8bit"]) == pytest.approx(expected, abs=1e-4)
            expected = structural_similarity(truth, image, channel_axis=2)
            assert float(row[f"{prefix}ssim rgb 8bit 7x7"]) == pytest.approx(expected, abs=1e-4)
    overall = json.loads((out / "results.json").read_text())
    assert "RGB after 8 bits; SSIM 7x7 uniform" in json.dumps(overall)
    assert "RGB after 8 bits; SSIM 7x7 uniform" in (out / "results.md").read_text()


def test_run_again_it_goes_on_and_gives_the_same_bytes(f2d, model, pairs, tmp_path, monkeypatch):
    first, second = tmp_path / "first", tmp_path / "second"
    for out in (first, second):
        assert f2d("eval", model, "--data", pairs, "-o", out, "--measures", "mae").exit_code == 0
    assert contents(first) == contents(second)

    records = sorted((first / "images").rglob("*.json"))
    kept = records[0].stat().st_mtime_ns
    records[1].unlink()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for folder in ("images", "restored"):
        (first / folder / "pairs" / f".f2d-0123456789abcdef.{ended.pid}.part").touch()
        os.utime(first / folder / "pairs" / f".f2d-0123456789abcdef.{ended.pid}.part", (0, 0))
    (first / "restored" / "pairs" / "2.png").unlink()
    assert f2d("eval", model, "--data", pairs, "-o", first, "--measures", "mae").exit_code == 0
    assert records[0].stat().st_mtime_ns == kept and records[1].exists()
    assert (first / "restored" / "pairs" / "2.png").exists() and not list(first.rglob("*.part"))
    assert contents(first) == contents(second)


def test_pictures_that_changed_are_evaluated_anew(f2d, model, pairs, tmp_path):
    out = tmp_path / "out"
    command = ("eval", model, "--data", pairs, "-o", out, "--measures", "mae")
    assert f2d(*command).exit_code == 0
    before = rows(out)
    save(picture(9), pairs / "gt" / "1.png")
    assert f2d(*command).exit_code == 0
    after, fresh = rows(out), tmp_path / "fresh"
    assert f2d("eval", model, "--data", pairs, "-o", fresh, "--measures", "mae").exit_code == 0
    assert after == rows(fresh) and after["pairs/1"] != before["pairs/1"] and after["pairs/0"] == before["pairs/0"]


def test_results_do_not_become_data(f2d, model, pairs, tmp_path):
    inside = f2d("eval", model, "--data", pairs, "-o", pairs / "out")
    assert_one_line_error(inside, 2, "must lie outside", "outside")
    assert not (pairs / "out").exists()


def test_a_folder_named_as_the_model_is_not_taken_for_it(f2d, pairs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = f2d("eval", "f2d-lite", "--data", pairs, "-o", "f2d-lite", "--measures", "mae")
    assert done.exit_code == 0, done.output
    assert f2d("eval", "f2d-lite", "--data", pairs, "-o", "f2d-lite", "--measures", "mae").exit_code == 0


def test_names_that_files_can_hardly_hold(f2d, model, tmp_path):
    folder = tmp_path / "photos"
    save(picture(1), folder / ("long" * 60 + ".png"))
    save(picture(2), folder / "<b>|$x$ ü.png")
    odd = os.fsencode(folder) + b"/\xff.png"
    os.rename(folder / "<b>|$x$ ü.png", odd)
    out = tmp_path / "out"
    done = f2d("eval", model, "--data", f"unpaired={folder}", "-o", out, "--measures", "sharpness")
    assert done.exit_code == 0, done.output
    assert len(rows(out)) == 2 and len(list((out / "restored").rglob("*.png"))) == 2


def test_another_evaluation_is_not_written_over(f2d, model, pairs, tmp_path):
    out = tmp_path / "out"
    assert f2d("eval", model, "--data", pairs, "-o", out, "--measures", "mae").exit_code == 0
    before = contents(out)
    refused = f2d("eval", model, "--data", pairs, "-o", out, "--measures", "mae", "--steps", 2)
    assert_one_line_error(refused, 2, "contains a different evaluation", "options", "--overwrite")
    assert contents(out) == before
    again = f2d("eval", model, "--data", pairs, "-o", out, "--measures", "mae", "--steps", 2, "--overwrite")
    assert again.exit_code == 0, again.output
    assert EvaluationFolder.open(out).settings.options["steps"] == 2 and contents(out) != before


def test_outputs_of_another_method_stand_in_for_a_model(f2d, model, pairs, tmp_path):
    restored, out = tmp_path / "restored", tmp_path / "out"
    assert f2d("restore", pairs / "input", "-o", restored, "--model", model).exit_code == 0
    assert f2d("eval", restored, "--data", pairs, "-o", out, "--name", "theirs", "--measures", "mae").exit_code == 0
    ours = tmp_path / "ours"
    assert f2d("eval", model, "--data", pairs, "-o", ours, "--measures", "mae").exit_code == 0
    assert {name: row["psnr rgb 8bit"] for name, row in rows(out).items()} == {
        name: row["psnr rgb 8bit"] for name, row in rows(ours).items()
    }
    (restored / "1.png").unlink()
    left = f2d("eval", restored, "--data", pairs, "-o", tmp_path / "left", "--measures", "mae")
    assert left.exit_code == 1 and "has no image for pairs/1" in left.stderr


def test_a_flat_folder_is_not_every_category_at_once(f2d, cdd11_small, tmp_path):
    """CDD-11's file names are the same in all categories: a flat folder of outputs is none of them."""
    flat = tmp_path / "flat"
    save(picture(1), flat / "1.png")
    done = f2d("eval", flat, "--data", cdd11_small, "-o", tmp_path / "out", "--measures", "mae")
    assert_one_line_error(done, 2, "flat", "nor a folder with a checkpoint or with restored images of this data")


def test_a_folder_of_other_images_is_refused_before_anything_is_evaluated(f2d, pairs, tmp_path):
    """A run of f2d train has pictures of samples, and got an error for every image and tables without numbers."""
    save(picture(1), tmp_path / "run" / "samples" / "step_3.png")
    done = f2d("eval", tmp_path / "run", "--data", pairs, "-o", tmp_path / "out")
    assert_one_line_error(done, 2, "run", "nor a folder with a checkpoint", "such as pairs/0")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def cdd11_small(tmp_path) -> Path:
    folder = tmp_path / "cdd"
    for category in ("clear", "low", "haze"):
        save(picture(1), folder / category / "1.png")
    return folder


def test_data_with_faults_are_listed_and_the_rest_evaluated(f2d, model, pairs, tmp_path):
    (pairs / "gt" / "0.png").unlink()  # no truth
    (pairs / "input" / "1.png").write_bytes(b"no picture")
    save(picture(5, 20, 30), pairs / "gt" / "3.png")  # another size
    save(picture(5), pairs / "input" / "3.png")
    out = tmp_path / "out"
    done = f2d("eval", model, "--data", pairs, "-o", out, "--measures", "mae")
    assert done.exit_code == 1
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 3 and all(line.startswith("error: ") for line in lines), done.stderr
    assert "1 evaluated, 2 failed, 1 data problem" in done.stdout
    text = (out / "results.md").read_text()
    for word in ("0.png: no image to compare it with", "1.png", "must have the same size, got 48x40 and 30x20"):
        assert word in text, word
    assert json.loads((out / "results.json").read_text())
    empty = tmp_path / "empty"
    empty.mkdir()
    assert_one_line_error(f2d("eval", model, "--data", empty, "-o", tmp_path / "x"), 2, "contains no data")


@pytest.mark.parametrize("where", ["restoration", "measure"])
def test_memory_that_runs_out_is_recorded_and_the_rest_evaluated(
    f2d, model, pairs, tmp_path, where, memory_ends, monkeypatch
):
    clean = picture(7, 20, 30)
    for side in ("gt", "input"):
        save(clean, pairs / side / "wide.png")
    out = tmp_path / "out"
    command = ("eval", model, "--data", pairs, "-o", out, "--measures", "mae")
    with monkeypatch.context() as patch:
        if where == "restoration":
            memory_ends(30)
        else:
            patch.setattr(run, "save_image", lambda image, path: torch.empty(2**50 * (image.width == 30)))
        failed = f2d(*command)
    assert_one_line_error(failed, 1, "pairs/wide: ", "does not fit into memory")
    assert "3 evaluated, 1 failed" in failed.stdout
    assert "does not fit into memory" in json.loads((out / "images" / "pairs" / "wide.json").read_text())["error"]
    monkeypatch.undo()
    done = f2d(*command)
    assert done.exit_code == 0 and "4 evaluated, 0 failed" in done.stdout, done.output


def test_composites_have_their_tiers_and_selectivity(f2d, model, tmp_path):
    clean = tmp_path / "clean"
    save(picture(1), clean / "a.png")
    out = tmp_path / "out"
    done = f2d("eval", model, "--data", f"composites={clean}", "-o", out, "--measures", "mae", "--convention", "all")
    assert done.exit_code == 0, done.output
    assert len(rows(out)) == len(CATEGORIES)
    text = (out / "results.md").read_text()
    for word in ("single", "pair", "triple", "published", "present_absent", "inside_masks", "max_min"):
        assert word in text, word


def test_photographs_without_a_truth(f2d, model, tmp_path):
    photos = tmp_path / "photos"
    save(picture(1), photos / "a.png")
    out = tmp_path / "out"
    done = f2d("eval", model, "--data", f"unpaired={photos}", "-o", out, "--measures", "mae,niqe")
    assert done.exit_code == 0, done.output
    assert rows(out)["photos/a"].get("psnr rgb 8bit", "") == ""


@pytest.mark.parametrize("kind", ["pairs", "composites"])
def test_two_processes_give_the_results_of_one(f2d, model, pairs, tmp_path, kind):
    data = {"pairs": pairs, "composites": f"composites={pairs / 'gt'}"}[kind]
    alone, together = tmp_path / "alone", tmp_path / "together"
    assert f2d("eval", model, "--data", data, "-o", alone, "--measures", "mae").exit_code == 0
    command = [
        sys.executable,
        "-m",
        "f2d",
        "eval",
        model,
        "--data",
        str(data),
        "-o",
        str(together),
        "--measures",
        "mae",
    ]
    processes = [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | {"RANK": str(rank), "WORLD_SIZE": "2", "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    printed = []
    for process in processes:
        text, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        printed.append(text)
    assert any("results in" in text for text in printed)  # by the process that found all records
    assert contents(alone) == contents(together)


def test_a_process_of_several_whose_neighbour_died(f2d, model, pairs, tmp_path, monkeypatch):
    """What is there is kept, results are written by the run that completes them, and they are those of one process."""
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    command = ("eval", model, "--data", pairs, "--measures", "mae", "-o")
    assert f2d(*command, alone).exit_code == 0
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    first = f2d(*command, shared)
    assert first.exit_code == 0 and "still missing" in first.stdout and not (shared / "results.json").exists()
    monkeypatch.setenv("RANK", "0")
    reads, record = Counter(), EvaluationFolder.record
    monkeypatch.setattr(EvaluationFolder, "record", lambda self, name: reads.update([name]) or record(self, name))
    assert "results in" in f2d(*command, shared).stdout
    assert contents(alone) == contents(shared)
    # once for the results, and before that once if it may be this process's own work
    assert sorted(reads.values()) == [1, 2, 2]


def test_mistakes_are_one_line_and_leave_nothing(f2d, model, pairs, tmp_path):
    out = tmp_path / "out"
    for arguments, words in {
        (model, "--convention", "nobody"): ("convention", "onerestore"),
        (model, "--measures", "nothing"): ("measure", "niqe"),
        (model, "--sampler", "euler"): ("sampler",),
        (model, "--name", "input"): ("input", "choose a different --name"),
        ("no-such-model",): ("no-such-model",),
    }.items():
        failed = f2d("eval", arguments[0], "--data", pairs, "-o", out, *arguments[1:])
        assert_one_line_error(failed, 2, *words)
    assert not out.exists()


def test_change_spread_and_affine_psnr(f2d, model, pairs, tmp_path):
    """From the pictures themselves; a second sample has the next seed, and a folder of pictures has none."""
    measures = "mae,change,spread,affine-psnr"
    command = ("eval", model, "--data", pairs, "--measures", measures, "--steps", "4", "--precision", "float32")
    assert f2d(*command, "-o", tmp_path / "one", "--seed", "3").exit_code == 0
    assert f2d(*command, "-o", tmp_path / "next", "--seed", "4").exit_code == 0
    found = rows(tmp_path / "one")
    for name, row in found.items():
        stem = f"{name.rpartition('/')[2]}.png"
        files = (pairs / "input" / stem, *(tmp_path / out / "restored" / f"{name}.png" for out in ("one", "next")))
        degraded, first, second = (np.array(Image.open(file)).astype(float) for file in files)
        assert float(row["change"]) == pytest.approx(np.abs(first - degraded).mean(), abs=0.3)  # of rounding
        assert float(row["spread"]) == pytest.approx(np.sqrt(np.square(first - second).mean() / 2), abs=0.5)
        assert float(row["spread"]) > 0 and float(row["input change"]) == float(row["input spread"]) == 0
        assert float(row["psnr affine"]) > float(row["psnr rgb 8bit"]) - 0.1
    restored = tmp_path / "one" / "restored"
    done = f2d("eval", restored, "--data", pairs, "-o", tmp_path / "other", "--measures", measures)
    assert done.exit_code == 0, done.output
    assert "spread: the images are outputs of another method" in (tmp_path / "other" / "results.md").read_text()
    assert "spread" not in rows(tmp_path / "other")["pairs/0"]


def test_the_sample_after_the_last_seed_is_that_of_the_first(f2d, model, pairs, tmp_path):
    """Seeds have 64 bits."""
    command = ("eval", model, "--data", pairs, "--measures", "spread", "--steps", "4", "--precision", "float32")
    assert f2d(*command, "-o", tmp_path / "last", "--seed", 2**64 - 1).exit_code == 0
    assert f2d(*command, "-o", tmp_path / "first", "--seed", 0).exit_code == 0
    for name, row in rows(tmp_path / "last").items():
        images = (np.array(Image.open(tmp_path / o / "restored" / f"{name}.png")) for o in ("last", "first"))
        first, second = (image.astype(float) for image in images)
        assert float(row["spread"]) == pytest.approx(np.sqrt(np.square(first - second).mean() / 2), abs=0.5)
