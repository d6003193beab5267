"""`f2d train` and `f2d finetune`: options become a recipe, and refusals are one line."""

import sys

import pytest

from tests.cli.conftest import assert_one_line_error
from tests.cli.test_info import one_line

pytest.importorskip("lightning", reason="needs the [train] extra")


@pytest.fixture
def fitted(monkeypatch) -> dict:
    """What the command asked for, instead of a run."""
    from f2d.training import fit as module

    seen = {}

    def fit(recipe, data, out, **options):
        seen.update(options, recipe=recipe, data=data, out=out)

    monkeypatch.setattr(module, "fit", fit)
    return seen


def test_options_become_a_recipe(f2d, fitted, tmp_path):
    options = ("-s", "steps=7", "--set", "stages.0.crop=96", "-s", "betas=[0.5, 0.75]", "-s", "learning_rate=1e-4")
    options += ("-s", "losses.maps=0.5", "-s", "sources.0.categories={rain: 2.5}", "-s", "initial=a=b")
    options += ("--resume", "--devices", 2, "--accelerator", "cpu")
    result = f2d("train", "lite", "--data", tmp_path, "-o", tmp_path / "out", *options)
    assert result.exit_code == 0, result.output
    recipe = fitted["recipe"]
    assert (recipe.steps, recipe.stages[0].crop, recipe.betas, recipe.learning_rate) == (7, 96, (0.5, 0.75), 1e-4)
    assert (recipe.losses.maps, recipe.sources[0].categories, recipe.initial) == (0.5, {"rain": 2.5}, "a=b")
    assert (fitted["resume"], fitted["devices"], fitted["accelerator"]) == (True, 2, "cpu")
    assert (fitted["data"], fitted["out"]) == (tmp_path, tmp_path / "out")
    assert recipe.model == "f2d-lite" and str(tmp_path / "out" / "weights") in result.stdout


def test_resuming_reads_the_saved_recipe_and_says_so(f2d, fitted, tmp_path):
    (tmp_path / "other.yaml").write_text("model: f2d-lite\nsteps: 6\n")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "recipe.yaml").write_text("model: f2d-lite\nsteps: 9\nseed: 4\n")
    result = f2d("train", tmp_path / "other.yaml", "--data", tmp_path, "-o", tmp_path / "out", "--resume")
    assert (fitted["recipe"].steps, fitted["recipe"].seed) == (9, 4)
    assert str(tmp_path / "out" / "recipe.yaml") in result.stdout and "--set" in result.stdout


@pytest.mark.parametrize("model", ["runs/[v2] # 3", "123", "*best"])
def test_finetune_starts_from_any_folder(f2d, fitted, tmp_path, model):
    """Its name is no YAML."""
    result = f2d("finetune", model, "--data", tmp_path, "-o", tmp_path / "out", "-s", "steps=7")
    assert result.exit_code == 0, result.output
    assert (fitted["recipe"].initial, fitted["recipe"].steps, fitted["recipe"].learning_rate) == (model, 7, 2e-4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            "model=f2d-base",
            ("model=f2d-base has no effect beside the weights of runs/mine", "from weights of"),
        ),
        ("initial=f2d-lite", ("--set initial=f2d-lite contradicts MODEL, runs/mine",)),
        ("network={widths: [8]}", ("network", "initial")),
    ],
)
def test_the_weights_determine_the_network(f2d, fitted, tmp_path, change, words):
    """A recipe's file may name a model, which is that of the recipe without weights to start from."""
    run = ("--data", tmp_path, "-o", tmp_path / "out")
    assert_one_line_error(f2d("finetune", "runs/mine", *run, "-s", change), 2, *words)
    assert not fitted
    if change.startswith("model"):
        assert_one_line_error(f2d("train", "lite", *run, "-s", change, "-s", "initial=runs/mine"), 2, *words)
        assert f2d("train", "lite", *run, "-s", change).exit_code == 0 and fitted["recipe"].model == "f2d-base"


def test_refusals_are_one_line(f2d, tmp_path, photo):
    (tmp_path / "empty").mkdir()

    def refused(*arguments: object, data="empty", out="out"):
        return f2d("train", *arguments, "--data", tmp_path / data, "-o", tmp_path / out)

    assert_one_line_error(refused("lite", data="no"), 2, "no such file or folder")
    assert_one_line_error(refused("nope"), 2, "shipped recipe", "lite")
    assert_one_line_error(refused("lite"), 2, "contains no photographs", "empty")
    assert_one_line_error(refused("lite", out="photo.png"), 2, "photo.png", "folder")
    for change, word in (
        ("steps", "NAME=VALUE"),
        ("=2", "NAME=VALUE"),
        ("steps=[", "not YAML"),
        ("steps=often", "got 'often'"),
        ("nonsense=1", "unknown nonsense"),
        ("sources.0.categories={fog: 1}", "got fog"),
        ("sources.0.categories={rain: -1}", "categories"),
    ):
        assert_one_line_error(refused("lite", "-s", change, data="."), 2, word)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("missing", ["lightning", "yaml"])
def test_without_its_extra(f2d, tmp_path, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    for name in [name for name in sys.modules if name.startswith("f2d.training.")]:
        monkeypatch.delitem(sys.modules, name)
    result = f2d("train", "lite", "--data", tmp_path, "-o", tmp_path / "out", "-s", "steps=5")
    assert_one_line_error(result, 2, missing, "f2d[train]")


def test_the_help_names_the_extra(f2d):
    for command in ("train", "finetune"):
        assert "f2d[train]" in one_line(f2d(command, "--help").stdout)
