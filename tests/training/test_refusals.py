"""What cannot work is said before the first step of a run."""

import pickle
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from f2d.data import Source
from f2d.training.recipe import LossWeights, Recipe, Stage
from tests.training.conftest import picture

pytest.importorskip("lightning", reason="needs the [train] extra")
from f2d.training import fit as training

NEVER = 1000  # validations take longest
fit = partial(training.fit, accelerator="cpu")


def pairs(folder: Path, degraded: str, clean: str, names: int = 4, other: int = 0) -> None:
    for home, number in ((degraded, other or names), (clean, names)):
        (folder / home).mkdir(parents=True)
        for i in range(number):
            picture(i + 10 * (home == degraded)).save(folder / home / f"{i}.png")


@pytest.mark.parametrize(
    ("changes", "options", "words"),
    [
        ({"stages": (Stage(0, 32, 4), Stage(2, 64, 4))}, {}, r"56x48, smaller than the crop of 64 \(stages.1.crop\)"),
        ({"validation_crop": 64}, {}, r"56x48, smaller than the crop of 64 \(validation_crop\)"),
        ({"sources": (Source(".", layout="clean", category="fog"),)}, {}, r"categories must be among .*got fog"),
        ({"sources": (Source(".", layout="clean", category="noise25"),)}, {}, "noise25 has noise.*factors: low, haze"),
        ({"losses": LossWeights(categories={"fog": 2.0})}, {}, r"losses.categories must be among .*haze.*got fog"),
        ({"sources": (Source("nowhere"),)}, {}, "nowhere: no such file or folder"),
        ({"sources": (Source(".", layout="pairs", category="rain"),)}, {}, "pair"),
        ({"validation_steps": 101}, {}, "validation_steps: .*steps must be 1 to 100, got 101"),
        ({"stages": (Stage(0, 32, 4), Stage(2, 32, 2))}, {"devices": 4}, "batch_size 2 .* evenly among 4 processes"),
    ],
)
def test_what_cannot_work_is_said_before_any_work(changes, options, words, photographs, small, tmp_path):
    with pytest.raises(ValueError, match=words):
        fit(small(**changes), photographs, tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_dilated_kernels_whose_bf16_gradient_is_wrong_on_a_cpu(photographs, tmp_path):
    """PyTorch 2.13 fills the gradient with NaN, or ends the process, for 24 channels; 16 and 32 are right."""
    network = {"stage_widths": (24, 32, 32, 32)}
    recipe = Recipe(network=network, stages=(Stage(0, 32, 4),), steps=1, workers=0)
    with pytest.raises(ValueError, match=r"experts.1.conv is a dilated .* 24 channels.*use a width of 16 or 32"):
        fit(recipe, photographs, tmp_path / "run")


def test_data_that_do_not_fit(small, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="contains no data"):
        fit(small(), tmp_path / "empty", tmp_path / "run")
    pairs(tmp_path / "unpaired", "input", "gt", names=3, other=5)
    sources = (Source(".", layout="pairs", category="rain"),)
    with pytest.raises(ValueError, match=r"3\.png"):
        fit(small(sources=sources), tmp_path / "unpaired", tmp_path / "run")
    with pytest.raises(ValueError, match=r"gate_prior must be 0 .* noise, haze, rain.*low, haze, rain, snow"):
        fit(small("three"), tmp_path / "unpaired", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", [b"", b"no checkpoint at all", pickle.dumps({"a": 1}), "weights alone"])
def test_a_damaged_state_is_one_clear_error(content, photographs, small, tmp_path):
    last = tmp_path / "last.ckpt"
    if isinstance(content, bytes):
        last.write_bytes(content)
    else:
        torch.save({"weights": torch.ones(2)}, last)
    with pytest.raises(FileExistsError, match=r"already contains a run \(last.ckpt\), so resume it"):
        fit(small(), photographs, tmp_path)
    with pytest.raises(ValueError, match=r"last\.ckpt cannot be resumed from \(.+\), so start again"):
        fit(small(), photographs, tmp_path, resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def test_weights_without_a_state_are_not_replaced(photographs, small, tmp_path):
    (tmp_path / "best").mkdir()
    with pytest.raises(FileExistsError, match=r"no last\.ckpt to resume from, and a new run would replace its best"):
        fit(small(), photographs, tmp_path, resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


def test_a_run_is_resumed_with_its_own_recipe(photographs, small, tmp_path):
    fit(small(steps=1, validate_every=NEVER), photographs, tmp_path / "run")
    file = tmp_path / "run" / "recipe.yaml"
    before = file.read_text()
    with pytest.raises(ValueError, match=r"a different recipe \(learning_rate .* -> 1e-06\): only steps, .*workers"):
        fit(small(steps=1, validate_every=NEVER, learning_rate=1e-6), photographs, tmp_path / "run", resume=True)
    assert file.read_text() == before
    file.unlink()
    with pytest.raises(ValueError, match=r"last\.ckpt has a different network"):
        fit(small("resflow"), photographs, tmp_path / "run", resume=True)


@pytest.mark.parametrize("kind", ["clean", "pairs"])
def test_a_run_is_resumed_with_its_own_images(kind, small, tmp_path):
    """A photograph more or less: nearly all samples would be others, and held-out scenes would be trained on."""
    data, out = tmp_path / "data", tmp_path / "run"
    pairs(data, "input", "gt", names=6)
    source = Source("gt") if kind == "clean" else Source(".", category="rain")
    recipe = small(sources=(source,), steps=1, validate_every=NEVER)
    fit(recipe, data, out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    advice = r"start a new run from its weights: initial=.*run/weights"
    for name in ("input", "gt"):
        (data / name / "5.png").rename(data / name / "9.png")
    with pytest.raises(
        ValueError, match=rf"run cannot be resumed with other data \(6 images, with other names\).*{advice}"
    ):
        fit(recipe, data, out, resume=True)
    for name in ("input", "gt"):
        (data / name / "9.png").unlink()
    with pytest.raises(
        ValueError, match=rf"run cannot be resumed with other data \(6 images then, 5 images now\).*{advice}"
    ):
        fit(recipe, data, out, resume=True)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    for name in ("input", "gt"):
        picture(5 + 10 * (name == "input")).save(data / name / "5.png")
    data.rename(tmp_path / "moved")
    fit(recipe, tmp_path / "moved", out, resume=True)


@pytest.mark.parametrize("kind", ["list", "lmdb"])
def test_a_file_of_data_may_be_named_in_another_way(kind, small, tmp_path, monkeypatch):
    """Named relatively, then absolutely, the data counted as other images, and the run was not resumed."""
    data = tmp_path / "data"
    pairs(data, "input", "gt")
    if kind == "list":
        (data / "pairs.txt").write_text("".join(f"input/{i}.png gt/{i}.png rain\n" for i in range(4)))
    else:
        lmdb = pytest.importorskip("lmdb")
        with lmdb.open(str(data / "db"), map_size=2**24) as made, made.begin(write=True) as transaction:
            for i in range(4):
                lq, gt = (np.asarray(Image.open(data / side / f"{i}.png")) for side in ("input", "gt"))
                transaction.put(b"%d" % i, pickle.dumps({"LQ": lq, "GT": gt, "deg_name": "rain"}))
    name = "pairs.txt" if kind == "list" else "db"
    recipe = small(sources=(Source("."),), steps=1, validate_every=NEVER)
    monkeypatch.chdir(data)
    fit(recipe, Path(name), tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    for path in (Path("data", name), data / name):
        fit(recipe, path, tmp_path / "run", resume=True)


def test_a_list_of_absolute_names_may_move(small, tmp_path):
    """The names seen from the list changed with its place, and the run was not resumed."""
    data, out = tmp_path / "data", tmp_path / "run"
    pairs(data, "input", "gt")
    recipe = small(sources=(Source("."),), steps=1, validate_every=NEVER)
    lists = [tmp_path / "lists" / "pairs.txt", tmp_path / "of" / "runs" / "pairs.txt"]
    for number, path in enumerate(lists):
        path.parent.mkdir(parents=True)
        path.write_text("".join(f"{data}/input/{i}.png {data}/gt/{i}.png rain\n" for i in range(4)))
        fit(recipe, path, out, resume=number > 0)


def test_a_run_lies_outside_its_photographs(photographs, small, tmp_path):
    """Its drawings would be trained on when it is resumed, and by the next run."""
    shutil.copytree(photographs, tmp_path / "photos")
    with pytest.raises(ValueError, match=r"run must lie outside .*photos, because its samples would be read"):
        fit(small(), tmp_path / "photos", tmp_path / "photos" / "runs" / "run")
    assert not (tmp_path / "photos" / "runs").exists()
    # hidden folders are not read
    fit(small(steps=1, validate_every=NEVER), tmp_path / "photos", tmp_path / "photos" / ".runs" / "run")
    pairs(tmp_path / "pairs", "input", "gt")  # in which no other folders are read
    recipe = small(sources=(Source(".", layout="pairs", category="rain"),), steps=1, validate_every=NEVER)
    fit(recipe, tmp_path / "pairs", tmp_path / "pairs" / "run")


def test_resflow_has_one_term(photographs, small, tmp_path):
    with pytest.raises(ValueError, match=r"losses\.pixel must be above 0 for ResFlow"):
        fit(small("resflow", losses=LossWeights(pixel=0)), photographs, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_with_results_is_a_run(photographs, small, tmp_path):
    (tmp_path / "best").mkdir()
    with pytest.raises(FileExistsError, match=r"already contains a run \(best\)"):
        fit(small(), photographs, tmp_path)


@pytest.mark.parametrize(("degraded", "clean"), [("input", "gt"), ("low_haze", "clear")])
def test_clean_photographs_have_no_degraded_ones_beside_them(degraded, clean, small, tmp_path):
    pairs(tmp_path / "data", degraded, clean)
    recipe = small(sources=(Source(".", layout="clean"),))
    with pytest.raises(
        ValueError, match="contains degraded images beside clean ones, so give the folder with the clean ones"
    ):
        fit(recipe, tmp_path / "data", tmp_path / "run")


@pytest.mark.parametrize(("accelerator", "words"), [("tpu", "got 'tpu'"), ("cuda", "no GPU is available")])
def test_machines_that_are_not_there(accelerator, words, photographs, small, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=words):
        training.fit(small(), photographs, tmp_path / "run", accelerator=accelerator)
